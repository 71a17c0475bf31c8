package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
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

// watched is a watch whose ticks wait for the test: each one starts when the
// test says so, and is told of when its outcome is counted.
type watched struct {
	*testing.T
	*watch
	sample     sample.Sample
	jobManager *replay.JobManager
	serves     atomic.Pointer[replay.JobManager]
	server     *httptest.Server // of the JobManager
	start      chan struct{}
	web        *httptest.Server // of the watch
}

func startWatch(t *testing.T) *watched {
	dir := t.TempDir()
	s, err := sample.Unpack(dir + "/checkpoints")
	require.NoError(t, err)
	jm, err := s.JobManager()
	require.NoError(t, err)
	w := &watched{T: t, sample: s, jobManager: jm, start: make(chan struct{})}
	w.serves.Store(jm)
	w.server = httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) { w.serves.Load().ServeHTTP(out, r) }))
	t.Cleanup(w.server.Close)
	client, err := flinkrest.New(flinkrest.Config{URL: w.server.URL, Retries: -1})
	require.NoError(t, err)
	app, store := blobstore.MustParse("file://"+dir+"/app"), blobstore.NewFile()
	w.watch = &watch{
		tick: func(ctx context.Context) (checkpoint.Pinned, error) {
			select {
			case <-w.start:
			case <-ctx.Done():
				return checkpoint.Pinned{}, ctx.Err()
			}
			return checkpoint.Pin(ctx, store, app, flinkjob.Job{Client: client}, checkpoint.PinOptions{})
		},
		env:      &environment{stdout: io.Discard, log: newLogger(io.Discard, "text", 0)},
		interval: time.Nanosecond,
		patience: time.Hour,
		metrics:  newMetrics(),
	}
	w.ended(time.Now())
	w.web = httptest.NewServer(w.handler())
	t.Cleanup(w.web.Close)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { w.loop(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return w
}

// ticks lets one tick run and waits until it is counted: until the next one is
// about to start.
func (w *watched) ticks() {
	before := w.lastEnd.Load()
	w.start <- struct{}{}
	require.Eventually(w, func() bool { return w.lastEnd.Load() != before }, time.Minute, time.Millisecond)
}

func (w *watched) get(path string) (int, string) {
	w.Helper()
	r, err := http.Get(w.web.URL + path)
	require.NoError(w, err)
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	require.NoError(w, err)
	return r.StatusCode, string(body)
}

func (w *watched) has(lines ...string) {
	w.Helper()
	_, metrics := w.get("/metrics")
	for _, line := range lines {
		assert.Contains(w, metrics, "\n"+line+"\n")
	}
}

// What a platform engineer sees of a job over its life: pinned, unchanged, the
// JobManager away, back again, replaced by a run that started empty.
func TestWatchTellsTheLifeOfAPin(t *testing.T) {
	w := startWatch(t)
	status, _ := w.get("/readyz")
	assert.Equal(t, 503, status, "nothing is known yet")
	status, _ = w.get("/healthz")
	assert.Equal(t, 200, status)

	w.ticks()
	status, _ = w.get("/readyz")
	assert.Equal(t, 200, status)
	w.has(`chkpin_ticks_total{result="pinned"} 1`, "chkpin_pinned_checkpoint_id 6", "chkpin_restorable 1", "chkpin_held 0", "chkpin_started_empty 0",
		"chkpin_lag_checkpoints 0", "chkpin_copied_files_total 10", "chkpin_tick_duration_seconds_count 1")

	w.ticks()
	w.has(`chkpin_ticks_total{result="unchanged"} 1`, "chkpin_copied_files_total 10")

	w.jobManager.Set("/jobs/overview", 503, `{"errors":["Service temporarily unavailable"]}`)
	w.ticks()
	w.has(`chkpin_ticks_total{result="unreachable"} 1`, "chkpin_pinned_checkpoint_id 6", "chkpin_restorable 1")

	other, err := sample.UnpackAs(t.TempDir(), "ffffffffffffffffffffffffffffffff")
	require.NoError(t, err)
	empty, err := other.JobManager()
	require.NoError(t, err)
	w.serves.Store(empty)
	w.ticks()
	w.has(`chkpin_ticks_total{result="held"} 1`, "chkpin_held 1", "chkpin_started_empty 1", "chkpin_pinned_checkpoint_id 6", "chkpin_restorable 1")
}

func TestWatchIsUnhealthyWhenItHangs(t *testing.T) {
	w := startWatch(t)
	w.ticks()
	assert.Contains(t, w.lastEnd.Load().String(), " m=", "a clock that is set makes nobody unhealthy")
	w.ended(time.Now().Add(-2 * time.Hour))
	status, body := w.get("/healthz")
	assert.Equal(t, 503, status)
	assert.Contains(t, body, "no tick has ended for 2h0m")
}

// Failing ticks get rarer, but never rarer than eight intervals.
func TestPause(t *testing.T) {
	for failures, times := range map[int]time.Duration{0: 1, 1: 1, 2: 2, 3: 4, 4: 8, 5: 8, 100: 8} {
		got := pause(time.Minute, failures)
		assert.InDelta(t, times*time.Minute, got, float64(times*time.Minute)/10, "%d failures", failures)
	}
}
