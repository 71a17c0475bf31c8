package blobstore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Two copies of a file that its owner appends to: the one that was begun first
// may be renamed last, and must not shorten the other.
func TestALongerCopyOfAGrowingFileStays(t *testing.T) {
	for name, c := range map[string]struct{ there, want int }{
		"a longer copy of the same":              {there: 150, want: 150},
		"a shorter one":                          {there: 50, want: 100},
		"nothing":                                {there: -1, want: 100},
		"something else, longer than the source": {there: 300, want: 100},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(name string, n int) string {
				path := filepath.Join(dir, name)
				require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("x", n)), 0o600))
				return path
			}
			src, err := os.Open(write("source", 200))
			require.NoError(t, err)
			defer src.Close()
			to := filepath.Join(dir, "target")
			if c.there >= 0 {
				write("target", c.there)
			}
			require.NoError(t, new(File).renameUnlessLonger(t.Context(), src, write("copy", 100), to))
			info, err := os.Stat(to)
			require.NoError(t, err)
			assert.EqualValues(t, c.want, info.Size())
		})
	}
}
