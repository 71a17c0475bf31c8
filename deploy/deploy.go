// Package deploy decides for each job of a set what to start it from, and
// carries that out: it compares manifests with those that were stored when the
// jobs were started last, as flink-sql-runner does.
//
// [Decide] is the decision alone. A [Deployer] finds out what it depends on,
// stops jobs with savepoints, and has them started.
package deploy

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
)

// JobManager is what a deploy needs of a cluster.
type JobManager interface {
	// Jobs lists all jobs that it remembers, dead ones too.
	Jobs(ctx context.Context) ([]Job, error)

	// Stop stops a job with a savepoint in a folder, and returns the savepoint.
	Stop(ctx context.Context, jobID string, folder blobstore.URI) (savepoint string, err error)
}

// Start is a job to be started.
type Start struct {
	Manifest Manifest            // with the folders of its version
	Restore  checkpoint.Resolved // what from; its Path is zero for no state
}

// Deployer deploys jobs. Store, JobManager and Manifests must be set, and Start
// for [Deployer.Deploy].
type Deployer struct {
	Store      blobstore.Store
	JobManager JobManager
	Manifests  blobstore.URI // folder of the stored ones, <name>.yaml

	// Start starts a job and returns when that was asked for. It is waited for until
	// the job is RUNNING, both no longer than StartTimeout (0 means to wait).
	Start        func(ctx context.Context, s Start) error
	StartTimeout time.Duration

	// A job counts as started when it was seen RUNNING Looks times in a row, with
	// an Interval between them; 0 means 5 times and a second.
	Looks    int
	Interval time.Duration

	// Beat is how often a deploy shows others that it is at work; one that was not
	// for 3 beats has ended. 0 means 10 s.
	Beat time.Duration

	Flink       checkpoint.FlinkVersion // the release that will restore; zero when unknown
	Relocations checkpoint.Relocations

	Now   func() time.Time                 // nil means time.Now
	NewID func() string                    // makes query-ids: UUIDs
	Note  func(format string, args ...any) // tells people how far a deploy is; may be nil
}

// Outcome is what was decided about a job, and done.
type Outcome struct {
	Decision
	Restore  blobstore.URI // what it was or would be started from; zero for none, or for a savepoint yet to be taken
	JobID    string        // of the live job
	Diff     string        // of the query, where it changed
	Warnings []string
}

// endedFor is how long a deploy that has failed tries to say so.
const endedFor = 10 * time.Second

// maxManifest bounds what is read into memory.
const maxManifest = 16 << 20

// plan is an outcome with what it takes to carry it out.
type plan struct {
	Outcome
	facts  Facts
	stored []byte // as it is; nil for none
	tag    string
	claim  *claim
	seen   map[run]bool // of all jobs with the name
}

// run is one run of a job.
type run struct {
	id    string
	start int64
}

func runOf(j Job) run { return run{j.ID, j.Start.UnixMilli()} }

// Plan decides about one job and changes nothing. A job that a person has to look
// at is an error, and the decision says so, too.
func (d *Deployer) Plan(ctx context.Context, wanted Manifest) (Outcome, error) {
	p, err := d.plan(ctx, wanted, nil)
	return p.Outcome, err
}

// plan finds out all that the decision depends on. held is the plan before, when
// this deploy has its claim already.
func (d *Deployer) plan(ctx context.Context, wanted Manifest, held *plan) (*plan, error) {
	p := &plan{facts: Facts{Wanted: wanted}, seen: map[run]bool{}}
	p.Decision = Decision{Kind: Error}
	if err := d.gather(ctx, p, held); err != nil {
		p.Reason = err.Error()
		return p, err
	}
	p.Decision = Decide(p.facts)
	if p.Kind == Restore {
		p.Restore = p.facts.State.Path
	}
	if len(p.facts.Live) == 1 {
		p.JobID = p.facts.Live[0].ID
	}
	if old := p.facts.Deployed; old != nil && p.Kind != Error {
		p.Diff = QueryDiff(*old, wanted)
	}
	if p.Diff != "" && held == nil {
		d.note("%s: the query changed\n%s", wanted.Name, strings.TrimRight(p.Diff, "\n"))
	}
	if p.Kind == Clean && p.facts.Deployed == nil && p.facts.Highest > 0 {
		p.Warnings = append(p.Warnings, fmt.Sprintf("no manifest is stored, but there is state of version %d: is the folder of the manifests right?", p.facts.Highest))
	}
	p.Warnings = append(p.Warnings, p.facts.State.found.Warnings...)
	for _, passed := range p.facts.State.Passed {
		p.Warnings = append(p.Warnings, "passed over: "+passed)
	}
	return p, p.Err
}

