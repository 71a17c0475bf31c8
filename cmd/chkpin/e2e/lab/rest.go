package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"
)

// RunningJob is a job of a cluster as its JobManager describes it.
type RunningJob struct {
	ID    string `json:"jid"`
	Name  string `json:"name"`
	State string `json:"state"`
	Tasks struct {
		Total    int `json:"total"`
		Running  int `json:"running"`
		Finished int `json:"finished"`
	} `json:"tasks"`
}

// Checkpoint is a completed checkpoint.
type Checkpoint struct {
	ID   int64  `json:"id"`
	Path string `json:"external_path"` // URI of its folder, as Flink spells it: file:/…
}

// Jobs asks the JobManager for all jobs that it remembers, ended ones too.
func (c *Cluster) Jobs(ctx context.Context) ([]RunningJob, error) {
	var overview struct {
		Jobs []RunningJob `json:"jobs"`
	}
	err := c.call(ctx, http.MethodGet, "/jobs/overview", &overview)
	return overview.Jobs, err
}

// Job asks the JobManager for its only job; in a session cluster, for the only one that has not ended.
func (c *Cluster) Job(ctx context.Context) (RunningJob, error) {
	jobs, err := c.Jobs(ctx)
	if err != nil {
		return RunningJob{}, err
	}
	if c.session {
		jobs = slices.DeleteFunc(jobs, func(j RunningJob) bool {
			return j.State == "FINISHED" || j.State == "CANCELED" || j.State == "FAILED"
		})
	}
	if len(jobs) != 1 {
		return RunningJob{}, fmt.Errorf("lab: the JobManager at %s has %d jobs, want 1", c.URL, len(jobs))
	}
	return jobs[0], nil
}

// WaitRunning waits until every task of the job runs, which they do once their state is restored, or has finished
// while others run. If the cluster ends instead, the error is an *EndedError.
func (c *Cluster) WaitRunning(ctx context.Context) (RunningJob, error) {
	var job RunningJob
	err := c.poll(ctx, "the job to run", func() (done bool, err error) {
		job, err = c.Job(ctx)
		return job.State == "RUNNING" && job.Tasks.Running > 0 && job.Tasks.Running+job.Tasks.Finished == job.Tasks.Total, err
	})
	return job, err
}

// WaitCheckpoints waits until n more checkpoints are complete than were when it was called, and returns the
// latest. If the cluster ends instead, the error is an *EndedError.
//
// The JobManager answers from a cache for 3 seconds (web.refresh-interval, measured with Flink 2.3.0). With a
// shorter checkpoint interval it therefore announces several checkpoints at once.
func (c *Cluster) WaitCheckpoints(ctx context.Context, n int) (Checkpoint, error) {
	before, known := 0, false
	var latest Checkpoint
	err := c.poll(ctx, fmt.Sprintf("%d more checkpoints", n), func() (bool, error) {
		completed, checkpoint, err := c.checkpoints(ctx)
		if err == nil && !known {
			before, known = completed, true
		}
		latest = checkpoint
		return completed >= before+n, err
	})
	return latest, err
}

// WaitLines waits until the logs hold n more lines with text than when it was called. If the cluster ends instead, the
// error is an *EndedError.
func (c *Cluster) WaitLines(ctx context.Context, text string, n int) error {
	before, err := c.Lines(text)
	if err != nil {
		return err
	}
	return c.poll(ctx, fmt.Sprintf("%d more log lines with %q", n, text), func() (bool, error) {
		lines, err := c.Lines(text)
		return len(lines) >= len(before)+n, err
	})
}

// Restored asks the JobManager which checkpoint or savepoint the job was restored from: nil if it began without state.
// It is known once the job has completed a checkpoint.
func (c *Cluster) Restored(ctx context.Context) (*Checkpoint, error) {
	statistics, err := c.statistics(ctx)
	return statistics.Latest.Restored, err
}

// statistics are the JobManager's on the checkpoints of a job.
type statistics struct {
	Counts struct {
		Completed int `json:"completed"`
	} `json:"counts"`
	Latest struct {
		Completed *Checkpoint `json:"completed"`
		Restored  *Checkpoint `json:"restored"`
	} `json:"latest"`
}

func (c *Cluster) statistics(ctx context.Context) (answer statistics, err error) {
	job, err := c.Job(ctx)
	if err != nil {
		return answer, err
	}
	for range 3 { // it answers 500 now and then when two clients ask at once, see flinkrest
		if err = c.call(ctx, http.MethodGet, "/jobs/"+job.ID+"/checkpoints", &answer); err == nil {
			break
		}
	}
	return answer, err
}

