package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

// namedByPin returns the names of the state files that the published metadata
// names, which nobody deletes while it is published.
func (t *tick) namedByPin(ctx context.Context, cur published, files []stateFile) (map[string]bool, error) {
	if len(files) == 0 || !cur.whole() {
		return nil, nil
	}
	return namedBy(ctx, t.store, t.named.Metadata, t.layout.State, cur.object.Tag, t.opts.Relocations)
}

// namedBy returns the names that the metadata file at u names in a folder of
// state files; errOvertaken when it is not the one with this tag.
func namedBy(ctx context.Context, store blobstore.Store, u, state blobstore.URI, tag string, rs Relocations) (map[string]bool, error) {
	s, err := load(ctx, store, u, rs)
	if errors.Is(err, blobstore.ErrNotExist) || err == nil && s.Object.Tag != tag {
		return nil, errOvertaken
	}
	if err != nil {
		return nil, err
	}
	named := map[string]bool{}
	files, err := s.files()
	for _, f := range files {
		if name, ok := f.Location.Rel(state); ok {
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

// transfer copies, and proves that every file the checkpoint names is in the
// pin, at its size: what was copied and what is reused.
func (t *tick) transfer(ctx context.Context, files []stateFile, copies []*stateFile) (Report, error) {
	d := &delivery{
		store: t.store, state: t.layout.State, source: t.obs.Latest.Path.Join(MetadataName),
		nameOf: func(f stateFile) string { return stateName(f.URI) },
	}
	report, more, err := d.deliver(ctx, files, copies, nil)
	for _, f := range more {
		t.pinned.Copied, t.pinned.Reused, t.pinned.BytesCopied = t.pinned.Copied+1, t.pinned.Reused-1, t.pinned.BytesCopied+f.need
	}
	return report, err
}

// delivery brings the files of a checkpoint into a folder of state files.
type delivery struct {
	store    blobstore.Store
	state    blobstore.URI          // the folder
	source   blobstore.URI          // the metadata file that names the files, for errors
	nameOf   func(stateFile) string // in the folder
	parallel int                    // copies at once; 0 means inFlight
	arrived  func(stateFile)        // after each copy, by several goroutines at once; may be nil
}

// name is nameOf, which takes time, once for each file.
func (d *delivery) name(f *stateFile) string {
	if f.name == "" {
		f.name = d.nameOf(*f)
	}
	return f.name
}

// deliver copies, and proves by one listing that every file is in the folder, at
// its size. No copy is taken at its word, because a collection of garbage may
// have deleted what stood there before; claimed are names that are relied on like
// copies though they stood there. A file to reuse that is not there whole (it was
// damaged, or is a merged file that has grown) is copied after all; those are
// more.
func (d *delivery) deliver(ctx context.Context, files []stateFile, copies []*stateFile, claimed map[string]bool) (report Report, more []*stateFile, err error) {
	if len(files) == 0 {
		return Report{}, nil, nil
	}
	relied := maps.Clone(claimed)
	if relied == nil {
		relied = map[string]bool{}
	}
	copied := map[string]bool{}
	for {
		if err := d.copyAll(ctx, copies); err != nil {
			return Report{}, more, err
		}
		for _, f := range copies {
			copied[d.name(f)], relied[d.name(f)] = true, true
		}
		listed, err := d.list(ctx)
		if err != nil {
			return Report{}, more, err
		}
		threatened, err := d.threatened(ctx, listed, relied, clockBy(copied, listed))
		if err != nil {
			return Report{}, more, err
		}
		if threatened {
			return Report{}, more, ErrCollecting
		}
		copies = nil
		for i := range files {
			f := &files[i]
			name := d.name(f)
			if o, ok := listed[name]; !copied[name] && !(ok && f.fits(o.Size)) {
				copies = append(copies, f)
			}
		}
		if len(copies) == 0 {
			report, err = d.prove(files, listed)
			return report, more, err
		}
		more = append(more, copies...)
	}
}

func (d *delivery) prove(files []stateFile, listed map[string]blobstore.Object) (Report, error) {
	report := check(files, func(f stateFile) (int64, bool) {
		o, ok := listed[d.name(&f)]
		return o.Size, ok
	})
	report.gone += len(report.Missing) // they were copied
	err := report.Err(d.source)
	if len(report.Missing) > 0 {
		err = fmt.Errorf("%w: %w", errTaken, err)
	}
	return report, err
}

func (d *delivery) copyAll(ctx context.Context, copies []*stateFile) error {
	var mu sync.Mutex
	var missing []string
	unclosed := true
	g, gctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(cmp.Or(d.parallel, inFlight), len(copies)) { // goroutines that stay, since an SDK's calls grow large stacks
		g.Go(func() error {
			for i := next.Add(1) - 1; i < int64(len(copies)); i = next.Add(1) - 1 {
				if err := context.Cause(gctx); err != nil {
					return err
				}
				f := copies[i]
				_, err := d.store.Copy(gctx, d.state.Join(d.name(f)), f.Location)
				switch {
				case errors.Is(err, blobstore.ErrNotExist):
					mu.Lock()
					missing = append(missing, f.URI.String())
					unclosed = unclosed && f.mayBeUnclosed()
					mu.Unlock()
				case err != nil:
					return err
				case d.arrived != nil:
					d.arrived(*f)
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
		return fmt.Errorf("%w: %w", errVanished, &DamagedError{URI: d.source.String(), Missing: missing, Unclosed: unclosed})
	}
	return nil
}

// list lists the state files, and the announcements of collections, by name.
func (d *delivery) list(ctx context.Context) (map[string]blobstore.Object, error) {
	files := map[string]blobstore.Object{}
	for o, err := range d.store.List(ctx, d.state, blobstore.ListOptions{Shallow: true, Spread: true}) {
		if err != nil {
			return nil, err
		}
		if !o.Dir {
			files[o.URI.Base()] = o
		}
	}
	return files, nil
}