func (d *Deployer) gather(ctx context.Context, p *plan, held *plan) error {
	f, name := &p.facts, p.facts.Wanted.Name
	jobs, err := d.JobManager.Jobs(ctx)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		if j.Name == name {
			p.seen[runOf(j)] = true
			if j.Live {
				f.Live = append(f.Live, j)
			}
		}
	}
	if f.Deployed, err = d.readStored(ctx, p); err != nil {
		return err
	}
	if held != nil {
		p.claim = held.claim
	} else if p.claim, err = d.readClaim(ctx, name); err != nil {
		return err
	}
	folders, err := foldersOf(&f.Wanted, f.Deployed)
	if err != nil {
		return err
	}
	if p.claim.about(p.stored) {
		if folders, err = d.goOn(ctx, p, folders); err != nil {
			return err
		}
	}
	if f.Highest, err = d.newestVersion(ctx, folders); err != nil {
		return err
	}
	if f.Deployed == nil || len(f.Live) > 0 || !f.Wanted.sameQuery(*f.Deployed) || !f.State.Path.IsZero() {
		return nil
	}
	f.State, err = d.newestState(ctx, folders, f.Deployed.Meta.Version)
	return err
}

func (d *Deployer) storedAt(name string) blobstore.URI { return d.Manifests.Join(name + ".yaml") }

func (d *Deployer) readStored(ctx context.Context, p *plan) (*Manifest, error) {
	at := d.storedAt(p.facts.Wanted.Name)
	data, obj, err := blobstore.ReadAll(ctx, d.Store, at, maxManifest)
	if errors.Is(err, blobstore.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p.stored, p.tag = data, obj.Tag
	return parseDeployed(at.String(), data)
}

// parseDeployed reads a stored manifest and spells its folders as Place does.
func parseDeployed(file string, data []byte) (*Manifest, error) {
	m, err := ParseStored(file, data)
	if err == nil {
		err = m.Place(blobstore.URI{})
	}
	if err != nil {
		return nil, &StoredError{err}
	}
	return &m, nil
}

// goOn learns from the claim of a deploy that did not come to its end which
// manifest the job that is live, or was last, has. It is not the stored one if
// that deploy started a job.
func (d *Deployer) goOn(ctx context.Context, p *plan, folders stateFolders) (stateFolders, error) {
	f := &p.facts
	r, _ := p.claim.last()
	if r.Deployed != "" {
		m, err := parseDeployed(p.claim.at.String(), []byte(r.Deployed))
		if err != nil {
			return folders, err
		}
		f.Unconfirmed = f.Deployed == nil || f.Deployed.Meta != m.Meta || len(f.Deployed.changes(*m)) > 0
		f.Deployed = m
	}
	if !r.Started {
		return foldersOf(&f.Wanted, f.Deployed)
	}
	started, err := parseDeployed(p.claim.at.String(), []byte(r.Wanted))
	if err != nil {
		return folders, err
	}
	before := f.Deployed
	if folders, err = foldersOf(&f.Wanted, before, started); err != nil {
		return folders, err
	}
	switch {
	case len(f.Live) > 0 && runOf(f.Live[0]) != (run{r.Live, r.Since}):
		f.Deployed, f.Unconfirmed = started, true
	case len(f.Live) == 0 && (before == nil || started.Meta.Version > before.Meta.Version):
		// Did it run and end since? Then what it computed is what goes on.
		state, err := d.newestState(ctx, folders, started.Meta.Version)
		if err != nil {
			return folders, err
		}
		if !state.Path.IsZero() {
			f.Deployed, f.State, f.Unconfirmed = started, state, true
		}
	}
	return folders, nil
}

// Deploy decides about one job and carries that out.
func (d *Deployer) Deploy(ctx context.Context, wanted Manifest) (Outcome, error) {
	p, err := d.plan(ctx, wanted, nil)
	if err != nil {
		return p.Outcome, err
	}
	if !p.Kind.Starts() && !p.facts.Unconfirmed {
		if _, tag := p.claim.last(); tag != "" && !p.claim.about(p.stored) {
			err = p.claim.drop(ctx) // killed when all was done
		}
		return p.Outcome, err
	}
	mine := p.claim
	if mine.alive() {
		d.note("%s: waiting %s, in case the deploy that has begun already is still at work", wanted.Name, 3*d.beat())
	}
	if err := mine.take(ctx, p.taken(d.newID()), 3*d.beat()); err != nil {
		return p.Outcome, err
	}
	held, release := mine.hold(ctx, d.beat())
	defer release()
	p, err = d.carryOut(held, p)
	lost := context.Cause(held)
	release()
	switch {
	case errors.Is(lost, ErrOtherDeploy):
		return p.Outcome, lost
	case err != nil:
		// Without this, the next deploy has to wait whether this one is still at work.
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endedFor)
		defer cancel()
		_ = mine.write(ending, func(r *record) { r.Ended = true })
		return p.Outcome, err
	}
	return p.Outcome, mine.drop(ctx)
}

