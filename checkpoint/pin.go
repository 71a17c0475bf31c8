package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

// Job is what a tick asks of the JobManager. The package flinkrest knows how to
// answer; this one does not know REST.
type Job interface {
	// Observe says what the job's newest completed checkpoint is now.
	Observe(ctx context.Context) (Observation, error)

	// RestorePath is the path that the configuration of an application-mode
	// cluster starts its job from (execution.savepoint.path up to 1.19,
	// execution.state-recovery.path since 1.20), "" for none and for session
	// clusters. It is asked only when the observation does not settle where the
	// run came from.
	RestorePath(ctx context.Context) (string, error)
}

// Observation is what a JobManager says about a job at one moment.
type Observation struct {
	Run      Run // Folder may be empty
	Latest   *Latest
	Restored *Restored // nil when the run started empty, or nobody knows

	// Starting: the JobManager cannot tell yet what the run restores. Of a job that
	// initializes or waits for resources its statistics are empty, also when it is
	// going to restore (ArchivedExecutionGraph.createSparseArchivedExecutionGraph,
	// AdaptiveScheduler.getArchivedExecutionGraph; 1.20.5, 2.3.0).
	Starting bool
}

// Latest is the newest completed checkpoint, or savepoint, of a job.
type Latest struct {
	ID        int64
	Path      blobstore.URI // its folder
	Savepoint bool
	Triggered time.Time
}

// PinOptions change a tick. The zero value is a CronJob's.
type PinOptions struct {
	// AcceptLineage pins a run that does not descend from what is pinned.
	AcceptLineage bool

	Keep        int           // generations to keep; 0 means 3, fewer than 2 means 2
	Timeout     time.Duration // nothing is published later than this; 0 means 5 minutes
	MinInterval time.Duration // between the triggers of two pinned checkpoints of one run
	MaxBytes    int64         // to copy in one tick; 0 means no limit

	// Checkpoints is a folder with the job's checkpoint folders, to look in when
	// the JobManager remembers no checkpoint but that it restored one of these, as
	// after its restart with high availability. Zero means to wait for the next
	// one.
	Checkpoints blobstore.URI

	// Siblings is the folder that holds this pin among those of other jobs of one
	// session cluster, by their names. A run that restored from one of those was
	// renamed, and is held. Zero means that there are none.
	Siblings blobstore.URI

	// Replicas are folders, as app is one, that are to hold copies of what is
	// published. They are brought up to date after the tick, in half of its Timeout
	// at most; what becomes of them changes nothing else. A run that restored what
	// is published from one of them has restored from the pin.
	Replicas    []blobstore.URI
	ReplicaKeep int // as Keep, for each replica

	// DryRun writes nothing.
	DryRun bool

	Relocations Relocations
	Logger      *slog.Logger // nil is silent

	// Sleep waits between tries; nil means a timer.
	Sleep func(ctx context.Context, d time.Duration) error
}

// Results of a tick that did not fail.
const (
	ResultPinned    = "pinned"
	ResultUnchanged = "unchanged"
	ResultSkipped   = "skipped"   // newer, but within MinInterval
	ResultWouldPin  = "would-pin" // DryRun
)

// What a run started from, [Pinned.RestoredFrom].
const (
	RestoredPin       = "pin"       // this pin, a generation of it, or a replica
	RestoredLineage   = "lineage"   // a checkpoint or savepoint of a run that is pinned, or was
	RestoredOwn       = "own"       // its own checkpoint after a failure; what it started from nobody saw
	RestoredElsewhere = "elsewhere" // something that chkpin knows nothing of
	RestoredNothing   = "nothing"   // it started empty
)

