package flinkrest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/flinkrest"
)

const stoppable = "1624fd774f99507e464787c646439a53"

// stopServer is a JobManager of a release that is asked to stop a job. Its answers to the questions for the savepoint
// come in turn.
type stopServer struct {
	*testing.T
	release string
	status  int      // of the answer to stop
	answers []string // to savepoints
	asked   []map[string]any
}

func (s *stopServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path := strings.TrimPrefix(r.URL.Path, "/jobs/"+stoppable); {
	case path == "/config":
		io.WriteString(w, `{"flink-version":"`+s.release+`","flink-revision":"x"}`)
	case path == "/stop" && r.Method == http.MethodPost:
		var body map[string]any
		assert.NoError(s, json.NewDecoder(r.Body).Decode(&body))
		s.asked = append(s.asked, body)
		w.WriteHeader(s.status)
		if s.status == http.StatusAccepted {
			io.WriteString(w, `{"request-id":"0123"}`)
			return
		}
		io.WriteString(w, `{"errors":["Config key [state.savepoints.dir] is not set. Property [targetDirectory] must be provided."]}`)
	case path == "/savepoints/0123" && len(s.answers) > 0:
		io.WriteString(w, s.answers[0])
		s.answers = s.answers[1:]
	default:
		http.Error(w, `{"errors":["not found"]}`, http.StatusNotFound)
	}
}

func stopClient(t *testing.T, s *stopServer) *flinkrest.Client {
	t.Helper()
	s.T = t
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	client, err := flinkrest.New(flinkrest.Config{URL: server.URL, Retries: -1})
	require.NoError(t, err)
	return client
}

func TestStop(t *testing.T) {
	s := &stopServer{release: "2.3.0", status: http.StatusAccepted, answers: []string{
		`{"status":{"id":"IN_PROGRESS"}}`,
		`{"status":{"id":"COMPLETED"},"operation":{"location":"file:/savepoints/savepoint-1624fd-1"}}`,
	}}
	client := stopClient(t, s)
	trigger, err := client.Stop(t.Context(), stoppable, flinkrest.StopOptions{TargetDirectory: "file:///savepoints", Drain: true, Format: flinkrest.Native})
	require.NoError(t, err)
	require.Len(t, s.asked, 1)
	assert.Len(t, s.asked[0]["triggerId"], 32)
	delete(s.asked[0], "triggerId")
	assert.Equal(t, map[string]any{"targetDirectory": "file:///savepoints", "drain": true, "formatType": "NATIVE"}, s.asked[0])

	savepoint, err := client.Savepoint(t.Context(), stoppable, trigger)
	require.NoError(t, err)
	assert.Equal(t, flinkrest.Savepoint{}, savepoint)
	savepoint, err = client.Savepoint(t.Context(), stoppable, trigger)
	require.NoError(t, err)
	assert.Equal(t, flinkrest.Savepoint{Done: true, Location: "file:/savepoints/savepoint-1624fd-1"}, savepoint)
}

// Releases before 1.15 refuse fields that they do not know.
func TestStopOfAnOldRelease(t *testing.T) {
	s := &stopServer{release: "1.14.6", status: http.StatusAccepted}
	_, err := stopClient(t, s).Stop(t.Context(), stoppable, flinkrest.StopOptions{Format: flinkrest.Canonical})
	require.NoError(t, err)
	assert.Equal(t, []map[string]any{{"drain": false}}, s.asked)
}

// COMPLETED is not success: the failure is told by the last causes of the trace.
func TestSavepointThatFailed(t *testing.T) {
	s := &stopServer{release: "1.20.5", status: http.StatusAccepted, answers: []string{
		`{"status":{"id":"COMPLETED"},"operation":{"failure-cause":{"class":"x.CheckpointException","stack-trace":"x.CheckpointException: Disk full\n\tat y"}}}`,
		`{"status":{"id":"COMPLETED"},"operation":{"failure-cause":{"class":"x.CheckpointException","stack-trace":"x.CompletionException: x.CheckpointException: Failed.\n\tat y\nCaused by: x.CheckpointException: Failed.\n\tat y\nCaused by: java.io.IOException: Disk full\n\t... 3 more"}}}`,
		`{"status":{"id":"COMPLETED"},"operation":{"failure-cause":{"class":"x.CheckpointException"}}}`,
		`{"status":{"id":"WHAT"}}`,
	}}
	client := stopClient(t, s)
	savepoint, err := client.Savepoint(t.Context(), stoppable, "0123")
	require.NoError(t, err)
	assert.Equal(t, flinkrest.Savepoint{Done: true, Failure: "x.CheckpointException: Disk full"}, savepoint)
	savepoint, err = client.Savepoint(t.Context(), stoppable, "0123")
	require.NoError(t, err)
	assert.Equal(t, "x.CheckpointException: Failed.; caused by java.io.IOException: Disk full", savepoint.Failure)
	savepoint, err = client.Savepoint(t.Context(), stoppable, "0123")
	require.NoError(t, err)
	assert.Equal(t, "x.CheckpointException", savepoint.Failure)
	_, err = client.Savepoint(t.Context(), stoppable, "0123")
	require.ErrorIs(t, err, flinkrest.ErrUnavailable)
	_, err = client.Savepoint(t.Context(), stoppable, "0123")
	require.ErrorIs(t, err, flinkrest.ErrNotFound)
}

func TestStopIsRefused(t *testing.T) {
	s := &stopServer{release: "2.3.0", status: http.StatusBadRequest}
	_, err := stopClient(t, s).Stop(t.Context(), stoppable, flinkrest.StopOptions{})
	require.ErrorIs(t, err, flinkrest.ErrUnavailable)
	assert.ErrorContains(t, err, "must be provided")
}
