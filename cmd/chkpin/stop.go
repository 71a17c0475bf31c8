package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/flinkjob"
	"github.com/chkpin/chkpin/flinkrest"
)

type stopCommand struct {
	App        appURI `arg:"" placeholder:"URI" env:"CHKPIN_APP" help:"The application's folder."`
	jobManager `group:"Reaching the JobManager:"`
	jobChoice
	tickFlags

	savepointFlags
	AcceptLineage bool `env:"CHKPIN_ACCEPT_LINEAGE" help:"Pin a run that does not descend from what is pinned."`
}

// savepointFlags say how a job is stopped with a savepoint.
type savepointFlags struct {
	Target      blobstore.URI `placeholder:"URI" env:"CHKPIN_SAVEPOINTS" help:"Folder for the savepoint; by default the cluster's own."`
	Format      string        `enum:"canonical,native" default:"canonical" env:"CHKPIN_SAVEPOINT_FORMAT" help:"canonical, which every state backend reads, or native, which is faster. Since Flink 1.15."`
	Drain       bool          `env:"CHKPIN_DRAIN" help:"Let the job finish its work as for good: its windows fire."`
	StopTimeout time.Duration `default:"10m" env:"CHKPIN_STOP_TIMEOUT" help:"For the savepoint; after it the command fails, though Flink goes on."`
}

const (
	// savepointInterval is how often the JobManager is asked how far it is.
	savepointInterval = 500 * time.Millisecond

	// savepointSilence is how often in a row it may fail to answer that, each time with
	// all retries of a call: half a minute when it is gone, a minute when it hangs. It
	// keeps the answer for 5 minutes (rest.async.store-duration), also in application
	// mode, but not over its own end.
	savepointSilence = 4
)

// savepointError: the job did not stop with a savepoint.
type savepointError struct {
	jobID string
	cause string
}

func (e *savepointError) Error() string {
	return fmt.Sprintf("the savepoint of job %s failed: %s", e.jobID, e.cause)
}

// Hint implements the interface of hintOf. A savepoint that fails in a task fails
// the job over, which ends it where its restart strategy allows no restart
// (measured on 2.3.0).
func (e *savepointError) Hint() string {
	return "the pin was left alone. The job runs on, unless its tasks failed to write: then Flink restarts it from its last checkpoint, or ends it where it may not; its JobManager's log says more"
}

// Run stops the job with a savepoint and pins that savepoint. The result is
// printed whatever comes out, as by pin.
func (c *stopCommand) Run(ctx context.Context, env *environment) error {
	p, err := c.stopAndPin(ctx, env)
	env.alarm(p)
	if err != nil {
		p.Result = verdictOf(ctx, err).result
	}
	result := resultOf(p)
	late := behind(ctx, p.Replicas)
	return errors.Join(both(err, late), env.print(result, func(w io.Writer) { result.describe(w, err) }))
}

// stopAndPin asks the JobManager all there is to ask before the job stops: in
// application mode it ends with its job.
func (c *stopCommand) stopAndPin(ctx context.Context, env *environment) (checkpoint.Pinned, error) {
	var p checkpoint.Pinned
	client, err := c.client(env)
	if err != nil {
		return p, err
	}
	job := flinkjob.Job{Client: client, Choice: c.choice()}
	stopped, err := job.LastSeen(ctx)
	if err != nil {
		return p, err
	}
	p.JobID = stopped.Seen.Run.JobID
	job.Choice = flinkjob.Choice{ID: p.JobID} // this one from now on
	opts := c.tickFlags.options(env)
	opts.AcceptLineage = c.AcceptLineage
	if p, err = rehearse(ctx, env, c.App.URI, job, opts); err != nil {
		return p, err
	}
	env.note("stopping job %s with a savepoint", p.JobID)
	location, err := c.savepointFlags.stop(ctx, client, p.JobID)
	if err != nil {
		return p, err
	}
	env.note("stopped; the savepoint is %s", location)
	savepoint, err := loadSavepoint(ctx, env, location)
	if err != nil {
		return p, startFrom(location, err)
	}
	stopped.EndedIn(savepoint, time.Now())
	p, err = checkpoint.Pin(ctx, env.store, c.App.URI, stopped, opts)
	if err != nil {
		return p, startFrom(location, err)
	}
	return p, nil
}

func loadSavepoint(ctx context.Context, env *environment, location string) (*checkpoint.Snapshot, error) {
	u, err := blobstore.Parse(location)
	if err != nil {
		return nil, err
	}
	return checkpoint.Load(ctx, env.store, u, checkpoint.LoadOptions{Relocations: env.relocations})
}

// startFrom adds to what went wrong after the job had stopped where its state
// is.
func startFrom(savepoint string, err error) error {
	return &hintedError{err, "the job is stopped; start it from the savepoint " + savepoint + " if the pin is older"}
}

// rehearse finds out, before the job is stopped, whether its savepoint would be
// pinned: a held run is not stopped.
func rehearse(ctx context.Context, env *environment, app blobstore.URI, job checkpoint.Job, opts checkpoint.PinOptions) (checkpoint.Pinned, error) {
	opts.DryRun = true
	p, err := checkpoint.Pin(ctx, env.store, app, job, opts)
	p.Copied, p.Reused, p.BytesCopied, p.Warnings = 0, 0, 0, nil // which it only would have
	if errors.Is(err, checkpoint.ErrNoCheckpoint) || as[*checkpoint.DamagedError](err) {
		return p, nil // the savepoint will be what this checkpoint is not
	}
	return p, err
}

// note tells people how far a long command is. stdout is for its result.
func (e *environment) note(format string, args ...any) {
	if !e.json {
		fmt.Fprintf(e.stderr, format+"\n", args...)
	}
}

// stop returns where the savepoint is once the job has stopped.
func (f savepointFlags) stop(ctx context.Context, client *flinkrest.Client, jobID string) (string, error) {
	limited, cancel := context.WithTimeout(ctx, f.StopTimeout)
	defer cancel()
	trigger, err := client.Stop(limited, jobID, flinkrest.StopOptions{
		TargetDirectory: f.Target.String(),
		Drain:           f.Drain,
		Format:          flinkrest.SavepointFormat(strings.ToUpper(f.Format)),
	})
	if call, ok := errors.AsType[*flinkrest.CallError](err); ok && call.Method == http.MethodPost && !as[*flinkrest.StatusError](err) && !isGone(err) {
		return "", unsettled(jobID, err) // it may have been heard
	}
	if err != nil {
		return "", err
	}
	ticker := time.NewTicker(savepointInterval)
	defer ticker.Stop()
	for failures := 0; ; {
		savepoint, err := client.Savepoint(limited, jobID, trigger)
		failures++
		if err == nil {
			failures = 0
		}
		switch {
		case limited.Err() != nil && ctx.Err() == nil:
			return "", unsettled(jobID, &savepointError{jobID, fmt.Sprintf("not complete after %s", f.StopTimeout)})
		case err != nil && (failures == savepointSilence || !mayRecover(err)):
			return "", unsettled(jobID, err)
		case savepoint.Done && savepoint.Location == "":
			return "", &savepointError{jobID, cmp.Or(savepoint.Failure, "Flink does not say why")}
		case savepoint.Done:
			return savepoint.Location, nil
		}
		select {
		case <-ticker.C:
		case <-limited.Done():
		}
	}
}

// unsettled adds to what went wrong before the outcome was known what that may
// be.
func unsettled(jobID string, err error) error {
	return &hintedError{err, fmt.Sprintf("Flink goes on and may stop the job; then start it from its savepoint, named savepoint-%.6s-…", jobID)}
}
