package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/flinkrest"
)

// jobChoice says which of a JobManager's jobs is meant.
type jobChoice struct {
	Job   string `placeholder:"NAME" xor:"job" env:"CHKPIN_JOB" help:"The job with exactly this name, if there are several."`
	JobID string `name:"job-id" placeholder:"ID" xor:"job" env:"CHKPIN_JOB_ID" help:"The job with this id, if there are several."`
}

func (c jobChoice) fits(j flinkrest.Job) bool {
	return j.State.Live() && (c.Job == "" || c.Job == j.Name) && (c.JobID == "" || strings.EqualFold(c.JobID, j.ID))
}

// noJobError: the JobManager has no job like the one that is meant.
type noJobError struct {
	url    string
	choice jobChoice
	jobs   []flinkrest.Job // those it has
}

func (e *noJobError) Error() string {
	what := "no live job"
	switch {
	case e.choice.Job != "":
		what = fmt.Sprintf("no live job named %q", e.choice.Job)
	case e.choice.JobID != "":
		what = "no live job " + e.choice.JobID
	}
	return fmt.Sprintf("%s at %s%s", what, e.url, describeJobs("; it has", e.jobs))
}

// ambiguousError: several jobs could be meant.
type ambiguousError struct {
	url  string
	jobs []flinkrest.Job
}

func (e *ambiguousError) Error() string {
	return fmt.Sprintf("%d live jobs at %s%s", len(e.jobs), e.url, describeJobs(":", e.jobs))
}

func describeJobs(intro string, jobs []flinkrest.Job) string {
	if len(jobs) == 0 {
		return ""
	}
	var names []string
	for _, j := range jobs {
		names = append(names, fmt.Sprintf("%s %q (%s)", j.ID, j.Name, j.State))
	}
	return intro + " " + strings.Join(names, ", ")
}

var errCheckpointingOff = errors.New("checkpointing is off")

// restJob answers a tick's questions from a JobManager's REST API.
type restJob struct {
	client            *flinkrest.Client
	choice            jobChoice
	includeSavepoints bool
}

// Observe implements [checkpoint.Job] with two calls. It makes a third when the
// JobManager does not know the job or its checkpoints, which one answer does not
// tell apart.
func (r restJob) Observe(ctx context.Context) (checkpoint.Observation, error) {
	var obs checkpoint.Observation
	job, err := r.choose(ctx)
	if err != nil {
		return obs, err
	}
	obs.Run = checkpoint.Run{JobID: job.ID, JobName: job.Name, Started: job.Start.UnixMilli()}
	obs.Starting = job.State == flinkrest.Initializing || job.State == flinkrest.Created
	stats, err := r.client.Checkpoints(ctx, job.ID)
	if errors.Is(err, flinkrest.ErrNotFound) {
		if _, err := r.choose(ctx); err != nil {
			return obs, err // it ended between the two calls
		}
		return obs, fmt.Errorf("job %s: %w: %w", job.ID, errCheckpointingOff, err)
	}
	if err != nil {
		return obs, err
	}
	if obs.Latest, err = r.latest(stats); err != nil {
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

func (r restJob) choose(ctx context.Context) (flinkrest.Job, error) {
	jobs, err := r.client.Jobs(ctx)
	if err != nil {
		return flinkrest.Job{}, err
	}
	var fit []flinkrest.Job
	for _, j := range jobs {
		if r.choice.fits(j) {
			fit = append(fit, j)
		}
	}
	switch len(fit) {
	case 0:
		return flinkrest.Job{}, &noJobError{r.client.URL(), r.choice, jobs}
	case 1:
		return fit[0], nil
	}
	return flinkrest.Job{}, &ambiguousError{r.client.URL(), fit}
}

// latest picks what to pin: the newest checkpoint, or savepoint if those count.
// The newest completed "checkpoint" of the statistics can be a savepoint.
func (r restJob) latest(stats flinkrest.Checkpoints) (*checkpoint.Latest, error) {
	var newest *flinkrest.Checkpoint
	for _, c := range []*flinkrest.Checkpoint{stats.LatestCompleted, stats.LatestSavepoint} {
		if c == nil || c.Savepoint && !r.includeSavepoints {
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
func (r restJob) RestorePath(ctx context.Context) (string, error) {
	config, err := r.client.JobManagerConfig(ctx)
	if err != nil || config["execution.target"] != "embedded" {
		return "", err
	}
	if path := config["execution.state-recovery.path"]; path != "" {
		return path, nil
	}
	return config["execution.savepoint.path"], nil
}