// Pinned is the outcome of [Pin], and what is known of it when Pin fails.
type Pinned struct {
	Result       string
	Generation   string           // published now
	Published    CheckpointRecord // what that generation holds
	JobID        string
	CheckpointID int64  // of the job's checkpoint that was looked at
	Source       string // its folder
	Copied       int    // files
	Reused       int    // files that an earlier tick copied
	BytesCopied  int64
	Restorable   bool // last-state/_metadata exists and was proved when it was published
	Warnings     []string
	Replicas     []Replica // in the order of PinOptions.Replicas; nil when nobody looked at them

	// RestoredFrom and RestoredID say what the run started from: RestoredPin and
	// the like, "" when the job or the pin was not seen, and the checkpoint's
	// number, 0 when that is not known. What pin.json remembers counts more than
	// what the JobManager says after a failover.
	RestoredFrom string
	RestoredID   int64

	// StartedEmpty is an alarm: the run restored nothing although state is pinned,
	// as after a deployment that forgot --fromSavepoint. The run is held.
	StartedEmpty bool
}

// defaultTimeout bounds what publishes.
const defaultTimeout = 5 * time.Minute

const (
	// tries bounds how often a tick starts again because others changed what it was
	// working on.
	tries = 4

	// sourceTries bounds it when the job deleted the checkpoint. They are more, because
	// a job with short intervals that retains one checkpoint does that all day, and what
	// was copied of shared state counts in the next try. PinOptions.Timeout ends them, too.
	sourceTries = 10
)

var (
	// errVanished: the source was deleted while it was copied. The cause is a
	// *DamagedError that names the files.
	errVanished = errors.New("the checkpoint was deleted meanwhile")

	// errTaken: the copies were deleted. The cause is a *DamagedError, too.
	errTaken = errors.New("the copies were deleted meanwhile")

	// errOvertaken: the pin is not what it was at the beginning of the tick.
	errOvertaken = fmt.Errorf("%w: another chkpin published meanwhile", ErrNewer)
)

// Pin runs one tick: it makes last-state/_metadata below app restore what the
// job's newest completed checkpoint holds, or leaves it alone and says why.
//
//   - nil with ResultPinned, ResultUnchanged, ResultSkipped or ResultWouldPin.
//   - [ErrNoCheckpoint], [ErrNotAddressable]: nothing to pin.
//   - *[DamagedError]: the checkpoint could not be proved.
//   - *[VanishedError], which wraps one: Flink deleted checkpoints faster than they
//     could be copied.
//   - *[HeldError]: the run does not descend from what is pinned, or the pin is on
//     hold; see [Hold] for what ends that.
//   - [ErrNewer], [ErrTooLarge], [ErrInsideJob], [ErrNested], [ErrCollecting], [ErrDeadline].
//   - errors of the job and the store, unchanged; when ctx was cancelled, wrapped
//     with the cause.
//
// Whatever the error, and wherever the process is killed, the pin that was
// published before still restores.
func Pin(ctx context.Context, store blobstore.Store, app blobstore.URI, job Job, opts PinOptions) (Pinned, error) {
	timeout := cmp.Or(opts.Timeout, defaultTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, ErrDeadline)
	defer cancel()
	if opts.Sleep == nil {
		opts.Sleep = sleep
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	for i, r := range opts.Replicas {
		if r.Within(app) || app.Within(r) {
			return Pinned{}, fmt.Errorf("%w: the replica %s and the pin %s", ErrNested, r, app)
		}
		for _, other := range opts.Replicas[:i] {
			if r.Within(other) || other.Within(r) {
				return Pinned{}, fmt.Errorf("%w: the replica %s and the replica %s", ErrNested, r, other)
			}
		}
	}
	t := tick{store: store, named: LayoutOf(app), layout: LayoutOf(opts.Relocations.Apply(app)), job: job, opts: opts}
	err := t.run(ctx)
	// Which call notices first that the context ended is chance, and a store's says nothing of the cause.
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	t.replicate(ctx, timeout)
	return t.pinned, inTime(ctx, ErrDeadline, err)
}

// inTime adds the cause to an error when a ctx was over for that: a store's error
// says only that it was.
func inTime(ctx context.Context, cause, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), cause) && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tick is the state of one Pin.
type tick struct {
	store  blobstore.Store
	named  Layout // as Flink names the pin
	layout Layout // where it is found, after relocation
	job    Job
	opts   PinOptions

	obs     Observation
	current published // what is pinned, as far as is known
	pinned  Pinned
}

func (t *tick) warn(format string, args ...any) {
	t.pinned.Warnings = append(t.pinned.Warnings, fmt.Sprintf(format, args...))
}

