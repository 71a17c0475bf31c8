package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/flinkjob"
	"github.com/chkpin/chkpin/flinkrest"
)

// tickFlags change every tick, that of pin as those of watch and stop.
type tickFlags struct {
	Keep     int           `default:"3" env:"CHKPIN_KEEP" help:"Generations to keep, at least 2."`
	Timeout  time.Duration `default:"5m" env:"CHKPIN_TIMEOUT" help:"Nothing is published later than this."`
	MaxBytes byteSize      `default:"0" placeholder:"SIZE" env:"CHKPIN_MAX_BYTES" help:"Refuse to copy more at once, such as 50GB; 0 is no limit."`

	Replica     []appURI `placeholder:"URI" env:"CHKPIN_REPLICA" help:"Another folder as <app> is one, to keep a copy of the pin in, after the tick and in half of its --timeout. Repeatable."`
	ReplicaKeep int      `default:"3" env:"CHKPIN_REPLICA_KEEP" help:"Generations to keep in each replica, at least 2."`
}

var errTimeout = errors.New("--timeout must be more than 0s")

// Validate refuses what would otherwise silently mean something else.
func (f tickFlags) Validate() error {
	switch {
	case f.Timeout <= 0:
		return errTimeout
	case f.Keep < checkpoint.MinKeep:
		return errKeep
	case f.ReplicaKeep < checkpoint.MinKeep:
		return fmt.Errorf("--replica-keep must be at least %d", checkpoint.MinKeep)
	}
	return nil
}

func (f tickFlags) options(env *environment) checkpoint.PinOptions {
	return checkpoint.PinOptions{
		Keep:        f.Keep,
		Timeout:     f.Timeout,
		MaxBytes:    int64(f.MaxBytes),
		Replicas:    f.replicas(""),
		ReplicaKeep: f.ReplicaKeep,
		Relocations: env.relocations,
		Logger:      env.log,
	}
}

// replicas are the folders for the copies of a pin: with --all those of a job.
func (f tickFlags) replicas(job string) (apps []blobstore.URI) {
	for _, app := range f.Replica {
		apps = append(apps, app.Join(job))
	}
	return apps
}

// sourceFlags say which checkpoints of the job count.
type sourceFlags struct {
	IncludeSavepoints bool          `env:"CHKPIN_INCLUDE_SAVEPOINTS" help:"Pin a savepoint too, when it is the newest."`
	Checkpoints       blobstore.URI `placeholder:"URI" env:"CHKPIN_CHECKPOINTS" help:"Folder of the jobs' checkpoint folders, to look in when the JobManager was restarted and remembers only that it restored one of them."`
	MinInterval       time.Duration `default:"0s" env:"CHKPIN_MIN_INTERVAL" help:"Between two pinned checkpoints of one run."`
}

// apply adds the flags to the options of a tick. The folder of checkpoints is the
// cluster's own unless a flag says another.
func (f sourceFlags) apply(opts *checkpoint.PinOptions, env *environment) {
	opts.Checkpoints, opts.MinInterval = f.Checkpoints, f.MinInterval
	if u, err := blobstore.Parse(env.flinkConf.Checkpoints()); err == nil && f.Checkpoints.IsZero() {
		opts.Checkpoints = u
	}
}

type pinCommand struct {
	App        appURI `arg:"" optional:"" placeholder:"URI" env:"CHKPIN_APP" help:"The application's folder."`
	jobManager `group:"Reaching the JobManager:"`
	jobChoice
	sourceFlags
	tickFlags
	fleetFlags `group:"Pinning many applications:"`

	All           bool     `xor:"job" env:"CHKPIN_ALL" help:"Pin every live job of a session cluster, each to <app>/<job name>."`
	AcceptLineage bool     `env:"CHKPIN_ACCEPT_LINEAGE" help:"Pin a run that does not descend from what is pinned."`
	DryRun        bool     `env:"CHKPIN_DRY_RUN" help:"Say what would be copied and write nothing."`
	Tolerate      []string `enum:"no-job,no-checkpoint,jobmanager-down" placeholder:"WHAT" env:"CHKPIN_TOLERATE" help:"Everyday absences that exit 0 with a warning: no-job, no-checkpoint, jobmanager-down."`
}

// pinResult is the JSON of pin, documented in docs/json.md.
type pinResult struct {
	Result       string   `json:"result"`
	Generation   string   `json:"generation"`
	JobID        string   `json:"jobId"`
	CheckpointID int64    `json:"checkpointId"`
	Source       string   `json:"source"`
	Copied       int      `json:"copied"`
	Reused       int      `json:"reused"`
	BytesCopied  int64    `json:"bytesCopied"`
	Restorable   bool     `json:"restorable"`
	Warnings     []string `json:"warnings"`
	RestoredFrom string   `json:"restoredFrom"`
	RestoredID   int64    `json:"restoredId"`
	StartedEmpty bool     `json:"startedEmpty"`
	JobName      string   `json:"jobName,omitempty"` // with --all
	Target       string   `json:"target,omitempty"`  // with --targets

	Replicas []replicaResult `json:"replicas,omitempty"` // with --replica
}

