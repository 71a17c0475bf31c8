package checkpoint

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

// census asks for the sizes of many files with few requests: folder by folder,
// by a listing that goes into no folder below. Of what else lies there it keeps
// nothing, and of the files their identity only. The zero census is empty.
type census struct {
	numbers map[identity]int
	files   []counted
	folders map[identity]*folder
}

// identity is a digest of a URI that is the same for all its spellings, in a
// fifth of the space.
type identity [16]byte

func identityOf(u blobstore.URI) identity {
	sum := sha256.Sum256([]byte(u.Canonical()))
	return identity(sum[:16])
}

// counted is a file and what take found of it.
type counted struct {
	folder *folder
	exists bool
	size   int64
}

// folder is where files that a census asks for are.
type folder struct {
	dir blobstore.URI
	n   int             // files
	few []blobstore.URI // the first fewFiles of them
	err error           // why take could not look
}

// fewFiles is up to how many files of one folder are asked for one by one; from
// there on, a listing is cheaper.
const fewFiles = 4

// ask adds a file, and returns its number: files with one identity have one.
func (c *census) ask(u blobstore.URI) int {
	if c.numbers == nil {
		c.numbers, c.folders = map[identity]int{}, map[identity]*folder{}
	}
	id := identityOf(u)
	if number, ok := c.numbers[id]; ok {
		return number
	}
	dir := u.Dir()
	f := c.folders[identityOf(dir)]
	if f == nil {
		f = &folder{dir: dir}
		c.folders[identityOf(dir)] = f
	}
	if f.n++; f.n <= fewFiles {
		f.few = append(f.few, u)
	}
	c.numbers[id] = len(c.files)
	c.files = append(c.files, counted{folder: f})
	return c.numbers[id]
}

// take looks. Its error is that of one folder; it looks into the others all the
// same.
func (c *census) take(ctx context.Context, store blobstore.Store) error {
	var mu sync.Mutex // for what follows; numbers is only read
	found := func(o blobstore.Object) {
		if number, ok := c.numbers[identityOf(o.URI)]; ok {
			mu.Lock()
			c.files[number].exists, c.files[number].size = true, o.Size
			mu.Unlock()
		}
	}
	var g errgroup.Group
	g.SetLimit(inFlight)
	look := func(f *folder, how func() error) {
		g.Go(func() error {
			err := how()
			if err != nil {
				mu.Lock()
				f.err = err
				mu.Unlock()
			}
			return err
		})
	}
	for _, f := range c.folders {
		if f.n > fewFiles {
			look(f, func() error { return f.list(ctx, store, found) })
			continue
		}
		for _, u := range f.few {
			look(f, func() error { return f.stat(ctx, store, u, found) })
		}
	}
	return g.Wait()
}

func (f *folder) list(ctx context.Context, store blobstore.Store, found func(blobstore.Object)) error {
	// State files are named by UUIDs, and in a pin by digests.
	for o, err := range store.List(ctx, f.dir, blobstore.ListOptions{Shallow: true, Spread: true}) {
		if err != nil {
			return err
		}
		if !o.Dir {
			found(o)
		}
	}
	return nil
}

func (f *folder) stat(ctx context.Context, store blobstore.Store, u blobstore.URI, found func(blobstore.Object)) error {
	o, err := store.Stat(ctx, u)
	switch {
	case errors.Is(err, blobstore.ErrNotExist):
		return nil
	case err == nil && o.Size < 0: // as from behind some proxies; a listing says it
		return f.list(ctx, store, found)
	case err == nil:
		o.URI = u
		found(o)
	}
	return err
}
