package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chkpin/chkpin/blobstore"
)

// ResolveOptions change what [Resolve] accepts.
type ResolveOptions struct {
	// Strict refuses a damaged pin instead of falling back to the newest
	// generation that proves, or to what lies below Checkpoints and Savepoints.
	Strict bool

	// MaxAge refuses state whose checkpoint was triggered longer ago; 0 means
	// any age. The age of what chkpin did not pin is that of its metadata file, by
	// the store's clock.
	MaxAge time.Duration

	// Checkpoints are folders of job folders (execution.checkpointing.dir), and
	// Savepoints folders of savepoints, to look in for state of the lineage that
	// is newer than the pin. The pin is the fallback.
	Checkpoints, Savepoints []blobstore.URI

	// AnyLineage takes the newest state below Checkpoints and Savepoints whatever
	// job wrote it. Numbers of different jobs do not compare: here the newest is
	// what the store took in last.
	AnyLineage bool

	// Flink is the release that will restore. It is warned of a metadata file that
	// is too new for it; zero means that it is not known.
	Flink FlinkVersion

	// Timeout is for each application: storage that takes longer counts as not
	// reachable. 0 means to wait.
	Timeout time.Duration

	Relocations Relocations
	Now         func() time.Time // nil means time.Now
}

// Resolved is a path that restores.
type Resolved struct {
	App          blobstore.URI // of the applications that were asked for, the one it belongs to
	Path         blobstore.URI // what --fromSavepoint takes
	Generation   string        // "" when chkpin did not write what is there
	JobID        string
	CheckpointID int64
	Triggered    time.Time // zero when unknown
	Warnings     []string

	// Candidates are what was refused on the way. They are told with an error, too.
	Candidates []Candidate

	// Lineage are the runs that wrote the pinned history, and the one that
	// restored from it last, newest first.
	Lineage []Run

	metadata *Snapshot
	outside  bool // not of a pin
}

// Candidate is state that was not chosen.
type Candidate struct {
	URI blobstore.URI
	Why string

	// Preferred: it would have been chosen, had there been nothing wrong with it.
	Preferred bool
}

// Resolve proves the pin of app and says what to start from: the constant path,
// or, when that is missing or damaged, the newest generation that proves. Newer
// state of the lineage below the folders of the options comes first.
//
// [ErrNoPin] means that nothing was ever pinned, the one case in which starting
// without state is right. Where not even the folder above app exists it is not
// that but [blobstore.ErrContainer], as of a volume that nobody mounted.
// [ErrPinGone] and *[DamagedError] mean that there was state and it cannot be
// had; [ErrTooOld] that it is older than MaxAge.
func Resolve(ctx context.Context, store blobstore.Store, app blobstore.URI, opts ResolveOptions) (Resolved, error) {
	f := finder{store: store, named: LayoutOf(app), layout: LayoutOf(opts.Relocations.Apply(app)), opts: opts}
	f.result.App = app
	if opts.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, opts.Timeout)
		defer cancel()
	}
	err := f.pin(ctx)
	if opts.looksFurther() && !opts.refuses(err) {
		err = f.lookFurther(ctx, err)
	}
	if err == nil {
		err = f.check()
	}
	return f.result, err
}

// refuses reports whether an error about the pin settles that nothing is
// restored, whatever else there may be.
func (o ResolveOptions) refuses(err error) bool {
	lost := errors.Is(err, ErrPinGone) || as[*DamagedError](err)
	return err != nil && !errors.Is(err, ErrNoPin) && (!lost || o.Strict)
}

