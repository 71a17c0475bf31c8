package flinkrest

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"time"
)

// State is a job's state, spelled as Flink does (JobStatus, 1.13 to 2.3).
type State string

// The states of Flink 1.13 to 2.3.
const (
	Initializing State = "INITIALIZING"
	Created      State = "CREATED"
	Running      State = "RUNNING"
	Failing      State = "FAILING"
	Failed       State = "FAILED"
	Cancelling   State = "CANCELLING"
	Canceled     State = "CANCELED"
	Finished     State = "FINISHED"
	Restarting   State = "RESTARTING"
	Suspended    State = "SUSPENDED"
	Reconciling  State = "RECONCILING"
)

// Live says that the job goes on or may go on. Dead are only FINISHED, CANCELED and FAILED, the globally terminal
// states (JobStatus.isGloballyTerminalState), after which nothing recovers the job. FAILING and CANCELLING are
// still on their way there; SUSPENDED waits for another JobManager to take over. A state that this package does
// not know counts as live: overlooking a job is worse than asking which one is meant.
func (s State) Live() bool {
	return s != Finished && s != Canceled && s != Failed
}

// Job is one line of the job list. A job keeps its ID through failovers, but Start is stamped anew when a new
// JobManager takes it over (Dispatcher, JobDetails, 2.2).
type Job struct {
	ID    string // 32 hexadecimal digits
	Name  string
	State State
	Start time.Time
	End   time.Time // zero until the job is dead

	// Changed is when its state, or that of one of its tasks, last changed; only the job list tells.
	Changed time.Time

	// Now is what the JobManager's clock showed when it answered (JobDetails, JobDetailsHandler), zero when it did not
	// say, as of a dead job in the list.
	Now time.Time
}

// JobDetails is what the JobManager tells about one job alone.
type JobDetails struct {
	Job

	// Type is STREAMING or BATCH. Flink 1.20 and later; empty before.
	Type string

	// Entered is when the job last entered each state; a state it never was in is absent.
	Entered map[State]time.Time
}

type jobAnswer struct {
	ID         string          `json:"jid"`
	Name       string          `json:"name"`
	State      State           `json:"state"`
	Start      int64           `json:"start-time"`
	End        int64           `json:"end-time"`
	Duration   int64           `json:"duration"` // up to now, or to the end
	Changed    int64           `json:"last-modification"`
	Type       string          `json:"job-type"`
	Now        int64           `json:"now"`
	Timestamps map[State]int64 `json:"timestamps"`
}

func (a jobAnswer) job() Job {
	if a.Now == 0 && a.Duration > 0 && a.End <= 0 {
		a.Now = a.Start + a.Duration
	}
	return Job{ID: a.ID, Name: a.Name, State: a.State, Start: instant(a.Start), End: instant(a.End), Changed: instant(a.Changed), Now: instant(a.Now)}
}

// Jobs lists all jobs that the JobManager remembers, dead ones too (GET /jobs/overview), in its own order.
func (c *Client) Jobs(ctx context.Context) ([]Job, error) {
	const path = "jobs/overview"
	var answer struct {
		Jobs []jobAnswer `json:"jobs"`
	}
	if err := c.get(ctx, path, &answer); err != nil {
		return nil, err
	}
	if answer.Jobs == nil {
		return nil, c.lacks(path, "jobs")
	}
	jobs := make([]Job, 0, len(answer.Jobs))
	for _, job := range answer.Jobs {
		if !isJobID(job.ID) {
			return nil, c.lacks(path, "valid jid")
		}
		jobs = append(jobs, job.job())
	}
	return jobs, nil
}

// Job describes one job (GET /jobs/:jobid).
func (c *Client) Job(ctx context.Context, id string) (JobDetails, error) {
	var answer jobAnswer
	if err := c.getJob(ctx, id, "", &answer); err != nil {
		return JobDetails{}, err
	}
	if !isJobID(answer.ID) {
		return JobDetails{}, c.lacks("jobs/"+id, "valid jid")
	}
	details := JobDetails{Job: answer.job(), Type: answer.Type, Entered: map[State]time.Time{}}
	for state, millis := range answer.Timestamps {
		if millis > 0 {
			details.Entered[state] = instant(millis)
		}
	}
	return details, nil
}

// getJob is get for paths below /jobs/:jobid, the only ones at which 404 is a fact about the job: elsewhere, and
// when the text is not Flink's, 404 means that the URL is not a JobManager's.
func (c *Client) getJob(ctx context.Context, id, below string, answer any) error {
	return c.callJob(ctx, http.MethodGet, id, below, nil, answer)
}

func (c *Client) callJob(ctx context.Context, method, id, below string, body, answer any) error {
	if !isJobID(id) {
		return configError("job id %q is not 32 hexadecimal digits", id)
	}
	err := c.call(ctx, method, "jobs/"+id+below, body, answer)
	if status, ok := errors.AsType[*StatusError](err); ok {
		status.notFound = status.Code == http.StatusNotFound && len(status.Messages) > 0
	}
	return err
}

func isJobID(id string) bool {
	_, err := hex.DecodeString(id)
	return err == nil && len(id) == 32
}

// instant is a point in Flink's time: milliseconds since 1970, or 0 or -1 for never.
func instant(millis int64) time.Time {
	if millis <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(millis).UTC()
}
