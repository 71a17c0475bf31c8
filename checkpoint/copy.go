package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint/metadata"
)

// CopyOptions change a copy. The zero value copies.
type CopyOptions struct {
	Parallel int  // files under way at once; 0 means 64
	DryRun   bool // write nothing

	// Progress is told how far the copy is, at its beginning and after each file.
	// Calls do not overlap.
	Progress func(CopyProgress)

	Relocations Relocations
	Logger      *slog.Logger // nil is silent

	// Sleep waits between tries; nil means a timer.
	Sleep func(ctx context.Context, d time.Duration) error
}

// CopyProgress is how far a copy is. Bytes are those that the checkpoint needs of
// its files; nobody knows more of them before they are read.
type CopyProgress struct {
	Files, TotalFiles int
	Bytes, TotalBytes int64
}

// Results of a copy that did not fail; or [ResultUnchanged].
const (
	ResultCopied    = "copied"
	ResultWouldCopy = "would-copy" // DryRun
)

// Copied is the outcome of [Copy], and what is known of it when Copy fails.
type Copied struct {
	Result       string
	Kind         string        // of what was copied
	Path         blobstore.URI // the metadata file to restore from, at the destination
	CheckpointID int64
	Generations  []string // of a pin, newest first
	Copied       int      // files
	Reused       int      // files that an earlier copy has brought there
	BytesCopied  int64
	Requests     int // DryRun: about how many a service is asked; one more for each part of a large file
	Warnings     []string
}

var (
	// ErrNested: of source and destination of a copy, one lies inside the other, or
	// the destination inside a pin.
	ErrNested = errors.New("source and destination must lie beside each other")

	// ErrOccupied: something else than an earlier copy of the same source stands at
	// the destination.
	ErrOccupied = errors.New("the destination holds something else")
)

// SideError says on which side of a copy something went wrong.
type SideError struct {
	Side string // source or destination
	Err  error
}

func (e *SideError) Error() string { return e.Side + ": " + e.Err.Error() }
func (e *SideError) Unwrap() error { return e.Err }