// run starts the tick again when its source vanishes, for by then the job has a
// newer checkpoint, and when another chkpin changes the pin.
func (t *tick) run(ctx context.Context) error {
	disturbed := 0       // tries in which another chkpin got in the way
	gone, inARow := 0, 0 // tries from whose hands the source vanished
	for {
		t.pinned = Pinned{}
		err := t.once(ctx)
		vanished := errors.Is(err, errVanished)
		switch {
		case vanished:
			gone++
			inARow++
		case errors.Is(err, errTaken), errors.Is(err, errOvertaken), errors.Is(err, ErrCollecting):
			disturbed++
			inARow = 0
		default:
			return err
		}
		last := disturbed == tries || gone == sourceTries
		again := !last
		if again {
			t.opts.Logger.Info("starting again", "checkpoint", t.pinned.Source, "try", gone+disturbed, "reason", err)
			var waitErr error
			if vanished {
				again, waitErr = t.awaitNext(ctx)
			} else {
				waitErr = t.opts.Sleep(ctx, time.Duration(disturbed)*time.Second)
			}
			if waitErr != nil {
				return waitErr
			}
		}
		if again {
			continue
		}
		damaged := (*DamagedError)(nil)
		switch {
		case !errors.As(err, &damaged):
			return err
		case vanished && last && !damaged.Unclosed: // before that the JobManager went on naming it: then it is damage
			return &VanishedError{Times: inARow, Last: damaged}
		}
		return damaged
	}
}

const (
	// nextWithin is how long a tick waits for the JobManager to name another
	// checkpoint than one that is gone: more than its statistics are old, 3 s
	// (web.refresh-interval).
	nextWithin = 8 * time.Second

	// nextEvery is how often it asks meanwhile: a checkpoint that is named may be
	// gone a moment later.
	nextEvery = 200 * time.Millisecond
)

// awaitNext waits until the JobManager names another checkpoint than the one
// that vanished, and reports whether it does.
func (t *tick) awaitNext(ctx context.Context) (bool, error) {
	gone := t.obs.Latest
	for range nextWithin / nextEvery {
		obs, err := t.job.Observe(ctx)
		if err != nil {
			return false, err
		}
		if obs.Latest == nil || gone == nil || obs.Latest.ID != gone.ID {
			return true, nil
		}
		if err := t.opts.Sleep(ctx, nextEvery); err != nil {
			return false, err
		}
	}
	return false, nil
}

func (t *tick) once(ctx context.Context) error {
	var err error
	if t.obs, err = t.job.Observe(ctx); err != nil {
		if p, e := t.lookAtPin(ctx); e == nil && p.described() {
			t.report(p) // what goes on being there while the job cannot be seen
		}
		return err
	}
	if err := t.completeRun(ctx); err != nil {
		return err
	}
	cur, err := t.readPublished(ctx)
	if err != nil {
		return err
	}
	t.report(cur)
	if t.obs.Starting {
		return fmt.Errorf("%w of job %s, which is only starting", ErrNoCheckpoint, t.obs.Run.JobID)
	}
	t.pinned.RestoredFrom, t.pinned.RestoredID = lineage{layout: t.named, replicas: t.opts.Replicas, pinned: cur.record}.origin(t.obs.Run, t.obs.Restored)
	if t.isPinned(cur) {
		t.pinned.Result = ResultUnchanged
		return nil
	}
	v, err := t.judge(ctx, &cur)
	if err != nil {
		return err
	}
	if t.obs.Latest == nil {
		return fmt.Errorf("%w of job %s", ErrNoCheckpoint, t.obs.Run.JobID)
	}
	if !v.publish && !t.opts.AcceptLineage {
		return &HeldError{Pinned: cur.record, Run: t.obs.Run, Reason: v.reason}
	}
	if result, err := t.compare(cur); result != "" || err != nil {
		t.pinned.Result = result
		return err
	}
	source, hold, holdFile, err := t.loadSource(ctx)
	if err != nil {
		return err
	}
	if hold.keeps(t.obs.Run, v.restored) {
		return &HeldError{Pinned: cur.record, Run: t.obs.Run, Reason: hold.Explain(cur.record.Generation), Hold: hold}
	}
	if err := t.checkForeign(cur, source); err != nil {
		return err
	}
	if err := t.publish(ctx, cur, source); err != nil || t.opts.DryRun {
		return err
	}
	t.endHold(ctx, hold, holdFile)
	return nil
}

