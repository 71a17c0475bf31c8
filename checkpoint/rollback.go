package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/chkpin/chkpin/blobstore"
)

// RollbackOptions change a rollback. The zero value goes back by one.
type RollbackOptions struct {
	// Generation names what to publish: its full name (00000042-chk-1337), its
	// number (42) or its checkpoint (chk-1337). "" is the one that was published
	// before the one that is now, or what a rollback that was killed was about to
	// publish.
	Generation string

	// Reason is told to everybody whom the hold keeps from publishing.
	Reason string

	// DryRun chooses and proves, and writes nothing.
	DryRun bool

	// Timeout is how long it may take: nothing is published later. 0 means 5
	// minutes.
	Timeout time.Duration

	Relocations Relocations
	Logger      *slog.Logger // nil is silent

	// Sleep waits between tries; nil means a timer.
	Sleep func(ctx context.Context, d time.Duration) error
}

// Results of a rollback that did not fail, besides [ResultUnchanged].
const (
	ResultRolledBack    = "rolled-back"
	ResultWouldRollBack = "would-roll-back" // DryRun
	ResultReleased      = "released"
	ResultWouldRelease  = "would-release" // DryRun
)

// RolledBack is the outcome of [Rollback], and what is known of it when it
// fails.
type RolledBack struct {
	Result     string
	Generation string // the one that was chosen
	From       string // the one that was published; "" when chkpin had not written what stood there
	Run        Run    // whose checkpoint that generation holds
	Published  CheckpointRecord
	Files      int // of the generation, proved now
	Bytes      int64
	OnHold     bool // hold.json says so: ticks publish nothing, whatever became of the rest
	Warnings   []string
}

var (
	// ErrNoGeneration: there is no generation to go back to, or none of that
	// name.
	ErrNoGeneration = errors.New("no such generation")

	// ErrSeveralGenerations: a number or checkpoint fits several generations.
	ErrSeveralGenerations = errors.New("several generations could be meant")
)

// Rollback publishes an earlier generation of the pin of app and puts the pin on
// hold: no tick publishes anything until a run restored that generation from
// the pin, or [Release]. So the job that went wrong may go on running.
//
//   - nil with [ResultRolledBack], [ResultWouldRollBack], or [ResultUnchanged]
//     when that generation is published and on hold already.
//   - [ErrNoGeneration], [ErrSeveralGenerations]: the generations are named.
//   - *[DamagedError]: the generation does not prove; nothing was changed.
//   - [ErrNewer]: others published meanwhile, again and again.
//   - [ErrDeadline]: the time was over before it was published.
//   - [ErrNoPin], [ErrPinGone], errors of the store.
//
// The hold is written first and last-state/_metadata after it, on the condition
// that it is still what was read. Killed in between, Rollback leaves the pin as
// it was, and on hold; run again, it finishes what it began.
//
// On a store whose tags are digests of the content, as S3's are, one race is
// open: a tick that read the pin when this very generation was published last,
// and has been at work since, takes that for unchanged and publishes. It needs
// a second chkpin, and is over when that tick is: after [PinOptions].Timeout.
func Rollback(ctx context.Context, store blobstore.Store, app blobstore.URI, opts RollbackOptions) (RolledBack, error) {
	ctx, cancel := opts.limit(ctx)
	defer cancel()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Sleep == nil {
		opts.Sleep = sleep
	}
	r := rollback{
		tick:   tick{store: store, named: LayoutOf(app), layout: LayoutOf(opts.Relocations.Apply(app)), opts: PinOptions{DryRun: opts.DryRun, Relocations: opts.Relocations}},
		wanted: opts.Generation,
		reason: opts.Reason,
	}
	for try := 1; ; try++ {
		err := r.once(ctx)
		r.out.Warnings = r.tick.pinned.Warnings
		if !errors.Is(err, errOvertaken) && !errors.Is(err, ErrCollecting) || try == tries {
			return r.out, inTime(ctx, ErrDeadline, err)
		}
		opts.Logger.Info("starting again", "generation", r.wanted, "try", try, "reason", err)
		if err := opts.Sleep(ctx, time.Duration(try)*time.Second); err != nil {
			return r.out, err
		}
	}
}

func (o RollbackOptions) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, cmp.Or(o.Timeout, defaultTimeout), ErrDeadline)
}

// rollback is the state of one Rollback. It reads and mends what is published as
// a tick does.
type rollback struct {
	tick   tick
	wanted string // the generation; once chosen, its full name
	reason string
	out    RolledBack
}

