package flinkrest_test

import (
	"context"
	"fmt"
	"math"
	"net/http/httptest"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/chkpin/chkpin/flinkrest"
	"github.com/chkpin/chkpin/flinkrest/replay"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every release answers a little differently; what the client tells is the same.
func TestRecordedAnswers(t *testing.T) {
	recorded, err := os.ReadDir("testdata")
	require.NoError(t, err)
	clusters := 0
	for _, entry := range recorded {
		if !entry.IsDir() {
			continue
		}
		clusters++
		name := entry.Name()
		t.Run(name, func(t *testing.T) {
			jm, err := replay.New(os.DirFS("testdata/" + name))
			require.NoError(t, err)
			server := httptest.NewServer(jm)
			t.Cleanup(server.Close)
			client := connect(t, flinkrest.Config{URL: server.URL})
			ctx := t.Context()

			jobs, err := client.Jobs(ctx)
			require.NoError(t, err)
			require.Len(t, jobs, 1)
			job := jobs[0]
			assert.Equal(t, jm.JobID(), job.ID)
			assert.Equal(t, "pin-job", job.Name)
			assert.Equal(t, flinkrest.Running, job.State)
			assert.True(t, job.State.Live())
			assert.Equal(t, 2026, job.Start.Year())
			assert.Zero(t, job.End, "a running job has no end")

			details, err := client.Job(ctx, job.ID)
			require.NoError(t, err)
			assert.True(t, job.Changed.After(job.Start))
			assert.True(t, job.Now.After(job.Changed), "the list tells the time by how long the job has run")
			assert.WithinDuration(t, details.Now, job.Now, 5*time.Second)
			assert.True(t, details.Now.After(job.Start))
			job.Changed, job.Now = time.Time{}, details.Now // only the list tells the one, and each its own other
			assert.Equal(t, job, details.Job)
			assert.Equal(t, job.Start, details.Entered[flinkrest.Initializing])
			assert.NotContains(t, details.Entered, flinkrest.Failed)
			version, _, _ := strings.Cut(name, "-")
			if version < "1.20" {
				assert.Empty(t, details.Type)
			} else {
				assert.Equal(t, "STREAMING", details.Type)
			}

			checkpoints, err := client.Checkpoints(ctx, job.ID)
			require.NoError(t, err)
			latest := checkpoints.LatestCompleted
			require.NotNil(t, latest)
			assert.Equal(t, flinkrest.CheckpointCompleted, latest.Status)
			assert.True(t, latest.ExternalPath.Addressable())
			assert.Equal(t, fmt.Sprintf("%s/chk-%d", job.ID, latest.ID), lastTwo(string(latest.ExternalPath)))
			assert.False(t, latest.Savepoint)
			assert.False(t, latest.Discarded)
			assert.Contains(t, []string{"CHECKPOINT", "UNALIGNED_CHECKPOINT"}, latest.Type)
			assert.Positive(t, latest.StateSize)
			assert.True(t, latest.Triggered.After(job.Start))
			assert.False(t, latest.Acked.Before(latest.Triggered))
			assert.Contains(t, checkpoints.History, *latest)
			assert.Equal(t, latest.ID, checkpoints.Counts.Completed)
			assert.Nil(t, checkpoints.LatestSavepoint)
			assert.Nil(t, checkpoints.Restored)

			config, err := client.CheckpointConfig(ctx, job.ID)
			require.NoError(t, err)
			assert.Equal(t, "exactly_once", config.Mode)
			assert.Equal(t, 2*time.Second, config.Interval)
			assert.Equal(t, 10*time.Minute, config.Timeout)
			assert.EqualValues(t, 1, config.MaxConcurrent)
			assert.True(t, config.Retained)
			assert.False(t, config.DeletedOnCancellation)
			assert.Equal(t, "FileSystemCheckpointStorage", config.Storage)
			assert.Equal(t, strings.HasSuffix(name, "-changelog"), config.Changelog)
			assert.Equal(t, strings.HasSuffix(name, "-unaligned"), config.Unaligned)

			flink, err := client.Version(ctx)
			require.NoError(t, err)
			assert.Equal(t, version, flink.Flink)
			assert.NotEmpty(t, flink.Revision)

			settings, err := client.JobManagerConfig(ctx)
			require.NoError(t, err)
			assert.Equal(t, "2", settings["parallelism.default"])
		})
	}
	assert.Equal(t, 19, clusters)
}

func lastTwo(uri string) string {
	return path.Join(path.Base(path.Dir(uri)), path.Base(uri))
}

// FINISHED, CANCELED and FAILED jobs never come back; all others may.
func TestLive(t *testing.T) {
	for state, live := range map[flinkrest.State]bool{
		flinkrest.Initializing: true,
		flinkrest.Created:      true,
		flinkrest.Running:      true,
		flinkrest.Restarting:   true,
		flinkrest.Failing:      true,
		flinkrest.Cancelling:   true,
		flinkrest.Suspended:    true,
		flinkrest.Reconciling:  true,
		flinkrest.Finished:     false,
		flinkrest.Canceled:     false,
		flinkrest.Failed:       false,
		"OF_A_LATER_RELEASE":   true,
	} {
		assert.Equal(t, live, state.Live(), state)
	}
}

func TestClusterWithoutJobs(t *testing.T) {
	jobs, err := serve(t, jsonAnswer(200, noJobs)).Jobs(t.Context())
	require.NoError(t, err)
	assert.Empty(t, jobs)
}

// The statistics of a job that was restored, took a savepoint, failed one checkpoint and has another under way.
func TestCheckpointsOfARestoredJob(t *testing.T) {
	client := serve(t, jsonAnswer(200, `{
		"counts":{"restored":1,"total":4,"in_progress":1,"completed":2,"failed":1},
		"summary":{"state_size":{"min":1,"max":2,"avg":1,"p50":1.5}},
		"latest":{
			"completed":{"className":"completed","id":1339,"status":"COMPLETED","is_savepoint":false,"external_path":"s3://b/ck/chk-1339"},
			"savepoint":{"className":"completed","id":1340,"status":"COMPLETED","is_savepoint":true,"savepointFormat":"CANONICAL",
				"checkpoint_type":"SAVEPOINT","external_path":"s3://b/sp/savepoint-311c74-0a"},
			"failed":{"className":"failed","id":1338,"status":"FAILED","failure_message":"Checkpoint expired before completing."},
			"restored":{"id":1337,"restore_timestamp":1795188620025,"is_savepoint":true,"external_path":"s3://b/app/last-state"}
		},
		"history":[
			{"className":"in_progress","id":1341,"status":"IN_PROGRESS","latest_ack_timestamp":-1},
			{"className":"completed","id":1339,"status":"COMPLETED","discarded":true}
		]}`))
	checkpoints, err := client.Checkpoints(t.Context(), jobID)
	require.NoError(t, err)

	assert.Equal(t, flinkrest.Counts{Restored: 1, Total: 4, InProgress: 1, Completed: 2, Failed: 1}, checkpoints.Counts)
	assert.EqualValues(t, 1339, checkpoints.LatestCompleted.ID)
	assert.EqualValues(t, 1340, checkpoints.LatestSavepoint.ID)
	assert.True(t, checkpoints.LatestSavepoint.Savepoint)
	assert.Equal(t, "Checkpoint expired before completing.", checkpoints.LatestFailed.Failure)
	assert.False(t, checkpoints.LatestFailed.ExternalPath.Addressable())
	assert.Equal(t, &flinkrest.Restored{
		ID:           1337,
		Savepoint:    true,
		ExternalPath: "s3://b/app/last-state",
		At:           time.UnixMilli(1795188620025).UTC(),
	}, checkpoints.Restored)
	require.Len(t, checkpoints.History, 2)
	assert.Equal(t, flinkrest.CheckpointInProgress, checkpoints.History[0].Status)
	assert.Zero(t, checkpoints.History[0].Acked)
	assert.True(t, checkpoints.History[1].Discarded)
}

// A JobManager that keeps checkpoints in its memory has completed ones, and nothing to read them from.
func TestCheckpointInMemory(t *testing.T) {
	client := serve(t, jsonAnswer(200, `{"counts":{"completed":1},"latest":{"completed":
		{"id":1,"status":"COMPLETED","external_path":"<checkpoint-not-externally-addressable>"}}}`))
	checkpoints, err := client.Checkpoints(t.Context(), jobID)
	require.NoError(t, err)
	assert.False(t, checkpoints.LatestCompleted.ExternalPath.Addressable())
}

// After a JobManager restart, and before the first checkpoint, there is nothing; missing and null are the same.
func TestEmptyStatistics(t *testing.T) {
	for _, body := range []string{
		`{"counts":{"restored":0,"total":0},"latest":{"completed":null,"savepoint":null,"failed":null,"restored":null},"history":[]}`,
		`{"counts":{},"latest":null,"history":null}`,
		`{"counts":{}}`,
	} {
		checkpoints, err := serve(t, jsonAnswer(200, body)).Checkpoints(t.Context(), jobID)
		require.NoError(t, err, body)
		assert.Equal(t, flinkrest.Checkpoints{}, checkpoints, body)
	}
}

// A job with checkpointing on but without an interval takes savepoints only.
func TestNoPeriodicCheckpoints(t *testing.T) {
	body := fmt.Sprintf(`{"mode":"at_least_once","interval":%d,"timeout":%d}`, math.MaxInt64, math.MaxInt64)
	config, err := serve(t, jsonAnswer(200, body)).CheckpointConfig(t.Context(), jobID)
	require.NoError(t, err)
	assert.Zero(t, config.Interval)
	assert.Greater(t, config.Timeout, 290*365*24*time.Hour, "the longest time there is, not an overflow")
}

// 404 about a job is an answer, not a failure: the job is gone, or it has no checkpointing.
func TestNotFound(t *testing.T) {
	jm, err := replay.New(os.DirFS("testdata/1.20.5-hashmap-basic"))
	require.NoError(t, err)
	server := httptest.NewServer(jm)
	t.Cleanup(server.Close)
	client := connect(t, flinkrest.Config{URL: server.URL})

	check := func(err error, text string) {
		t.Helper()
		require.ErrorIs(t, err, flinkrest.ErrNotFound)
		assert.NotErrorIs(t, err, flinkrest.ErrUnavailable)
		assert.ErrorContains(t, err, text)
	}

	_, err = client.Job(t.Context(), jobID)
	check(err, "404 Not Found: Job "+jobID+" not found")
	_, err = client.Checkpoints(t.Context(), jobID)
	check(err, "not found")

	const off = `{"errors":["Checkpointing has not been enabled."]}`
	jm.Set("/jobs/:jobid/checkpoints", 404, off)
	_, err = client.Checkpoints(t.Context(), jm.JobID())
	check(err, "Checkpointing has not been enabled.")
	jm.Set("/jobs/:jobid/checkpoints/config", 404, off)
	_, err = client.CheckpointConfig(t.Context(), jm.JobID())
	check(err, "Checkpointing has not been enabled.")
}

// A job id comes from a command line: one that is none goes into no URL.
func TestJobIDIsChecked(t *testing.T) {
	client := connect(t, flinkrest.Config{URL: "http://jobmanager:8081"})
	for _, id := range []string{"", "overview", "../config", jobID + "/checkpoints", strings.Repeat("g", 32)} {
		_, err := client.Job(context.Background(), id)
		assert.ErrorIs(t, err, flinkrest.ErrConfig, id)
		assert.NotErrorIs(t, err, flinkrest.ErrUnavailable, id)
	}
}