// Copy brings a checkpoint, a savepoint or a whole pin to another place, in the
// same store or in another.
//
// A checkpoint or savepoint, or what one generation of a pin holds, lands as
// destination/_metadata and destination/state/…: source is its folder or its
// metadata file. An application's folder lands as one: with its generations, its
// lineage, and last-state/_metadata last. All names in the copy are absolute. What
// it names is proved as in [Pin] before anything that restores is written.
//
// A copy that was cut short is taken up by the next: files that are there whole
// are not copied again. A copy of a pin can be repeated; it then follows its
// source. Whatever else stands at the destination is [ErrOccupied]: a copy is
// known by the origin in its last-state/pin.json, as long as no job was pinned
// there, and has to be of the same lineage still.
//
// Other errors are [ErrNested], [ErrInsideJob], *[DamagedError], [ErrPinGone], [ErrNewer] and
// [ErrCollecting] (others are at work there, and do not come to an end), and those
// of the stores. A *[SideError] says whose they are where that can be told.
func Copy(ctx context.Context, store blobstore.Store, source, destination blobstore.URI, opts CopyOptions) (Copied, error) {
	if opts.Sleep == nil {
		opts.Sleep = sleep
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	c := &copier{store: store, from: source, to: destination, opts: opts}
	err := c.run(ctx)
	if damaged := (*DamagedError)(nil); errors.Is(err, errVanished) && errors.As(err, &damaged) {
		err = damaged
	}
	return c.copied, c.sided(err)
}

// copier is the state of one Copy.
type copier struct {
	store    blobstore.Store
	from, to blobstore.URI // as named
	opts     CopyOptions

	copied Copied
}

func (c *copier) run(ctx context.Context) error {
	if err := c.checkPlaces(); err != nil {
		return err
	}
	s, err := Load(ctx, c.store, c.from, LoadOptions{c.opts.Relocations})
	if err == nil {
		return c.snapshot(ctx, s)
	}
	if !errors.Is(err, blobstore.ErrNotExist) || c.from.Base() == MetadataName {
		return err
	}
	pinned, pinErr := everPinned(ctx, c.store, LayoutOf(c.opts.Relocations.Apply(c.from)), Record{})
	switch {
	case pinErr != nil:
		return pinErr
	case !pinned:
		return err
	}
	p := &pinCopy{
		store: c.store, named: LayoutOf(c.from), from: LayoutOf(c.opts.Relocations.Apply(c.from)),
		target: LayoutOf(c.to), to: LayoutOf(c.opts.Relocations.Apply(c.to)), opts: c.opts,
	}
	c.copied, err = p.run(ctx)
	return err
}

// checkPlaces refuses what would make the copy a part of its source, of a pin, or
// of what Flink deletes.
func (c *copier) checkPlaces() error {
	from := c.from
	if from.Base() == MetadataName {
		from = from.Dir()
	}
	switch {
	case c.to.Within(from):
		return fmt.Errorf("%w: the destination %s lies inside the source %s", ErrNested, c.to, from)
	case from.Within(c.to):
		return fmt.Errorf("%w: the source %s lies inside the destination %s", ErrNested, from, c.to)
	case slices.Contains(strings.Split(c.to.Key(), "/"), LayoutOf(c.to).Root.Base()):
		return fmt.Errorf("%w: the destination %s lies inside a pin", ErrNested, c.to)
	case checkpointFolderName.MatchString(from.Base()) && jobFolderName.MatchString(from.Dir().Base()) && c.to.Within(from.Dir()):
		return fmt.Errorf("%w: %s is below %s", ErrInsideJob, c.to, from.Dir())
	}
	return nil
}

// sided adds whose error it is, by the object that it is about.
func (c *copier) sided(err error) error {
	if err == nil || errors.Is(err, ErrNested) || errors.Is(err, ErrInsideJob) || errors.Is(err, ErrOccupied) {
		return err
	}
	var about blobstore.URI
	if e := innermost(err); e != nil {
		about = e.URI
		if !e.Src.IsZero() { // made by the service: either may be meant, and it names both
			return err
		}
	}
	if damaged := (*DamagedError)(nil); errors.As(err, &damaged) {
		about, _ = blobstore.Parse(damaged.URI)
	}
	switch {
	case about.IsZero():
		return err
	case about.Within(c.to) || about.Within(c.opts.Relocations.Apply(c.to)):
		return &SideError{"destination", err}
	}
	return &SideError{"source", err}
}

// innermost is the call that failed: a copy by way of this process is a read and
// a write.
func innermost(err error) (found *blobstore.Error) {
	for e := (*blobstore.Error)(nil); errors.As(err, &e); err = e.Err {
		found = e
	}
	return found
}

// snapshot copies one checkpoint or savepoint.
func (c *copier) snapshot(ctx context.Context, s *Snapshot) error {
	c.copied.Kind, c.copied.CheckpointID = KindCheckpoint, s.CheckpointID
	if s.isSavepoint() {
		c.copied.Kind = KindSavepoint
	}
	c.copied.Path, c.copied.Warnings = c.to.Join(MetadataName), Warnings(s)
	if err := s.movable(); err != nil {
		return err
	}
	files, err := s.files()
	if err != nil {
		return err
	}
	spelled := c.to.SpelledLike(s.spelling())
	moved := func() ([]byte, error) {
		return s.moved(spelled.Join(stateFolder), spelled.Join("merged"), stateName)
	}
	data, err := moved()
	if err != nil {
		return err
	}
	digest := digestOf(data)
	data = nil // not to be kept for hours
	at := c.opts.Relocations.Apply(c.to)
	there, err := c.lookAt(ctx, at, digest)
	if err != nil {
		return err
	}
	report, err := verify(ctx, c.store, files) // rather now than after hours
	if err != nil {
		return err
	}
	if err := report.Err(s.URI); err != nil {
		return err
	}
	d := &delivery{
		store: c.store, state: at.Join(stateFolder), source: s.URI, parallel: c.opts.Parallel,
		nameOf: func(f stateFile) string { return stateName(f.URI) },
	}
	l, err := d.inspect(ctx, files)
	if err != nil {
		return err
	}
	l.report(&c.copied)
	if c.opts.DryRun {
		c.copied.Result = ResultWouldCopy
		c.copied.Requests = 5 + l.requests() // metadata and folder of the source, both sides of the destination, publishing
		return nil
	}
	if err := l.bring(ctx, &c.copied, c.opts.Progress); err != nil {
		return err
	}
	if data, err = moved(); err != nil {
		return err
	}
	if err := checkMoved(c.copied.Path, data, d.state, l.names, c.opts.Relocations); err != nil {
		return err
	}
	c.copied.Result = ResultCopied
	if there && c.copied.Copied == 0 {
		c.copied.Result = ResultUnchanged
	}
	if there {
		return nil
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	_, err = putBytes(ctx, c.store, at.Join(MetadataName), data, blobstore.PutOptions{IfAbsent: true})
	if errors.Is(err, blobstore.ErrPrecondition) { // another copy, or this one, its answer lost
		there, err = c.lookAt(ctx, at, digest)
		if err == nil && !there {
			err = errOvertaken
		}
	}
	return err
}

// lookAt reports whether the copy with this digest stands at the destination.
// What else may stand there is ErrOccupied.
func (c *copier) lookAt(ctx context.Context, at blobstore.URI, digest string) (bool, error) {
	there, _, err := blobstore.ReadAll(ctx, c.store, at.Join(MetadataName), maxMetadata)
	switch {
	case errors.Is(err, blobstore.ErrNotExist):
	case err != nil:
		return false, err
	case digestOf(there) != digest:
		return false, fmt.Errorf("%w: %s is not a copy of %s", ErrOccupied, c.to.Join(MetadataName), c.from)
	default:
		return true, nil
	}
	pinned, err := everPinned(ctx, c.store, LayoutOf(at), Record{})
	if err == nil && pinned {
		err = fmt.Errorf("%w: %s is the folder of an application's pin", ErrOccupied, c.to)
	}
	return false, err
}

// spelling is a name that the checkpoint uses: what a copy in the same container
// is spelled like.
func (s *Snapshot) spelling() blobstore.URI {
	for h := range s.Handles() {
		if h.Kind != metadata.AbsoluteFile && h.Kind != metadata.Segment {
			continue
		}
		if u, err := s.resolve(h); err == nil {
			return u
		}
	}
	return s.URI
}

// cargo is what a delivery still has to bring.
type cargo struct {
	*delivery
	files   []stateFile
	names   map[string]bool // of all files
	copies  []*stateFile
	bytes   int64
	claimed map[string]bool // those that stand there
}

// inspect compares files with what stands in the folder. A file that is there whole
// is not copied again: the name says whose bytes it has.
func (d *delivery) inspect(ctx context.Context, files []stateFile) (*cargo, error) {
	l := &cargo{delivery: d, files: files, names: map[string]bool{}, claimed: map[string]bool{}}
	if len(files) == 0 {
		return l, nil
	}
	there, err := d.list(ctx)
	if err != nil {
		return nil, err
	}
	for i := range files {
		f := &files[i]
		name := d.name(f)
		l.names[name] = true
		if o, ok := there[name]; ok && f.fits(o.Size) {
			l.claimed[name] = true
			continue
		}
		l.copies = append(l.copies, f)
		l.bytes += f.need
	}
	return l, nil
}

func (l *cargo) report(c *Copied) {
	c.Copied, c.Reused, c.BytesCopied = len(l.copies), len(l.claimed), l.bytes
}

// requests is about how many it takes: a copy is one where the service makes it,
// otherwise a read and a write.
func (l *cargo) requests() (n int) {
	const page = 1000
	n = 2 * (1 + len(l.files)/page) // before and after
	for _, f := range l.copies {
		n++
		if f.Location.Family() != l.state.Family() {
			n++
		}
	}
	return n
}

// bring copies what is missing and proves all. When that fails it says how far it
// came.
func (l *cargo) bring(ctx context.Context, copied *Copied, tell func(CopyProgress)) error {
	p := CopyProgress{TotalFiles: len(l.copies), TotalBytes: l.bytes}
	if tell != nil {
		tell(p)
	}
	var mu sync.Mutex
	l.arrived = func(f stateFile) {
		mu.Lock()
		defer mu.Unlock()
		p.Files, p.Bytes = p.Files+1, p.Bytes+f.need
		if tell != nil {
			tell(p)
		}
	}
	_, _, err := l.deliver(ctx, l.files, l.copies, l.claimed)
	if err != nil {
		copied.Copied, copied.BytesCopied = p.Files, p.Bytes
	}
	return err
}
