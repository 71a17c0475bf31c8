// Package flinkjob answers from a JobManager's REST API what
// [checkpoint.Pin] asks about a job.
//
// Packages checkpoint and flinkrest do not know each other, so that each can be
// used alone; this one joins them, for the command as for any other program:
//
//	client, err := flinkrest.New(flinkrest.Config{URL: "http://orders-jobmanager:8081"})
//	…
//	pinned, err := checkpoint.Pin(ctx, store, app, flinkjob.Job{Client: client}, checkpoint.PinOptions{})
package flinkjob

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/flinkrest"
)

// ErrCheckpointingOff: the JobManager knows the job, and no checkpoints of it.
var ErrCheckpointingOff = errors.New("checkpointing is off")

// Choice says which of a JobManager's live jobs is meant. The zero Choice is the
// only one there is.
type Choice struct {
	Name string // exactly
	ID   string // in any case
}

// Fits reports whether a job is alive and like the one that is meant.
func (c Choice) Fits(j flinkrest.Job) bool {
	return j.State.Live() && (c.Name == "" || c.Name == j.Name) && (c.ID == "" || strings.EqualFold(c.ID, j.ID))
}

// NoJobError: the JobManager has no live job like the one that is meant.
type NoJobError struct {
	URL    string // of the JobManager
	Choice Choice
	Jobs   []flinkrest.Job // those it has
}

func (e *NoJobError) Error() string {
	what := "no live job"
	switch {
	case e.Choice.Name != "":
		what = fmt.Sprintf("no live job named %q", e.Choice.Name)
	case e.Choice.ID != "":
		what = "no live job " + e.Choice.ID
	}
	return fmt.Sprintf("%s at %s%s", what, e.URL, Describe("; it has", e.Jobs))
}

// AmbiguousError: several live jobs could be meant.
type AmbiguousError struct {
	URL  string // of the JobManager
	Jobs []flinkrest.Job
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%d live jobs at %s%s", len(e.Jobs), e.URL, Describe(":", e.Jobs))
}

// Describe lists jobs in a sentence, after the words that introduce them; "" for
// none.
func Describe(intro string, jobs []flinkrest.Job) string {
	if len(jobs) == 0 {
		return ""
	}
	var names []string
	for _, j := range jobs {
		names = append(names, fmt.Sprintf("%s %q (%s)", j.ID, j.Name, j.State))
	}
	return intro + " " + strings.Join(names, ", ")
}

// Job is a job of a JobManager. It implements [checkpoint.Job], and keeps nothing
// between calls: a tick that asks again learns what is true then.
type Job struct {
	Client *flinkrest.Client
	Choice Choice

	// IncludeSavepoints makes the newest savepoint the job's latest checkpoint, if it
	// is newer than those.
	IncludeSavepoints bool
}

var _ checkpoint.Job = Job{}

// Observe implements [checkpoint.Job] with two calls, or one when the job is only
// starting, and the two more of [Job.Statistics]. Errors are [NoJobError],
// [AmbiguousError], [ErrCheckpointingOff], [checkpoint.ErrNotAddressable], and those
// of [flinkrest.Client].
func (j Job) Observe(ctx context.Context) (checkpoint.Observation, error) {
	var obs checkpoint.Observation
	job, err := j.Choose(ctx)
	if err != nil {
		return obs, err
	}
	obs.Run = checkpoint.Run{JobID: job.ID, JobName: job.Name, Started: job.Start.UnixMilli()}
	stats, starting, err := j.Statistics(ctx, job)
	if err != nil {
		return obs, err
	}
	if obs.Starting = starting; starting {
		return obs, nil
	}
	if obs.Latest, err = j.Latest(stats); err != nil {
		return obs, fmt.Errorf("job %s: %w", job.ID, err)
	}
	if from := stats.Restored; from != nil && from.ExternalPath.Addressable() {
		u, err := blobstore.Parse(string(from.ExternalPath))
		if err != nil {
			return obs, fmt.Errorf("job %s restored from: %w", job.ID, err)
		}
		obs.Restored = &checkpoint.Restored{ID: from.ID, Path: u}
	}
	return obs, nil
}

// stale is for how long a JobManager may answer about a job as it was before: 3 s
// (web.refresh-interval), and something for the way.
const stale = 5 * time.Second

