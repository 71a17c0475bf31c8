package checkpoint

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

// fileID is the identity of a file in a fifth of the space of its name.
type fileID [16]byte

func idOf(u blobstore.URI) fileID {
	sum := sha256.Sum256([]byte(u.Canonical()))
	return fileID(sum[:16])
}

// census asks for the sizes of many files with few requests: folder by folder,
// by a listing that goes into no folder below. Of what else lies there it keeps
// nothing. The zero census is empty.
type census struct {
	folders map[fileID]*folder
	sizes   map[fileID]int64 // absent: not there
}

// folder is where files that a census asks for are.
type folder struct {
	dir blobstore.URI
	few []blobstore.URI // the files, unless they are more than fewFiles
	ids map[fileID]bool
	err error // why take could not look
}

// fewFiles is up to how many files of one folder are asked for one by one; from
// there on, a listing is cheaper.
const fewFiles = 4

// ask adds a file, and returns its identity and its folder.
func (c *census) ask(u blobstore.URI) (fileID, *folder) {
	id, dir := idOf(u), u.Dir()
	if c.folders == nil {
		c.folders = map[fileID]*folder{}
	}
	f := c.folders[idOf(dir)]
	if f == nil {
		f = &folder{dir: dir, ids: map[fileID]bool{}}
		c.folders[idOf(dir)] = f
	}
	if !f.ids[id] {
		f.ids[id] = true
		if len(f.ids) <= fewFiles {
			f.few = append(f.few, u)
		}
	}
	return id, f
}

// asked is how many files there are.
func (c *census) asked() (n int) {
	for _, f := range c.folders {
		n += len(f.ids)
	}
	return n
}

// take looks. Its error is that of one folder; it looks into the others all the
// same.
func (c *census) take(ctx context.Context, store blobstore.Store) error {
	c.sizes = map[fileID]int64{}
	var mu sync.Mutex
	found := func(f *folder, o blobstore.Object) {
		if id := idOf(o.URI); f.ids[id] {
			mu.Lock()
			c.sizes[id] = o.Size
			mu.Unlock()
		}
	}
	var g errgroup.Group
	g.SetLimit(inFlight)
	look := func(f *folder, err error) error {
		if err != nil {
			mu.Lock()
			f.err = err
			mu.Unlock()
		}
		return err
	}
	for _, f := range c.folders {
		if len(f.ids) > fewFiles {
			g.Go(func() error { return look(f, f.list(ctx, store, found)) })
			continue
		}
		for _, u := range f.few {
			g.Go(func() error { return look(f, f.stat(ctx, store, u, found)) })
		}
	}
	return g.Wait()
}

func (f *folder) list(ctx context.Context, store blobstore.Store, found func(*folder, blobstore.Object)) error {
	// State files are named by UUIDs, and in a pin by digests.
	for o, err := range store.List(ctx, f.dir, blobstore.ListOptions{Shallow: true, Spread: true}) {
		if err != nil {
			return err
		}
		if !o.Dir {
			found(f, o)
		}
	}
	return nil
}

func (f *folder) stat(ctx context.Context, store blobstore.Store, u blobstore.URI, found func(*folder, blobstore.Object)) error {
	o, err := store.Stat(ctx, u)
	switch {
	case errors.Is(err, blobstore.ErrNotExist):
		return nil
	case err == nil:
		found(f, o)
	}
	return err
}

// sizeOf is what take found; false for a file that is not there.
func (c *census) sizeOf(id fileID) (int64, bool) {
	size, ok := c.sizes[id]
	return size, ok
}