// taken is the record of a claim that was taken and not yet acted on. What an
// earlier deploy wrote stays: the command that it started may be under way even
// now.
func (p *plan) taken(run string) record {
	if !p.claim.about(p.stored) {
		return p.record(run)
	}
	r, _ := p.claim.last()
	r.Run, r.Ended = run, false
	return r
}

// record tells the next deploy what this one is about.
func (p *plan) record(run string) record {
	r := record{Run: run, Stored: digest(p.stored), Wanted: string(p.facts.Wanted.Encode())}
	if len(p.facts.Live) == 1 {
		live := runOf(p.facts.Live[0])
		r.Live, r.Since = live.id, live.start
	}
	if p.facts.Deployed != nil {
		r.Deployed = string(p.facts.Deployed.Encode())
	}
	return r
}

// carryOut does what was planned. It looks again first: what was seen before the
// claim was had may have been changed by the deploy that had it.
func (d *Deployer) carryOut(ctx context.Context, before *plan) (*plan, error) {
	p, err := d.plan(ctx, before.facts.Wanted, before)
	if err != nil {
		return p, err
	}
	started := p.facts.Wanted
	started.Meta = d.meta(p)
	s := Start{Restore: p.facts.State.found}
	switch p.Kind {
	case Nothing:
		if !p.facts.Unconfirmed {
			return p, nil
		}
		limited, cancel := d.limit(ctx)
		defer cancel()
		return p, d.confirm(limited, p, started, func(j Job) bool { return j.ID == p.JobID })
	case Clean:
		s.Restore = checkpoint.Resolved{}
	case SavepointClean, SavepointRestore:
		state, err := d.stop(ctx, p)
		if err != nil {
			return p, err
		}
		if p.Kind == SavepointRestore {
			s.Restore, p.Restore = state.found, state.Path
		}
	}
	err = p.claim.write(ctx, func(r *record) {
		*r = p.record(r.Run)
		r.Wanted, r.Started = string(started.Encode()), true
	})
	if err != nil {
		return p, err
	}
	limited, cancel := d.limit(ctx)
	defer cancel()
	d.note("%s: starting %s", started.Name, from(p.Restore))
	s.Manifest = started.Versioned()
	if err := d.Start(limited, s); err != nil {
		return p, &StartError{p.Restore.String(), err}
	}
	return p, d.confirm(limited, p, started, func(j Job) bool { return j.Name == started.Name && !p.seen[runOf(j)] })
}

// limit is the time for a start.
func (d *Deployer) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if d.StartTimeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d.StartTimeout)
}

func from(restore blobstore.URI) string {
	if restore.IsZero() {
		return "without state"
	}
	return "from " + restore.String()
}

