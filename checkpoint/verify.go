package checkpoint

import (
	"context"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint/metadata"
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

	gone int // files that were there whole once
}

// OK reports whether every byte range is there.
func (r Report) OK() bool { return len(r.Missing) == 0 && len(r.WrongSize) == 0 }

// Err is nil when the report is OK, otherwise a *[DamagedError] about u.
func (r Report) Err(u blobstore.URI) error {
	if r.OK() {
		return nil
	}
	return &DamagedError{
		URI: u.String(), Missing: r.Missing, WrongSize: r.WrongSize,
		Unclosed: r.gone == 0,
	}
}

// Verify checks that every byte range a checkpoint names exists, by the sizes
// of its files; it reads no state. What it finds is the Report; an error says
// that it could not look.
func Verify(ctx context.Context, store blobstore.Store, snap *Snapshot) (Report, error) {
	files, err := snap.files()
	if err != nil {
		return Report{}, err
	}
	return verify(ctx, store, files)
}

func verify(ctx context.Context, store blobstore.Store, files []stateFile) (Report, error) {
	var c census
	for _, f := range files {
		c.ask(f.Location)
	}
	if err := c.take(ctx, store); err != nil {
		return Report{}, err
	}
	return check(files, func(f stateFile) (int64, bool) {
		found := c.files[c.ask(f.Location)]
		return found.size, found.exists
	}), nil
}

// stateFile is one file and what the checkpoint's handles need of it.
type stateFile struct {
	URI      blobstore.URI
	Location blobstore.URI
	extent
	bytes int64 // sum of the distinct ranges named in it

	name string // that a delivery gives it; "" before
}

// extent is what the handles that name one file say of its size.
type extent struct {
	need  int64 // the file has at least this many bytes
	open  bool  // and maybe more
	known bool  // some handle said a size

	merged bool // it holds segments, maybe of several checkpoints
}

// mayBeUnclosed reports whether the file may be missing, or empty, because Flink
// writes to it still: see [DamagedError].Unclosed. On a volume it is there from
// the beginning, and what is missing in a pin was copied once.
func (f stateFile) mayBeUnclosed() bool {
	folder := f.Location.Dir()
	return f.merged && f.Location.Family() != blobstore.FamilyFile && !(folder.Base() == stateFolder && folder.Dir().Base() == lastState)
}

func (e *extent) add(offset, size int64, open bool) {
	e.open = e.open || open
	if size >= 0 {
		e.known = true
		e.need = max(e.need, offset+size)
	}
}

// fits reports whether a file of this size has every range. size -1 is a store
// that does not know.
func (e extent) fits(size int64) bool {
	return size < 0 || !e.known || size == e.need || size > e.need && e.open
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
			files = append(files, stateFile{URI: r.URI, Location: r.Location})
		}
		f := &files[i]
		f.add(r.Offset, r.Size, r.open)
		f.merged = f.merged || r.Kind == metadata.Segment
		if r.Size < 0 {
			continue
		}
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
			if !f.mayBeUnclosed() {
				r.gone++
			}
		case !f.fits(size):
			r.WrongSize = append(r.WrongSize, f.URI.String())
			if !f.mayBeUnclosed() {
				r.gone++
			}
		}
	}
	return r
}
