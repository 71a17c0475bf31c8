package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

// namedByPin returns the names of the state files that the published metadata
// names, which nobody deletes while it is published.
func (t *tick) namedByPin(ctx context.Context, cur published, files []stateFile) (map[string]bool, error) {
	named := map[string]bool{}
	if len(files) == 0 || !cur.whole() {
		return named, nil
	}
	s, err := load(ctx, t.store, t.named.Metadata, t.opts.Relocations)
	if errors.Is(err, blobstore.ErrNotExist) {
		return nil, errOvertaken
	}
	if err != nil {
		return nil, err
	}
	if s.Object.Tag != cur.object.Tag {
		return nil, errOvertaken
	}
	pinned, err := s.files()
	for _, f := range pinned {
		if name, ok := f.Location.Rel(t.layout.State); ok {
			named[name] = true
		}
	}
	return named, err
}

// plan decides what to copy: every file that the published metadata does not
// name. What else stands in the folder may be about to be collected, or be half
// of something, and is copied over.
func (t *tick) plan(files []stateFile, named map[string]bool) ([]*stateFile, error) {
	var copies []*stateFile
	var total int64
	for i := range files {
		if f := &files[i]; !named[stateName(f.URI)] {
			copies = append(copies, f)
			total += f.need
		}
	}
	t.pinned.Copied, t.pinned.BytesCopied = len(copies), total
	t.pinned.Reused = len(files) - len(copies)
	if t.opts.MaxBytes > 0 && total > t.opts.MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes to copy, %d allowed", ErrTooLarge, total, t.opts.MaxBytes)
	}
	return copies, nil
}

// transfer copies, and proves by one listing that every file the checkpoint
// names is in the pin, at its size: what was copied and what is reused. No copy
// is taken at its word, because a collection of garbage may have deleted what
// stood there before. A file to reuse that is not there whole (it was damaged,
// or is a merged file that has grown) is copied after all.
func (t *tick) transfer(ctx context.Context, files []stateFile, copies []*stateFile) (Report, error) {
	if len(files) == 0 {
		return Report{}, nil
	}
	copied := map[string]bool{}
	for {
		if err := t.copyAll(ctx, copies); err != nil {
			return Report{}, err
		}
		for _, f := range copies {
			copied[stateName(f.URI)] = true
		}
		listed, err := t.listState(ctx)
		if err != nil {
			return Report{}, err
		}
		threatened, err := t.threatened(ctx, listed, copied)
		if err != nil {
			return Report{}, err
		}
		if threatened {
			return Report{}, ErrCollecting
		}
		copies = nil
		for i := range files {
			f := &files[i]
			name := stateName(f.URI)
			if o, ok := listed[name]; !copied[name] && !(ok && f.fits(o.Size)) {
				copies = append(copies, f)
				t.pinned.Copied, t.pinned.Reused, t.pinned.BytesCopied = t.pinned.Copied+1, t.pinned.Reused-1, t.pinned.BytesCopied+f.need
			}
		}
		if len(copies) == 0 {
			return t.prove(files, listed)
		}
	}
}

func (t *tick) prove(files []stateFile, listed map[string]blobstore.Object) (Report, error) {
	report := check(files, func(f stateFile) (int64, bool) {
		o, ok := listed[stateName(f.URI)]
		return o.Size, ok
	})
	err := report.Err(t.obs.Latest.Path.Join(MetadataName))
	if len(report.Missing) > 0 {
		err = fmt.Errorf("%w: %w", errTaken, err)
	}
	return report, err
}

func (t *tick) copyAll(ctx context.Context, copies []*stateFile) error {
	var mu sync.Mutex
	var missing []string
	g, gctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(inFlight, len(copies)) { // goroutines that stay, since an SDK's calls grow large stacks
		g.Go(func() error {
			for i := next.Add(1) - 1; i < int64(len(copies)); i = next.Add(1) - 1 {
				if err := context.Cause(gctx); err != nil {
					return err
				}
				f := copies[i]
				_, err := t.store.Copy(gctx, t.layout.State.Join(stateName(f.URI)), f.Location)
				switch {
				case errors.Is(err, blobstore.ErrNotExist):
					mu.Lock()
					missing = append(missing, f.URI.String())
					mu.Unlock()
				case err != nil:
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("%w: %w", errVanished, &DamagedError{URI: t.pinned.Source + "/" + MetadataName, Missing: missing})
	}
	return nil
}

// listState lists the state files, and the announcements of collections, by
// name.
func (t *tick) listState(ctx context.Context) (map[string]blobstore.Object, error) {
	files := map[string]blobstore.Object{}
	for o, err := range t.store.List(ctx, t.layout.State, blobstore.ListOptions{Shallow: true, Spread: true}) {
		if err != nil {
			return nil, err
		}
		if !o.Dir {
			files[o.URI.Base()] = o
		}
	}
	return files, nil
}
