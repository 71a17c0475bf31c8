package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

// fileCopy is one file of the source that is to be copied into the pin.
type fileCopy struct {
	file   stateFile
	target blobstore.URI
}

// namedByPin returns the names of the state files that the published metadata
// names, which nobody deletes while it is published.
func (t *tick) namedByPin(ctx context.Context, cur published, files []stateFile) (map[string]bool, error) {
	named := map[string]bool{}
	if len(files) == 0 || !cur.whole() {
		return named, nil
	}
	s, err := Load(ctx, t.store, t.layout.Metadata, LoadOptions{t.opts.Relocations})
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
func (t *tick) plan(files []stateFile, named map[string]bool) ([]fileCopy, error) {
	var copies []fileCopy
	var total int64
	for _, f := range files {
		if name := stateName(f.URI); !named[name] {
			copies = append(copies, fileCopy{f, t.layout.State.Join(name)})
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
func (t *tick) transfer(ctx context.Context, files []stateFile, copies []fileCopy) (Report, error) {
	if len(files) == 0 {
		return Report{}, nil
	}
	copied := map[string]bool{}
	for {
		if err := t.copyAll(ctx, copies); err != nil {
			return Report{}, err
		}
		for _, c := range copies {
			copied[c.target.Base()] = true
		}
		listed, err := t.listState(ctx)
		if err != nil {
			return Report{}, err
		}
		if threatened, err := t.threatened(ctx, listed, copied); err != nil || threatened {
			return Report{}, errors.Join(err, ErrCollecting)
		}
		copies = nil
		for _, f := range files {
			name := stateName(f.URI)
			if o, ok := listed[name]; !copied[name] && !(ok && f.fits(o.Size)) {
				copies = append(copies, fileCopy{f, t.layout.State.Join(name)})
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

func (t *tick) copyAll(ctx context.Context, copies []fileCopy) error {
	var mu sync.Mutex
	var missing []string
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for _, c := range copies {
		g.Go(func() error {
			_, err := t.store.Copy(gctx, c.target, c.file.Location)
			if errors.Is(err, blobstore.ErrNotExist) {
				mu.Lock()
				missing = append(missing, c.file.URI.String())
				mu.Unlock()
				return nil
			}
			return err
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