func resultOf(p checkpoint.Pinned) pinResult {
	return pinResult{
		Result: p.Result, Generation: p.Generation, JobID: p.JobID, CheckpointID: p.CheckpointID, Source: p.Source,
		Copied: p.Copied, Reused: p.Reused, BytesCopied: p.BytesCopied, Restorable: p.Restorable, Warnings: p.Warnings,
		RestoredFrom: p.RestoredFrom, RestoredID: p.RestoredID, StartedEmpty: p.StartedEmpty,
		Replicas: replicaResults(p.Replicas),
	}
}

// alarm tells of what needs a person now. What held the run says the error; it
// is not one where there is no checkpoint yet, or --tolerate covers it.
func (e *environment) alarm(p checkpoint.Pinned) {
	if p.StartedEmpty {
		e.log.Error("the job started empty although state is pinned: was it deployed without what chkpin resolve prints?",
			"job", p.JobID, "pinned", p.Generation)
	}
}

// Run pins once. The result is printed whatever comes out, so that a reader of
// the JSON need not parse the error.
func (c *pinCommand) Run(ctx context.Context, env *environment) error {
	if err := c.checkTargets(); err != nil {
		return err
	}
	keepHeapSmall()
	if c.Targets != "" {
		return c.pinTargets(ctx, env)
	}
	return c.pin(ctx, env, env.printPinned)
}

// tell is told what became of each job, with the error unless it is tolerated,
// and returns that and its own.
type tell func(pinResult, error) error

// pin pins what one JobManager has.
func (c *pinCommand) pin(ctx context.Context, env *environment, tell tell) error {
	client, err := c.client(env)
	if err != nil {
		return c.summary(ctx, env, tell, checkpoint.Pinned{}, err)
	}
	defer client.Close()
	if c.All {
		return c.pinAll(ctx, env, client, tell)
	}
	job := flinkjob.Job{Client: client, Choice: c.choice(), IncludeSavepoints: c.IncludeSavepoints}
	p, err := checkpoint.Pin(ctx, env.store, c.App.URI, job, c.options(env))
	return c.summary(ctx, env, tell, p, err)
}

// keepHeapSmall trades time for memory: most of what a tick with many files
// allocates is the SDK's, and garbage at once. Earlier, it would cost the start.
func keepHeapSmall() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

func (c *pinCommand) options(env *environment) checkpoint.PinOptions {
	opts := c.tickFlags.options(env)
	opts.AcceptLineage, opts.DryRun = c.AcceptLineage, c.DryRun
	c.sourceFlags.apply(&opts, env)
	return opts
}

// explain adds the way out where it depends on what was looked at.
func (c *pinCommand) explain(p checkpoint.Pinned, err error) error {
	switch {
	case errors.Is(err, checkpoint.ErrNoCheckpoint) && !c.Checkpoints.IsZero():
		return &hintedError{err, fmt.Sprintf("wait for the job's next one; --checkpoints counts only if the JobManager restored one of %s", c.Checkpoints.Join(p.JobID))}
	case isDamageOf(err, p.Source) && !as[*checkpoint.VanishedError](err) && !unclosed(err):
		return &hintedError{err, "the pin was left alone; chkpin verify " + p.Source + " shows what is wrong"}
	}
	return err
}

// isDamageOf reports whether an error is about a checkpoint itself, not about the
// pin.
func isDamageOf(err error, source string) bool {
	damaged, ok := errors.AsType[*checkpoint.DamagedError](err)
	return ok && source != "" && strings.HasPrefix(damaged.URI, source)
}

// tolerates reports whether --tolerate covers an error.
func (c *pinCommand) tolerates(err error) bool {
	for what, covers := range map[string]bool{
		"no-job":          as[*flinkjob.NoJobError](err),
		"no-checkpoint":   errors.Is(err, checkpoint.ErrNoCheckpoint),
		"jobmanager-down": errors.Is(err, flinkrest.ErrUnavailable),
	} {
		if covers && slices.Contains(c.Tolerate, what) {
			return true
		}
	}
	return false
}

func (r pinResult) describe(w io.Writer, err error) {
	switch {
	case r.Result == checkpoint.ResultPinned:
		fmt.Fprintf(w, "pinned checkpoint %d of job %s as %s: %d files copied (%s), %d reused\n",
			r.CheckpointID, r.JobID, r.Generation, r.Copied, humanize.IBytes(uint64(r.BytesCopied)), r.Reused)
	case r.Result == checkpoint.ResultWouldPin:
		fmt.Fprintf(w, "would pin checkpoint %d of job %s: %d files to copy (%s), %d to reuse\n",
			r.CheckpointID, r.JobID, r.Copied, humanize.IBytes(uint64(r.BytesCopied)), r.Reused)
	case r.Result == checkpoint.ResultUnchanged:
		fmt.Fprintf(w, "unchanged: checkpoint %d of job %s is pinned as %s\n", r.CheckpointID, r.JobID, r.Generation)
	case r.Result == checkpoint.ResultSkipped:
		fmt.Fprintf(w, "skipped: checkpoint %d of job %s came within --min-interval of %s\n", r.CheckpointID, r.JobID, r.Generation)
	case err == nil:
		fmt.Fprintln(w, "nothing pinned")
	}
	for _, replica := range r.Replicas {
		replica.describe(w)
	}
	printWarnings(w, r.Warnings)
}