func (r *rollback) once(ctx context.Context) error {
	store, layout := r.tick.store, r.tick.layout
	r.tick.pinned.Warnings = nil
	cur, err := r.tick.readPublished(ctx)
	if err != nil {
		return err
	}
	hold, holdFile, err := standingHold(ctx, store, layout)
	if err != nil {
		return err
	}
	all, err := readManifests(ctx, store, layout)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return r.nothingThere(ctx, cur)
	}
	target, err := r.choose(cur, hold, all)
	if err != nil {
		return err
	}
	r.wanted = target.Generation
	r.out = RolledBack{Generation: target.Generation, Run: target.Run, Published: target.Checkpoint, OnHold: hold != nil}
	if cur.whole() {
		r.out.From = cur.record.Generation
	}
	snap, err := r.prove(ctx, target)
	if err != nil {
		return err
	}
	stands := cur.whole() && cur.record.Metadata.SHA256 == target.Metadata.SHA256
	if stands && hold != nil && hold.Generation == target.Generation {
		r.out.Result = ResultUnchanged
		return nil
	}
	if r.tick.opts.DryRun {
		r.out.Result = ResultWouldRollBack
		return nil
	}
	holdNow, err := putHold(ctx, store, layout, r.newHold(cur.record, hold, target), holdFile)
	if err != nil {
		return err
	}
	r.out.OnHold = true
	if !stands {
		if err := r.proveHeld(ctx, snap, holdNow); err != nil {
			return err
		}
	}
	// Also where it stands: a tick that is at work has looked for holds before.
	obj, err := putBytes(ctx, store, layout.Metadata, snap.Bytes(), unchanged(cur.object))
	if errors.Is(err, blobstore.ErrPrecondition) {
		obj, err = r.tick.lostRace(ctx, target)
	}
	if err != nil {
		return err
	}
	if !stands {
		cur.record = target.succeeds(cur.record)
	}
	cur.record.Metadata.Tag = obj.Tag
	if err := r.tick.putRecord(ctx, &cur); err != nil {
		r.tick.warn("published, but not described: %v; the next tick mends it", err)
	}
	r.out.Result = ResultRolledBack
	return nil
}

func (r *rollback) nothingThere(ctx context.Context, cur published) error {
	gone, err := everPinned(ctx, r.tick.store, r.tick.layout, cur.record)
	switch {
	case err != nil:
		return err
	case cur.whole():
		return fmt.Errorf("%w: none is left below %s, though what is published is there", ErrNoGeneration, r.tick.named.Generations)
	case gone:
		return fmt.Errorf("%w: %s", ErrPinGone, r.tick.named.App)
	}
	return fmt.Errorf("%w: %s", ErrNoPin, r.tick.named.App)
}

// choose finds the generation that is meant.
func (r *rollback) choose(cur published, hold *Hold, all []Record) (Record, error) {
	if r.wanted != "" {
		return findWanted(r.wanted, all)
	}
	switch {
	case hold != nil && hold.Generation != "" && hold.Generation != cur.record.Generation:
		return findWanted(hold.Generation, all) // a rollback was killed after it had written this
	case cur.foreign != nil && cur.record.Generation != "":
		return findWanted(cur.record.Generation, all) // back to ours
	}
	way := history(cur.record.Generation, all)
	if len(way) < 2 {
		return Record{}, fmt.Errorf("%w: nothing was published before %s; there is %s", ErrNoGeneration, cur.record.Generation, names(all))
	}
	return way[1], nil
}

// findWanted finds a generation by its name, number or checkpoint.
func findWanted(wanted string, all []Record) (Record, error) {
	var fit []Record
	for _, g := range all {
		number := fmt.Sprint(sequenceOf(g.Generation))
		if wanted == g.Generation {
			return g, nil
		}
		if strings.TrimLeft(wanted, "0") == number || wanted == fmt.Sprintf("chk-%d", g.Checkpoint.ID) {
			fit = append(fit, g)
		}
	}
	switch len(fit) {
	case 0:
		return Record{}, fmt.Errorf("%w: %q; there is %s", ErrNoGeneration, wanted, names(all))
	case 1:
		return fit[0], nil
	}
	return Record{}, fmt.Errorf("%w by %q: %s", ErrSeveralGenerations, wanted, names(fit))
}

func names(generations []Record) string {
	var all []string
	for _, g := range generations {
		all = append(all, fmt.Sprintf("%s of job %s", g.Generation, g.Run.JobID))
	}
	return strings.Join(all, ", ")
}

