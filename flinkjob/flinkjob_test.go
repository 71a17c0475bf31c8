package flinkjob_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/cmd/chkpin/sample"
	"github.com/chkpin/chkpin/flinkjob"
	"github.com/chkpin/chkpin/flinkrest"
	"github.com/chkpin/chkpin/flinkrest/replay"
)

// A job that ends between the two calls of a tick is no job, not one without checkpointing: the JobManager answers
// both with 404.
func TestJobEndsWhileItIsAsked(t *testing.T) {
	s, err := sample.Unpack(t.TempDir())
	require.NoError(t, err)
	jm, err := s.JobManager()
	require.NoError(t, err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		jm.ServeHTTP(w, r)
		if r.URL.Path == "/jobs/overview" {
			jm.Set("/jobs/:jobid/checkpoints", http.StatusNotFound, `{"errors": ["Job not found"]}`)
			jm.Set("/jobs/overview", http.StatusOK, `{"jobs": []}`)
		}
	}))
	defer server.Close()
	client, err := flinkrest.New(flinkrest.Config{URL: server.URL})
	require.NoError(t, err)

	_, err = flinkjob.Job{Client: client}.Observe(t.Context())
	assert.EqualError(t, err, "no live job at "+server.URL)
}

// A JobManager that took a job over, or is only starting it, has no statistics of its checkpoints yet. 2.3.0 answers
// with errors then, and goes on for 3 s when the job has long been running.
func TestStatisticsAreNotThereYet(t *testing.T) {
	const notFound = `{"errors": ["org.apache.flink.runtime.rest.NotFoundException: Job 1624fd774f99507e464787c646439a53 not found"]}`
	const empty = `{"counts": {"restored": 0, "total": 0, "in_progress": 0, "completed": 0, "failed": 0},
		"latest": {"completed": null, "savepoint": null, "failed": null, "restored": null}, "history": []}`
	observe := func(t *testing.T, change func(*replay.JobManager)) (obs checkpoint.Observation, err, lastSeenErr error) {
		s, err := sample.Unpack(t.TempDir())
		require.NoError(t, err)
		jm, err := s.JobManager()
		require.NoError(t, err)
		change(jm)
		server := httptest.NewServer(jm)
		defer server.Close()
		client, err := flinkrest.New(flinkrest.Config{URL: server.URL, Retries: -1})
		require.NoError(t, err)
		job := flinkjob.Job{Client: client}
		_, lastSeenErr = job.LastSeen(t.Context())
		obs, err = job.Observe(t.Context())
		return obs, err, lastSeenErr
	}
	for name, change := range map[string]func(*replay.JobManager){
		"it initializes": func(jm *replay.JobManager) {
			jm.Replace(`"state":"RUNNING"`, `"state":"INITIALIZING"`)
			jm.Set("/jobs/:jobid/checkpoints", http.StatusInternalServerError, `{"errors": ["Internal server error.", "<Exception on server side: …>"]}`)
		},
		"it was initializing": func(jm *replay.JobManager) {
			jm.Replace(`"duration":14776`, `"duration":6919`) // 2 s since the state changed
			jm.Set("/jobs/:jobid/checkpoints", http.StatusOK, empty)
		},
		"it was recovered": func(jm *replay.JobManager) { jm.Set("/jobs/:jobid/checkpoints", http.StatusNotFound, notFound) },
	} {
		t.Run(name, func(t *testing.T) {
			obs, err, lastSeenErr := observe(t, change)
			require.NoError(t, err)
			assert.True(t, obs.Starting)
			assert.Nil(t, obs.Latest)
			assert.NotEmpty(t, obs.Run.JobID)
			assert.ErrorIs(t, lastSeenErr, checkpoint.ErrNoCheckpoint, "a job is not stopped of which that is not known")
		})
	}
	obs, err, _ := observe(t, func(jm *replay.JobManager) { jm.Set("/jobs/:jobid/checkpoints", http.StatusOK, empty) })
	require.NoError(t, err)
	assert.False(t, obs.Starting, "nothing has changed for 9 s: it did start empty")
	_, err, _ = observe(t, func(jm *replay.JobManager) {
		jm.Set("/jobs/:jobid/checkpoints", http.StatusNotFound, notFound)
		jm.Set("/jobs/:jobid/checkpoints/config", http.StatusForbidden, "")
	})
	assert.ErrorIs(t, err, flinkrest.ErrUnavailable)
	_, err, _ = observe(t, func(jm *replay.JobManager) {
		jm.Set("/jobs/:jobid/checkpoints", http.StatusNotFound, `{"errors": ["Checkpointing has not been enabled."]}`)
		jm.Set("/jobs/:jobid/checkpoints/config", http.StatusNotFound, `{"errors": ["Checkpointing is not enabled for this job."]}`)
	})
	assert.ErrorIs(t, err, flinkjob.ErrCheckpointingOff)
}