// report says what is pinned now.
func (t *tick) report(cur published) {
	t.current = cur
	t.pinned.Generation, t.pinned.Published = cur.record.Generation, cur.record.Checkpoint
	t.pinned.Restorable = cur.whole()
}

// isPinned reports whether what stands at the constant path is this run's newest
// checkpoint.
func (t *tick) isPinned(cur published) bool {
	latest := t.obs.Latest
	return latest != nil && cur.whole() && cur.record.Run.is(t.obs.Run) && cur.record.Checkpoint.ID == latest.ID
}

// judge asks the lineage, and writes down what a failover would hide.
func (t *tick) judge(ctx context.Context, cur *published) (verdict, error) {
	pinned := cur.record
	if cur.foreign != nil && pinned.Generation != "" {
		pinned.Checkpoint.ID = cur.foreign.CheckpointID // what a run that restored the constant path has
	}
	l := lineage{
		layout: t.named, siblings: t.opts.Siblings, replicas: t.opts.Replicas, pinned: pinned,
		configured: func() (string, error) { return t.job.RestorePath(ctx) },
		replicaHas: func(app blobstore.URI) (bool, error) { return t.replicaHas(ctx, app, pinned) },
	}
	v, err := l.judge(t.obs.Run, t.obs.Restored)
	if err != nil {
		return v, err
	}
	if v.configured {
		t.pinned.RestoredFrom, t.pinned.RestoredID = RestoredPin, 0
	}
	t.pinned.StartedEmpty = v.startedEmpty && !t.opts.AcceptLineage
	return v, t.remember(ctx, cur, v)
}

// compare holds a run that may publish against what is published: ErrNewer when
// that is newer, a result when there is nothing to do, else nothing.
func (t *tick) compare(cur published) (result string, err error) {
	latest, pinned := t.obs.Latest, cur.record.Checkpoint
	sameRun := cur.record.Run.is(t.obs.Run)
	switch {
	case !cur.whole() || cur.record.Generation == "":
		return "", nil
	case !sameRun && t.opts.AcceptLineage:
		return "", nil
	case latest.ID == pinned.ID && latest.Path.String() == pinned.Source:
		return ResultUnchanged, nil // its JobManager has recovered, and says another start
	case latest.ID <= pinned.ID:
		return "", fmt.Errorf("%w: checkpoint %d is pinned, the JobManager says %d", ErrNewer, pinned.ID, latest.ID)
	case !sameRun || t.opts.MinInterval == 0 || latest.Triggered.IsZero() || pinned.Triggered.IsZero():
		return "", nil
	}
	since := latest.Triggered.Sub(pinned.Triggered)
	if since >= 0 && since < t.opts.MinInterval { // else the JobManager's clock was set back
		return ResultSkipped, nil
	}
	return "", nil
}

// completeRun looks for a checkpoint where the JobManager names none, and
// derives the run's folder from its checkpoint's.
func (t *tick) completeRun(ctx context.Context) error {
	obs := &t.obs
	obs.Run.JobName = shorten(obs.Run.JobName)
	folder := t.opts.Checkpoints.Join(obs.Run.JobID)
	if obs.Latest == nil && !t.opts.Checkpoints.IsZero() && obs.Restored != nil && obs.Restored.Path.Within(folder) {
		latest, err := Newest(ctx, t.store, folder, obs.Restored.ID, LoadOptions{t.opts.Relocations})
		if err != nil && !errors.Is(err, ErrNoCheckpoint) {
			return err
		}
		obs.Latest = latest
	}
	t.pinned.JobID = obs.Run.JobID
	if obs.Latest != nil {
		t.pinned.CheckpointID = obs.Latest.ID
		t.pinned.Source = obs.Latest.Path.String()
	}
	if obs.Run.Folder == "" {
		obs.Run.Folder = folderOf(*obs)
	}
	for _, app := range append([]blobstore.URI{t.named.App}, t.opts.Replicas...) {
		if obs.Run.Folder != "" && within(app, obs.Run.Folder) {
			return fmt.Errorf("%w: %s is below %s", ErrInsideJob, app, obs.Run.Folder)
		}
	}
	return nil
}

