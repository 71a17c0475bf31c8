package flinkrest_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/chkpin/chkpin/flinkrest"
	"github.com/stretchr/testify/require"
)

const jobID = "311c74ddcfd1ac9760695f37e08fe41f"

// serve starts a JobManager that behaves as handler says, and a client of it.
func serve(t *testing.T, handler http.HandlerFunc) *flinkrest.Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return connect(t, flinkrest.Config{URL: server.URL})
}

// connect makes a client that waits no longer than it must before a retry.
func connect(t *testing.T, config flinkrest.Config) *flinkrest.Client {
	t.Helper()
	if config.RetryWait == 0 {
		config.RetryWait = time.Millisecond
	}
	client, err := flinkrest.New(config)
	require.NoError(t, err)
	return client
}

// answer is a handler that always says the same.
func answer(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// jsonAnswer is an answer such as a JobManager gives.
func jsonAnswer(status int, body string) http.HandlerFunc {
	return answer(status, "application/json; charset=UTF-8", body)
}

const noJobs = `{"jobs":[]}`

// roundTrip is a network in one function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// respond records what handler answers to request.
func respond(request *http.Request, handler http.HandlerFunc) *http.Response {
	recorder := httptest.NewRecorder()
	handler(recorder, request)
	response := recorder.Result()
	response.Request = request
	return response
}
