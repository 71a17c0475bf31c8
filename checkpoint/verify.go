package checkpoint

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

// inFlight bounds the storage calls under way at once.
const inFlight = 64

// Report is what [Verify] found. Missing and WrongSize name files as the
// checkpoint does.
type Report struct {
	Files     int   // distinct files the checkpoint depends on
	Bytes     int64 // of the distinct byte ranges in them
	Missing   []string
	WrongSize []string
}

// OK reports whether every byte range is there.
func (r Report) OK() bool { return len(r.Missing) == 0 && len(r.WrongSize) == 0 }

// Err is nil when the report is OK, otherwise a *[DamagedError] about u.
func (r Report) Err(u blobstore.URI) error {
	if r.OK() {
		return nil
	}
	return &DamagedError{URI: u.String(), Missing: r.Missing, WrongSize: r.WrongSize}
}

// Verify checks that every byte range a checkpoint names exists, by the sizes
// of its files; it reads no state. What it finds is the Report; an error says
// that it could not look.
func Verify(ctx context.Context, store blobstore.Store, s *Snapshot) (Report, error) {
	files, err := s.files()
	if err != nil {
		return Report{}, err
	}
	return verify(ctx, store, files)
}

func verify(ctx context.Context, store blobstore.Store, files []stateFile) (Report, error) {
	sizes, err := sizesOf(ctx, store, files)
	if err != nil {
		return Report{}, err
	}
	return check(files, func(f stateFile) (int64, bool) {
		size, ok := sizes[f.Location.Canonical()]
		return size, ok
	}), nil
}

// stateFile is one file and what the checkpoint's handles need of it.
type stateFile struct {
	URI      blobstore.URI
	Location blobstore.URI
	need     int64 // the file has at least this many bytes
	exact    bool  // and not more
	known    bool  // some handle said a size
	bytes    int64 // sum of the distinct ranges named in it

	name string // that a delivery gives it; "" before
}

// fits reports whether a file of this size has every range. size -1 is a store
// that does not know.
func (f stateFile) fits(size int64) bool {
	return size < 0 || !f.known || size == f.need || size > f.need && !f.exact
}

// files folds the references of s to distinct files, in the order of first
// mention.
func (s *Snapshot) files() ([]stateFile, error) {
	refs, err := s.References()
	if err != nil {
		return nil, err
	}
	return foldFiles(refs), nil
}

func foldFiles(refs []Reference) []stateFile {
	type span struct {
		file         int
		offset, size int64
	}
	files := make([]stateFile, 0, len(refs))
	index := make(map[string]int, len(refs))
	seen := make(map[span]bool, len(refs))
	for _, r := range refs {
		key := r.URI.Canonical()
		i, ok := index[key]
		if !ok {
			i = len(files)
			index[key] = i
			files = append(files, stateFile{URI: r.URI, Location: r.Location, exact: true})
		}
		f := &files[i]
		f.exact = f.exact && !r.open
		if r.Size < 0 {
			continue
		}
		f.known = true
		f.need = max(f.need, r.Offset+r.Size)
		if sp := (span{i, r.Offset, r.Size}); !seen[sp] {
			seen[sp] = true
			f.bytes += r.Size
		}
	}
	return files
}

// check compares the files with what is there.
func check(files []stateFile, sizeOf func(stateFile) (int64, bool)) Report {
	var r Report
	for _, f := range files {
		r.Files++
		r.Bytes += f.bytes
		size, ok := sizeOf(f)
		switch {
		case !ok:
			r.Missing = append(r.Missing, f.URI.String())
		case !f.fits(size):
			r.WrongSize = append(r.WrongSize, f.URI.String())
		}
	}
	return r
}

// fewFiles is up to how many files of one folder are asked for one by one; from
// there on, a listing is cheaper.
const fewFiles = 4

// sizesOf looks at where the files are, folder by folder, and returns the sizes
// of those that exist by the identity of their location.
func sizesOf(ctx context.Context, store blobstore.Store, files []stateFile) (map[string]int64, error) {
	folders := map[string][]*stateFile{}
	for i := range files {
		dir := files[i].Location.Dir().Canonical()
		folders[dir] = append(folders[dir], &files[i])
	}
	wanted := make(map[string]bool, len(files))
	for _, f := range files {
		wanted[f.Location.Canonical()] = true
	}
	var mu sync.Mutex
	sizes := make(map[string]int64, len(files))
	found := func(o blobstore.Object) {
		if key := o.URI.Canonical(); wanted[key] {
			mu.Lock()
			sizes[key] = o.Size
			mu.Unlock()
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for _, group := range folders {
		if len(group) > fewFiles {
			g.Go(func() error {
				for o, err := range store.List(ctx, group[0].Location.Dir(), blobstore.ListOptions{Shallow: true}) {
					if err != nil {
						return err
					}
					if !o.Dir {
						found(o)
					}
				}
				return nil
			})
			continue
		}
		for _, f := range group {
			g.Go(func() error {
				o, err := store.Stat(ctx, f.Location)
				if errors.Is(err, blobstore.ErrNotExist) {
					return nil
				}
				if err == nil {
					found(o)
				}
				return err
			})
		}
	}
	return sizes, g.Wait()
}