// folderOf is the folder that the run's checkpoints lie in: that of its newest,
// or of the one it restored after a failure.
func folderOf(obs Observation) string {
	if obs.Latest != nil && !obs.Latest.Savepoint {
		return obs.Latest.Path.Dir().String()
	}
	if obs.Restored != nil {
		if dir := obs.Restored.Path.Dir(); dir.Base() == obs.Run.JobID {
			return dir.String()
		}
	}
	return ""
}

// maxJobName bounds what a record holds of a job's name, which SQL makes as long
// as a statement.
const maxJobName = 80

func shorten(name string) string {
	if r := []rune(name); len(r) > maxJobName {
		return string(r[:maxJobName]) + "…"
	}
	return name
}

// remember writes down, at the first sight of a run, where it came from: a
// failover hides that it restored from the pin, or that it started empty.
func (t *tick) remember(ctx context.Context, cur *published, v verdict) error {
	rec, run := cur.record, t.obs.Run
	if t.opts.DryRun || rec.Generation == "" {
		return nil
	}
	known := true
	if v.restored != nil && (rec.Seen == nil || !rec.Seen.covers(run)) {
		rec.Seen, known = &Seen{Run: run, RestoredID: *v.restored}, false
		t.opts.Logger.Info("a run restored from the pin", "job", run.JobID, "checkpoint", *v.restored, "pinned", rec.Checkpoint.ID)
	}
	refused := !v.publish && !v.replaced && !t.opts.AcceptLineage
	if refused && !slices.ContainsFunc(rec.Held, func(h Run) bool { return h.covers(run) }) {
		run.StartedEmpty = v.startedEmpty
		rec, known = rec.withHeld(run), false
	}
	if known {
		return nil
	}
	cur.record = rec
	return t.putRecord(ctx, cur)
}

// loadSource reads the source's metadata and whether the pin is on hold.
func (t *tick) loadSource(ctx context.Context) (source *Snapshot, hold *Hold, holdFile *blobstore.Object, err error) {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		source, err = Load(ctx, t.store, t.obs.Latest.Path, LoadOptions{t.opts.Relocations})
		if errors.Is(err, blobstore.ErrNotExist) {
			path := t.obs.Latest.Path.Join(MetadataName).String()
			return fmt.Errorf("%w: %w", errVanished, &DamagedError{URI: path, Missing: []string{path}, Err: err})
		}
		return err
	})
	g.Go(func() (err error) {
		hold, holdFile, err = standingHold(ctx, t.store, t.layout)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, nil, nil, err
	}
	if source.CheckpointID != t.obs.Latest.ID {
		return nil, nil, nil, &DamagedError{URI: source.URI.String(), Err: fmt.Errorf("it is checkpoint %d, the JobManager says %d", source.CheckpointID, t.obs.Latest.ID)}
	}
	return source, hold, holdFile, nil
}

// checkForeign guards a metadata file at the constant path that no chkpin wrote,
// such as a copy made by a script: it gives way to the run that restored from
// it, and to a run that has come as far.
func (t *tick) checkForeign(cur published, source *Snapshot) error {
	if cur.foreign == nil {
		return nil
	}
	restored := t.obs.Restored
	if restored != nil && t.named.holds(restored.Path) || cur.foreign.CheckpointID <= source.CheckpointID || t.opts.AcceptLineage {
		t.warn("replacing %s, checkpoint %d, which chkpin did not write", t.named.Metadata, cur.foreign.CheckpointID)
		return nil
	}
	return &HeldError{Pinned: cur.record, Run: t.obs.Run, Reason: fmt.Sprintf("%s holds checkpoint %d, which chkpin did not write and this run has not reached", t.named.Metadata, cur.foreign.CheckpointID)}
}