// In application mode the JobManager ends with its job. What it said before, and the savepoint, are enough to pin.
func TestStoppedJobIsPinnedWithoutItsJobManager(t *testing.T) {
	ctx, store := t.Context(), blobstore.NewFile()
	flink := startSample()
	flink.pin(ctx, store)
	stopped, err := flink.job().LastSeen(ctx)
	require.NoError(t, err)
	run := filepath.Join("checkpoints", flink.sample.JobID)
	require.NoError(t, flink.sample.Complete())
	savepoint := flink.root.Join("savepoint-1624fd-0123456789ab")
	_, err = checkpoint.Copy(ctx, store, blobstore.MustParse(flink.sample.Path()), savepoint, checkpoint.CopyOptions{})
	require.NoError(t, err)
	flink.server.Close()
	defer flink.stop()

	snap, err := checkpoint.Load(ctx, store, savepoint, checkpoint.LoadOptions{})
	require.NoError(t, err)
	stopped.EndedIn(snap, time.Now())
	pinned, err := checkpoint.Pin(ctx, store, flink.app, stopped, checkpoint.PinOptions{})
	require.NoError(t, err)
	assert.Equal(t, checkpoint.ResultPinned, pinned.Result)
	assert.Equal(t, savepoint.String(), pinned.Source)
	assert.Contains(t, stopped.Seen.Run.Folder, filepath.ToSlash(run), "its descendants are known by it")
}

// An older savepoint that completes after a newer one stands where the statistics have the newest checkpoint. That is
// in their history still.
func TestCheckpointBehindASavepoint(t *testing.T) {
	at := func(id int64, savepoint, discarded bool) *flinkrest.Checkpoint {
		return &flinkrest.Checkpoint{ID: id, Status: flinkrest.CheckpointCompleted, Savepoint: savepoint, Discarded: discarded, ExternalPath: "s3://lake/flink/chk"}
	}
	failed := at(10, false, false)
	failed.Status, failed.ExternalPath = flinkrest.CheckpointFailed, ""
	stats := flinkrest.Checkpoints{LatestCompleted: at(8, true, false), LatestSavepoint: at(9, true, false)}
	for _, c := range []*flinkrest.Checkpoint{failed, stats.LatestSavepoint, stats.LatestCompleted, at(7, false, false), at(6, false, true)} {
		stats.History = append(stats.History, *c)
	}
	latest, err := flinkjob.Job{}.Latest(stats)
	require.NoError(t, err)
	require.NotNil(t, latest)
	assert.EqualValues(t, 7, latest.ID)

	latest, err = flinkjob.Job{IncludeSavepoints: true}.Latest(stats)
	require.NoError(t, err)
	assert.EqualValues(t, 9, latest.ID)

	stats.History = stats.History[:3]
	latest, err = flinkjob.Job{}.Latest(stats)
	require.NoError(t, err)
	assert.Nil(t, latest)
}
