// Package replay answers like a JobManager, from recorded answers. It serves tests and demonstrations.
//
// [New] loads a folder of recordings; the result is an [http.Handler]. A test then moves the job on with
// [JobManager.Complete], or changes single answers with [JobManager.Set].
package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// recordings name each file and the path that it answers; :jobid stands for the recorded job's id.
var recordings = map[string]string{
	"config.json":             "/config",
	"overview.json":           "/overview",
	"jobmanager-config.json":  "/jobmanager/config",
	"jobs.json":               "/jobs",
	"jobs-overview.json":      "/jobs/overview",
	"job.json":                "/jobs/:jobid",
	"job-config.json":         "/jobs/:jobid/config",
	"checkpoints.json":        "/jobs/:jobid/checkpoints",
	"checkpoints-config.json": "/jobs/:jobid/checkpoints/config",
}

// JobManager serves recorded answers at the paths that a JobManager serves, and below /v1. Everything else is
// answered with 404 in Flink's shape. It is safe for concurrent use.
type JobManager struct {
	jobID string

	mu      sync.Mutex
	answers map[string]answer
}

type answer struct {
	status int
	body   []byte
}

// New loads the recordings of one job: jobs-overview.json, which names it, and whichever of config, overview,
// jobmanager-config, jobs, job, job-config, checkpoints and checkpoints-config (.json) there are.
func New(recorded fs.FS) (*JobManager, error) {
	overview, err := fs.ReadFile(recorded, "jobs-overview.json")
	if err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	var list struct {
		Jobs []struct {
			ID string `json:"jid"`
		} `json:"jobs"`
	}
	if err := json.Unmarshal(overview, &list); err != nil || len(list.Jobs) != 1 {
		return nil, errors.New("replay: jobs-overview.json must name one job")
	}
	jm := &JobManager{jobID: list.Jobs[0].ID, answers: map[string]answer{}}
	for file, path := range recordings {
		body, err := fs.ReadFile(recorded, file)
		switch {
		case err == nil:
			jm.answers[jm.expand(path)] = answer{status: http.StatusOK, body: body}
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("replay: %w", err)
		}
	}
	return jm, nil
}

// JobID is the id of the recorded job.
func (jm *JobManager) JobID() string { return jm.jobID }

// expand puts the recorded job's id in the place of :jobid.
func (jm *JobManager) expand(path string) string {
	return strings.ReplaceAll(path, ":jobid", jm.jobID)
}

// Set answers path with a status and a body from now on, as in
//
//	Set("/jobs/overview", 200, `{"jobs":[]}`)
//	Set("/jobs/:jobid/checkpoints", 404, `{"errors":["Checkpointing has not been enabled."]}`)
//
// where :jobid stands for the recorded job's id.
func (jm *JobManager) Set(path string, status int, body string) {
	jm.mu.Lock()
	defer jm.mu.Unlock()
	jm.answers[jm.expand(path)] = answer{status: status, body: []byte(body)}
}

// Replace puts new in the place of old in all answers: the recorded checkpoint folder becomes the test's. Both are
// texts as they stand inside a JSON string.
func (jm *JobManager) Replace(old, new string) {
	jm.mu.Lock()
	defer jm.mu.Unlock()
	for path, changed := range jm.answers {
		changed.body = bytes.ReplaceAll(changed.body, []byte(old), []byte(new))
		jm.answers[path] = changed
	}
}

// Complete makes checkpoint id at externalPath the newest completed one, in the statistics as the latest and as
// the newest of the history; all else about it is as recorded of the one before.
func (jm *JobManager) Complete(id int64, externalPath string) error {
	jm.mu.Lock()
	defer jm.mu.Unlock()
	path := jm.expand("/jobs/:jobid/checkpoints")

	// Maps keep the fields that differ between releases; Number keeps long integers exact.
	var statistics struct {
		Counts  map[string]json.Number     `json:"counts"`
		Summary json.RawMessage            `json:"summary,omitempty"`
		Latest  map[string]json.RawMessage `json:"latest"`
		History []json.RawMessage          `json:"history"`
	}
	var checkpoint map[string]any
	err := json.Unmarshal(jm.answers[path].body, &statistics)
	if err == nil {
		decoder := json.NewDecoder(bytes.NewReader(statistics.Latest["completed"]))
		decoder.UseNumber()
		err = decoder.Decode(&checkpoint)
	}
	if err != nil || checkpoint == nil {
		return fmt.Errorf("replay: complete checkpoint %d: no completed checkpoint recorded", id)
	}
	checkpoint["id"] = id
	checkpoint["external_path"] = externalPath
	completed, err := json.Marshal(checkpoint)
	if err != nil {
		return fmt.Errorf("replay: complete checkpoint %d: %w", id, err)
	}
	statistics.Latest["completed"] = completed
	statistics.History = slices.Insert(statistics.History, 0, json.RawMessage(completed))
	for _, count := range []string{"total", "completed"} {
		n, _ := statistics.Counts[count].Int64()
		statistics.Counts[count] = json.Number(fmt.Sprint(n + 1))
	}
	body, err := json.Marshal(statistics)
	if err != nil {
		return fmt.Errorf("replay: complete checkpoint %d: %w", id, err)
	}
	jm.answers[path] = answer{status: http.StatusOK, body: body}
	return nil
}

// ServeHTTP answers GET requests with what is recorded or set.
func (jm *JobManager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1")
	jm.mu.Lock()
	found, known := jm.answers[path]
	jm.mu.Unlock()
	switch {
	case r.Method != http.MethodGet:
		found = refusal(http.StatusMethodNotAllowed, "Method %s not allowed.", r.Method)
	case known:
	case strings.HasPrefix(path, "/jobs/") && !strings.HasPrefix(path, jm.expand("/jobs/:jobid/")):
		job, _, _ := strings.Cut(strings.TrimPrefix(path, "/jobs/"), "/")
		found = refusal(http.StatusNotFound, "Job %s not found", job)
	default:
		found = refusal(http.StatusNotFound, "Unable to load requested file %s.", path)
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(found.status)
	_, _ = w.Write(found.body) // a client that went away needs no answer
}

// refusal is an answer in the shape of Flink's ErrorResponseBody.
func refusal(status int, format string, args ...any) answer {
	body, _ := json.Marshal(map[string][]string{"errors": {fmt.Sprintf(format, args...)}}) // strings always marshal
	return answer{status: status, body: body}
}