// Statistics reads the statistics of a job that [Job.Choose] returned. starting is
// true while the JobManager has none that count. Those of a job that initializes are
// empty, also when it is going to restore (1.13.6, 1.15.4), or an error 500 (1.20.5,
// 2.3.0); before a JobManager that was started anew has recovered the job, they are
// an error 404. With each of these answers it goes on for 3 s, once anybody has asked
// for it, while the job list calls the job RUNNING (ExecutionGraphCache,
// AbstractCheckpointStatsHandler). All of that was measured.
//
// With 404 it also answers for a job without checkpoints, or one that has ended. Two
// more calls then tell which it is: the job list, and the job's configuration, which
// is not kept so. Errors are those of [Job.Observe].
func (j Job) Statistics(ctx context.Context, job flinkrest.Job) (stats flinkrest.Checkpoints, starting bool, err error) {
	if job.State == flinkrest.Initializing || job.State == flinkrest.Created {
		return stats, true, nil
	}
	stats, err = j.Client.Checkpoints(ctx, job.ID)
	if !errors.Is(err, flinkrest.ErrNotFound) {
		empty := stats.Counts == flinkrest.Counts{} && stats.Restored == nil
		recent := !job.Now.IsZero() && job.Now.Sub(job.Changed) < stale
		return stats, err == nil && empty && recent, err
	}
	if _, err := j.Choose(ctx); err != nil {
		return stats, false, err // it ended between the two calls
	}
	_, configErr := j.Client.CheckpointConfig(ctx, job.ID)
	if errors.Is(configErr, flinkrest.ErrNotFound) {
		return stats, false, fmt.Errorf("job %s: %w: %w", job.ID, ErrCheckpointingOff, err)
	}
	return stats, configErr == nil, configErr
}

// Choose returns the live job that is meant, with one call. Errors are
// [NoJobError], [AmbiguousError], and those of [flinkrest.Client].
func (j Job) Choose(ctx context.Context) (flinkrest.Job, error) {
	jobs, err := j.Client.Jobs(ctx)
	if err != nil {
		return flinkrest.Job{}, err
	}
	var fit []flinkrest.Job
	for _, job := range jobs {
		if j.Choice.Fits(job) {
			fit = append(fit, job)
		}
	}
	switch len(fit) {
	case 0:
		return flinkrest.Job{}, &NoJobError{j.Client.URL(), j.Choice, jobs}
	case 1:
		return fit[0], nil
	}
	return flinkrest.Job{}, &AmbiguousError{j.Client.URL(), fit}
}

// Latest picks what to pin from statistics: the newest checkpoint, or savepoint
// if those count; nil if there is none. The newest completed "checkpoint" of the
// statistics can be a savepoint.
func (j Job) Latest(stats flinkrest.Checkpoints) (*checkpoint.Latest, error) {
	var newest *flinkrest.Checkpoint
	candidates := []*flinkrest.Checkpoint{stats.LatestCompleted, stats.LatestSavepoint}
	if c := stats.LatestCompleted; c != nil && c.Savepoint { // in the place of a checkpoint
		for i := range stats.History {
			if c := &stats.History[i]; c.Status == flinkrest.CheckpointCompleted && !c.Discarded {
				candidates = append(candidates, c)
			}
		}
	}
	for _, c := range candidates {
		if c == nil || c.Savepoint && !j.IncludeSavepoints {
			continue
		}
		if newest == nil || c.ID > newest.ID {
			newest = c
		}
	}
	if newest == nil {
		return nil, nil
	}
	if !newest.ExternalPath.Addressable() {
		return nil, fmt.Errorf("checkpoint %d: %w", newest.ID, checkpoint.ErrNotAddressable)
	}
	u, err := blobstore.Parse(string(newest.ExternalPath))
	if err != nil {
		return nil, fmt.Errorf("checkpoint %d: %w", newest.ID, err)
	}
	return &checkpoint.Latest{ID: newest.ID, Path: u, Savepoint: newest.Savepoint, Triggered: newest.Triggered}, nil
}

// RestorePath implements [checkpoint.Job]. Only in application mode, where
// execution.target is "embedded" (measured on 1.13.6 to 2.3.0), does the
// cluster's configuration speak of its job.
func (j Job) RestorePath(ctx context.Context) (string, error) {
	config, err := j.Client.JobManagerConfig(ctx)
	if err != nil || config["execution.target"] != "embedded" {
		return "", err
	}
	if path := config["execution.state-recovery.path"]; path != "" {
		return path, nil
	}
	return config["execution.savepoint.path"], nil
}