func as[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// finder looks for what one application restores from.
type finder struct {
	store  blobstore.Store
	named  Layout // as the caller spells it
	layout Layout // where it is, after relocation
	opts   ResolveOptions

	record Record // of what is published, as far as it can be read
	told   bool   // by pin.json: then it says what was rolled back
	lost   error  // why the constant path does not restore, where there is something that does
	result Resolved
}

func (f *finder) warn(format string, args ...any) {
	f.result.Warnings = append(f.result.Warnings, fmt.Sprintf(format, args...))
}

func (f *finder) refuse(preferred bool, u blobstore.URI, format string, args ...any) {
	f.result.Candidates = append(f.result.Candidates, Candidate{u, fmt.Sprintf(format, args...), preferred})
}

// pin takes what stands at the constant path.
func (f *finder) pin(ctx context.Context) error {
	_, ok, err := readJSON(ctx, f.store, f.layout.Record, &f.record)
	newer := errors.Is(err, ErrLayout)
	switch {
	case as[*DamagedError](err):
		f.record = Record{}
		f.warn("%v", err)
	case err != nil:
		return err
	}
	f.told = f.record.Generation != ""
	f.result.Lineage = f.record.lineage()
	snap, err := prove(ctx, f.store, f.layout.Metadata, f.opts.Relocations)
	if errors.Is(err, blobstore.ErrNotExist) || as[*DamagedError](err) {
		return f.fallBack(ctx, err)
	}
	if err != nil {
		return err
	}
	if digest := digestOf(snap.Bytes()); !ok || f.record.Metadata.SHA256 != digest {
		if !newer {
			f.warn("%s does not describe what is published; the next tick mends it", f.layout.Record)
		}
		found, err := findGeneration(ctx, f.store, f.layout, digest)
		if err != nil {
			return err
		}
		was := f.record
		f.record = Record{}
		if found != nil {
			f.record = found.succeeds(was)
		}
		f.result.Lineage = f.record.lineage()
	}
	f.take(f.named.Metadata, snap, f.record)
	return nil
}

// fallBack looks for a generation when the constant path does not restore.
// cause is why it does not.
func (f *finder) fallBack(ctx context.Context, cause error) error {
	damaged := as[*DamagedError](cause)
	if damaged && f.opts.Strict {
		return cause
	}
	found, snap, err := findProvable(ctx, f.store, f.layout, f.record.Generation, f.opts.Relocations, func(generation string, why error) {
		f.refuse(true, f.named.generation(generation), "%v", why)
	})
	switch {
	case err != nil:
		return err
	case found != nil && f.opts.Strict:
		return &DamagedError{URI: f.named.Metadata.String(), Missing: []string{f.named.Metadata.String()}, Err: cause}
	case found != nil:
		f.lost = cause
		f.refuse(false, f.named.Metadata, "%v", cause)
		if f.record.Generation == "" {
			f.result.Lineage = found.lineage()
		}
		f.take(f.named.generation(found.Generation).Join(MetadataName), snap, *found)
		return nil
	case damaged:
		return cause
	}
	gone, err := everPinned(ctx, f.store, f.layout, f.record)
	switch {
	case err != nil:
		return err
	case gone:
		return fmt.Errorf("%w: %s", ErrPinGone, f.named.App)
	}
	if mounts, ok := f.store.(blobstore.Mounter); ok { // what is not mounted looks empty
		if _, err := mounts.Mount(ctx, f.layout.App); errors.Is(err, blobstore.ErrContainer) {
			return err
		}
	}
	return fmt.Errorf("%w: %s", ErrNoPin, f.named.App)
}

// everPinned reports whether there was state here once.
func everPinned(ctx context.Context, store blobstore.Store, l Layout, rec Record) (bool, error) {
	if rec.Generation != "" {
		return true, nil
	}
	if _, err := store.Stat(ctx, l.Existed); !errors.Is(err, blobstore.ErrNotExist) {
		return err == nil, err
	}
	names, err := generationNames(ctx, store, l)
	return len(names) > 0, err
}

// take chooses what a generation holds.
func (f *finder) take(path blobstore.URI, s *Snapshot, rec Record) {
	r := &f.result
	r.Path, r.Generation, r.metadata = path, rec.Generation, s
	r.JobID, r.CheckpointID, r.Triggered = rec.Run.JobID, s.CheckpointID, rec.Checkpoint.Triggered
}

// lineage are the runs that a record knows to have gone on from each other,
// newest first.
func (r Record) lineage() []Run {
	if r.Generation == "" {
		return nil
	}
	var runs []Run
	if seen := r.waiting(); seen != nil {
		runs = append(runs, seen.Run)
	}
	return append(append(runs, r.Run), r.Previous...)
}

// check is about what was chosen: what Flink will make of it, and its age.
func (f *finder) check() error {
	r, opts := &f.result, f.opts
	switch {
	case f.lost != nil && r.outside:
		f.warn("the pin is no fallback any more: %v", f.lost)
	case f.lost != nil:
		f.warn("falling back to generation %s: %v", r.Generation, f.lost)
	}
	r.Warnings = append(r.Warnings, Warnings(r.metadata)...)
	if since := r.metadata.ReadableSince(); !opts.Flink.IsZero() && opts.Flink.Compare(since) < 0 {
		// CheckpointMetadata of another version: "Unrecognized checkpoint version number".
		f.warn("downgrade: %s can be read by Flink %s and later, not by %s", r.Path, since, opts.Flink)
	}
	if until := r.metadata.ReadableUntil(); !until.IsZero() && opts.Flink.Compare(until) > 0 {
		f.warn("upgrade: %s can be read by Flink %s alone, not by %s; take a savepoint", r.Path, until, opts.Flink)
	}
	if opts.MaxAge <= 0 {
		return nil
	}
	now := time.Now
	if opts.Now != nil {
		now = opts.Now
	}
	when, what := r.Triggered, "triggered"
	if when.IsZero() && r.outside {
		when, what = r.metadata.Object.ModTime, "written"
	}
	if when.IsZero() {
		return fmt.Errorf("%w, for all that is known: nobody knows when checkpoint %d was triggered", ErrTooOld, r.CheckpointID)
	}
	if now().Sub(when) > opts.MaxAge {
		return fmt.Errorf("%w: checkpoint %d was %s %s", ErrTooOld, r.CheckpointID, what, when.UTC().Format(time.RFC3339))
	}
	return nil
}
