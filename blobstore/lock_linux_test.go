package blobstore

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// Whoever opened the lock file before a Delete removed it, and locks it only
// then, is not alone: the next one makes a new file and locks that.
func TestLockExcludesAlsoWhenItsFileIsRemoved(t *testing.T) {
	dir := t.TempDir()
	var inside atomic.Int32
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			for range 200 {
				unlock, err := lockFolder(t.Context(), dir)
				if err != nil {
					return err
				}
				n := inside.Add(1)
				for range 100 {
					n = max(n, inside.Load())
				}
				inside.Add(-1)
				err = os.Remove(filepath.Join(dir, lockName)) // from here on the next one may come
				unlock()
				if n != 1 {
					return fmt.Errorf("%d hold the lock", n)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
}