// meta is that of the job once the plan is carried out.
func (d *Deployer) meta(p *plan) Meta {
	if old := p.facts.Deployed; old != nil && old.Meta.Version == p.Version {
		return old.Meta
	}
	now := time.Now
	if d.Now != nil {
		now = d.Now
	}
	return Meta{QueryID: d.newID(), Version: p.Version, CreateTimestamp: now().UTC().Format(time.DateTime)}
}

func (d *Deployer) stop(ctx context.Context, p *plan) (State, error) {
	job := p.facts.Live[0]
	_, folder, err := savepointsSetting.of(p.facts.Deployed.Versioned())
	if err != nil {
		return State{}, err
	}
	d.note("%s: stopping job %s with a savepoint", job.Name, job.ID)
	location, err := d.JobManager.Stop(ctx, job.ID, folder)
	if err != nil {
		return State{}, &SavepointError{job, err}
	}
	d.note("%s: stopped, the savepoint is %s", job.Name, location)
	path, err := blobstore.Parse(location)
	if err != nil || p.Kind == SavepointClean {
		return State{}, err
	}
	state, err := d.prove(ctx, path)
	if err != nil {
		err = fmt.Errorf("job %s is stopped, but its savepoint cannot be shown to restore: %w", job.ID, err)
	}
	return state, err
}

// confirm waits until the job runs and stores its manifest.
func (d *Deployer) confirm(ctx context.Context, p *plan, started Manifest, is func(Job) bool) error {
	job, err := d.awaitRunning(ctx, is)
	if err != nil {
		return &StartError{p.Restore.String(), err}
	}
	p.JobID = job.ID
	at, data := d.storedAt(started.Name), started.Encode()
	_, err = d.Store.Put(ctx, at, bytes.NewReader(data), blobstore.PutOptions{IfAbsent: p.stored == nil, IfTag: p.tag})
	if errors.Is(err, blobstore.ErrPrecondition) {
		there, _, readErr := blobstore.ReadAll(ctx, d.Store, at, maxManifest)
		if readErr == nil && bytes.Equal(there, data) { // by this very write, its answer lost
			return nil
		}
		return fmt.Errorf("%w: %w", ErrOtherDeploy, err)
	}
	return err
}

// awaitRunning waits until the job was RUNNING for a while: one that fails to
// restore is RUNNING, too, for a moment.
func (d *Deployer) awaitRunning(ctx context.Context, is func(Job) bool) (Job, error) {
	ticker := time.NewTicker(cmp.Or(d.Interval, time.Second))
	defer ticker.Stop()
	var last Job
	var lastErr error
	for running := 0; ; {
		jobs, err := d.JobManager.Jobs(ctx)
		if err != nil && ctx.Err() == nil {
			lastErr = err // in application mode it comes up with its job
		}
		found := Job{}
		for _, j := range jobs {
			if is(j) && (j.Live || found.ID == "") {
				found, lastErr = j, nil
			}
		}
		switch {
		case found.State == "RUNNING":
			running++
		case found.State == "FINISHED":
			return found, nil
		case found.ID != "" && !found.Live:
			return found, fmt.Errorf("job %s is %s", found.ID, found.State)
		default:
			running = 0
		}
		if found.ID != "" {
			last = found
		}
		if running >= cmp.Or(d.Looks, 5) {
			return found, nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return last, notRunning(ctx, last, lastErr)
		}
	}
}

func notRunning(ctx context.Context, last Job, err error) error {
	switch cause := context.Cause(ctx); {
	case !errors.Is(cause, context.DeadlineExceeded):
		return cause
	case err != nil:
		return fmt.Errorf("not seen RUNNING in time: %w", err)
	case last.ID == "":
		return errors.New("no job of this name was seen in time")
	}
	return fmt.Errorf("not RUNNING in time: job %s was last seen %s", last.ID, last.State)
}

func (d *Deployer) beat() time.Duration { return cmp.Or(d.Beat, 10*time.Second) }

func (d *Deployer) newID() string {
	if d.NewID != nil {
		return d.NewID()
	}
	return uuid.NewString()
}

func (d *Deployer) note(format string, args ...any) {
	if d.Note != nil {
		d.Note(format, args...)
	}
}
