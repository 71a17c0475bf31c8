package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The limit of a container is the runtime's, less a tenth, however the kernel
// tells it.
func TestMemoryLimitOfContainer(t *testing.T) {
	for name, c := range map[string]struct {
		v2, v1 string
		want   int64
	}{
		"cgroup v2":          {"134217720\n", "", 120795948},
		"cgroup v1":          {"", "134217720\n", 120795948},
		"v2 without a limit": {"max\n", "", math.MaxInt64},
		"v1 without a limit": {"", "9223372036854771712\n", math.MaxInt64},
		"no cgroup":          {"", "", math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOMEMLIMIT", "")
			defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
			fitContainer(limitFiles(t, c.v2, c.v1))
			assert.Equal(t, c.want, debug.SetMemoryLimit(-1))
		})
	}
}

func TestMemoryLimitOfEnvironmentWins(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "100MiB")
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
	fitContainer(limitFiles(t, "134217720", ""))
	assert.Equal(t, int64(math.MaxInt64), debug.SetMemoryLimit(-1), "the runtime reads GOMEMLIMIT itself")
}

// What a command sets for itself is not raised to the container's, nor the
// other way around.
func TestMemoryLimitIsOnlyLowered(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
	lowerMemoryLimit(64 << 20)
	lowerMemoryLimit(128 << 20)
	assert.Equal(t, int64(64<<20), debug.SetMemoryLimit(-1))
}

// limitFiles are the two files; without a content there is none.
func limitFiles(t *testing.T, v2, v1 string) []string {
	files := []string{filepath.Join(t.TempDir(), "v2"), filepath.Join(t.TempDir(), "v1")}
	for i, content := range []string{v2, v1} {
		if content != "" {
			require.NoError(t, os.WriteFile(files[i], []byte(content), 0o600))
		}
	}
	return files
}