// prove returns the metadata of a generation of which every byte range is there.
func (r *rollback) prove(ctx context.Context, target Record) (*Snapshot, error) {
	u := r.tick.layout.generation(target.Generation).Join(MetadataName)
	snap, err := loadAt(ctx, r.tick.store, u, r.tick.opts.Relocations)
	if errors.Is(err, blobstore.ErrNotExist) {
		return nil, &DamagedError{URI: u.String(), Missing: []string{u.String()}, Err: err}
	}
	if err != nil {
		return nil, err
	}
	if digestOf(snap.Bytes()) != target.Metadata.SHA256 {
		return nil, &DamagedError{URI: u.String(), Err: errors.New("it is not what was written there")}
	}
	report, err := Verify(ctx, r.tick.store, snap)
	if err != nil {
		return nil, err
	}
	r.out.Files, r.out.Bytes = report.Files, report.Bytes
	return snap, report.Err(snap.URI)
}

// proveHeld proves the generation once more, now that it is on hold: a
// collection that looked for holds before may be deleting it. Then it has
// announced itself, or is over, as collecting.go tells.
func (r *rollback) proveHeld(ctx context.Context, snap *Snapshot, hold blobstore.Object) error {
	files, err := snap.files()
	if err != nil || len(files) == 0 {
		return err
	}
	d := &delivery{store: r.tick.store, state: r.tick.layout.State}
	listed, err := d.list(ctx)
	if err != nil {
		return err
	}
	now := hold.ModTime // by which a collection that was killed is known as such
	if now.IsZero() {   // the service did not say
		now = youngest(listed)
	}
	names := map[string]bool{}
	for _, f := range files {
		names[f.Location.Base()] = true
	}
	threatened, err := d.threatened(ctx, listed, names, now)
	if err != nil {
		return err
	}
	if threatened {
		return ErrCollecting
	}
	return check(files, func(f stateFile) (int64, bool) {
		o, ok := listed[f.Location.Base()]
		return o.Size, ok
	}).Err(snap.URI)
}

// newHold holds target. Whoever was seen until now, or by the hold that stands,
// does not end it.
func (r *rollback) newHold(cur Record, standing *Hold, target Record) Hold {
	h := Hold{Generation: target.Generation, CheckpointID: target.Checkpoint.ID, Reason: r.reason}
	known := slices.Concat([]Run{cur.Run}, cur.Previous, cur.Held)
	if cur.Seen != nil {
		known = append(known, cur.Seen.Run)
	}
	if standing != nil {
		known = append(known, standing.Known...)
		if h.Reason == "" && standing.Generation == target.Generation {
			h.Reason = standing.Reason
		}
	}
	for _, run := range known {
		if run.JobID != "" && !slices.ContainsFunc(h.Known, run.is) {
			h.Known = append(h.Known, run)
		}
	}
	if h.Reason == "" && r.out.From != "" && r.out.From != target.Generation {
		h.Reason = "it was rolled back from " + r.out.From
	}
	return h
}

// Release ends the hold of the pin of app, whoever began it, and returns it; nil
// when there was none. What is published stays as it is, and stays what a start
// restores. If the run whose checkpoint that is has not ended, the next tick
// publishes its newest checkpoint again. After [RollbackOptions].Timeout it is
// [ErrDeadline], and the hold stands.
func Release(ctx context.Context, store blobstore.Store, app blobstore.URI, opts RollbackOptions) (*Hold, error) {
	ctx, cancel := opts.limit(ctx)
	defer cancel()
	hold, err := release(ctx, store, app, opts)
	return hold, inTime(ctx, ErrDeadline, err)
}

func release(ctx context.Context, store blobstore.Store, app blobstore.URI, opts RollbackOptions) (*Hold, error) {
	layout := LayoutOf(opts.Relocations.Apply(app))
	hold, _, err := standingHold(ctx, store, layout)
	if err != nil {
		return nil, err
	}
	if hold == nil {
		_, err := store.Stat(ctx, layout.Metadata)
		if errors.Is(err, blobstore.ErrNotExist) {
			r := rollback{tick: tick{store: store, named: LayoutOf(app), layout: layout}}
			return nil, r.nothingThere(ctx, published{})
		}
		return nil, err
	}
	if opts.DryRun {
		return hold, nil
	}
	return hold, store.Delete(ctx, layout.Hold)
}
