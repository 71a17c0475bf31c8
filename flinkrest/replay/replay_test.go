package replay_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/chkpin/chkpin/flinkrest"
	"github.com/chkpin/chkpin/flinkrest/replay"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const recording = "../testdata/2.3.0-rocksdb-incremental/"

func start(t *testing.T) (*replay.JobManager, string) {
	t.Helper()
	jm, err := replay.New(os.DirFS(recording))
	require.NoError(t, err)
	server := httptest.NewServer(jm)
	t.Cleanup(server.Close)
	return jm, server.URL
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	response, err := http.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(content)
}

// Each recording is served unchanged at its path.
func TestServesWhatWasRecorded(t *testing.T) {
	jm, url := start(t)
	job := "/jobs/" + jm.JobID()
	for path, file := range map[string]string{
		"/config":                    "config.json",
		"/v1/config":                 "config.json",
		"/jobmanager/config":         "jobmanager-config.json",
		"/jobs/overview":             "jobs-overview.json",
		job:                          "job.json",
		job + "/checkpoints":         "checkpoints.json",
		job + "/checkpoints/config":  "checkpoints-config.json",
		"/v1" + job + "/checkpoints": "checkpoints.json",
	} {
		recorded, err := os.ReadFile(recording + file)
		require.NoError(t, err)
		status, body := get(t, url+path)
		assert.Equal(t, 200, status, path)
		assert.Equal(t, string(recorded), body, path)
	}
}

func TestRefusesTheRest(t *testing.T) {
	jm, url := start(t)
	other := strings.Repeat("0", 32)
	for path, message := range map[string]string{
		"/":                                  "Unable to load requested file /.",
		"/jobs/" + jm.JobID() + "/accidents": "Unable to load requested file /jobs/" + jm.JobID() + "/accidents.",
		"/jobs/" + other:                     "Job " + other + " not found",
		"/jobs/" + other + "/checkpoints":    "Job " + other + " not found",
	} {
		status, body := get(t, url+path)
		assert.Equal(t, 404, status, path)
		assert.JSONEq(t, `{"errors":["`+message+`"]}`, body, path)
	}

	response, err := http.Post(url+"/jobs/overview", "application/json", nil)
	require.NoError(t, err)
	response.Body.Close()
	assert.Equal(t, 405, response.StatusCode)
}

// A test moves the recorded checkpoint folder to its own, lets the job go on, and lets it end.
func TestChanges(t *testing.T) {
	jm, url := start(t)
	client, err := flinkrest.New(flinkrest.Config{URL: url})
	require.NoError(t, err)
	before, err := client.Checkpoints(t.Context(), jm.JobID())
	require.NoError(t, err)

	jm.Replace("file:/tmp/flink-pin/ckpt/2.3.0-rocksdb-incremental", "file:/state")
	require.NoError(t, jm.Complete(6, "file:/state/"+jm.JobID()+"/chk-6"))
	after, err := client.Checkpoints(t.Context(), jm.JobID())
	require.NoError(t, err)
	assert.EqualValues(t, 6, after.LatestCompleted.ID)
	assert.EqualValues(t, "file:/state/"+jm.JobID()+"/chk-6", after.LatestCompleted.ExternalPath)
	assert.Equal(t, before.LatestCompleted.StateSize, after.LatestCompleted.StateSize)
	assert.Equal(t, before.LatestCompleted.Triggered, after.LatestCompleted.Triggered)
	assert.Equal(t, before.Counts.Completed+1, after.Counts.Completed)
	assert.Equal(t, before.Counts.Failed, after.Counts.Failed)
	require.Len(t, after.History, len(before.History)+1)
	assert.Equal(t, *after.LatestCompleted, after.History[0])
	assert.EqualValues(t, "file:/state/"+jm.JobID()+"/chk-5", after.History[1].ExternalPath)

	jm.Set("/jobs/:jobid/checkpoints", 404, `{"errors":["Checkpointing has not been enabled."]}`)
	_, err = client.Checkpoints(t.Context(), jm.JobID())
	require.ErrorIs(t, err, flinkrest.ErrNotFound)
	assert.Error(t, jm.Complete(7, "file:/state/chk-7"), "there are no statistics to add it to")

	jm.Set("/jobs/overview", 200, `{"jobs":[]}`)
	jobs, err := client.Jobs(t.Context())
	require.NoError(t, err)
	assert.Empty(t, jobs)
}

func TestNewNeedsOneJob(t *testing.T) {
	for name, files := range map[string]fstest.MapFS{
		"nothing": {},
		"damaged": {"jobs-overview.json": {Data: []byte("{")}},
		"no job":  {"jobs-overview.json": {Data: []byte(`{"jobs":[]}`)}},
	} {
		_, err := replay.New(files)
		assert.Error(t, err, name)
	}
}