func (c *Cluster) checkpoints(ctx context.Context) (completed int, latest Checkpoint, err error) {
	statistics, err := c.statistics(ctx)
	if err != nil {
		return 0, Checkpoint{}, err
	}
	if statistics.Latest.Completed != nil {
		latest = *statistics.Latest.Completed
	}
	return statistics.Counts.Completed, latest, nil
}

// Savepoint makes the job write a savepoint into a folder, and returns where it is. The format is "CANONICAL" or "NATIVE",
// or empty for releases before 1.15, which know one.
func (c *Cluster) Savepoint(ctx context.Context, folder, format string) (location string, err error) {
	job, err := c.Job(ctx)
	if err != nil {
		return "", err
	}
	request := map[string]string{"target-directory": folder}
	if format != "" {
		request["formatType"] = format
	}
	body, err := json.Marshal(request)
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	var trigger struct {
		ID string `json:"request-id"`
	}
	savepoints := "/jobs/" + job.ID + "/savepoints"
	if err := c.send(ctx, http.MethodPost, savepoints, "application/json", bytes.NewReader(body), &trigger); err != nil {
		return "", err
	}
	var answer struct {
		Status    struct{ ID string }
		Operation struct {
			Location string
			Failure  any `json:"failure-cause"`
		}
	}
	err = c.poll(ctx, "a savepoint", func() (bool, error) {
		err := c.call(ctx, http.MethodGet, savepoints+"/"+trigger.ID, &answer)
		return answer.Status.ID == "COMPLETED", err
	})
	if err == nil && answer.Operation.Location == "" {
		err = fmt.Errorf("lab: the savepoint failed: %v", answer.Operation.Failure)
	}
	return answer.Operation.Location, err
}

// Configuration asks the JobManager for its effective configuration.
func (c *Cluster) Configuration(ctx context.Context) (map[string]string, error) {
	var entries []struct{ Key, Value string }
	err := c.call(ctx, http.MethodGet, "/jobmanager/config", &entries)
	conf := map[string]string{}
	for _, e := range entries {
		conf[e.Key] = e.Value
	}
	return conf, err
}

// Cancel cancels the job, which keeps its last checkpoint, and waits until the cluster has ended; in a session
// cluster, until the job has. One more checkpoint may complete meanwhile.
func (c *Cluster) Cancel(ctx context.Context) error {
	job, err := c.Job(ctx)
	if err != nil {
		return err
	}
	if err := c.call(ctx, http.MethodPatch, "/jobs/"+job.ID+"?mode=cancel", nil); err != nil {
		return err
	}
	if c.session {
		return c.poll(ctx, "the job to end", func() (bool, error) {
			jobs, err := c.Jobs(ctx)
			return slices.ContainsFunc(jobs, func(j RunningJob) bool { return j.ID == job.ID && j.State == "CANCELED" }), err
		})
	}
	exitCode, err := c.WaitEnd(ctx)
	if err != nil {
		return err
	}
	if exitCode != 0 {
		return fmt.Errorf("lab: cancelling the job: %w", c.ended(c.jobManager))
	}
	return nil
}

// poll asks until the answer is yes. It gives up when ctx is done or a process of the cluster has ended; errors
// of ask are no reason to, since a JobManager that comes up refuses connections and then answers 404 and 503.
func (c *Cluster) poll(ctx context.Context, what string, ask func() (bool, error)) error {
	const interval = 200 * time.Millisecond
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		done, err := ask()
		if done && err == nil {
			return nil
		}
		select {
		case <-c.jobManager.done:
			return fmt.Errorf("lab: waiting for %s: %w", what, c.ended(c.jobManager))
		case <-c.taskManager.done:
			return fmt.Errorf("lab: waiting for %s: %w", what, c.ended(c.taskManager))
		case <-ctx.Done():
			return fmt.Errorf("lab: waiting for %s at %s: %w", what, c.URL, errors.Join(ctx.Err(), err))
		case <-ticker.C:
		}
	}
}

// call sends one request without a body and decodes the answer into answer, unless that is nil.
func (c *Cluster) call(ctx context.Context, method, path string, answer any) error {
	return c.send(ctx, method, path, "", nil, answer)
}

// send is call with a body.
func (c *Cluster) send(ctx context.Context, method, path, contentType string, content io.Reader, answer any) error {
	request, err := http.NewRequestWithContext(ctx, method, c.URL+path, content)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("lab: %s %s: %w", method, request.URL, err)
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("lab: %s %s: %s: %.200s", method, request.URL, response.Status, body)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("lab: %s %s: %w", method, request.URL, err)
	}
	return nil
}
