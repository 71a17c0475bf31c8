package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/flinkrest"
)

// A request to stop whose answer is lost may have been heard: who is told that it failed has to know.
func TestStopWhoseAnswerIsLost(t *testing.T) {
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		hint   string
	}{
		"lost":    {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "Flink goes on and may stop the job; then start it from its savepoint, named savepoint-0a0000-…"},
		"refused": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					_, _ = io.Copy(io.Discard, r.Body) // else the server does not see that the client gives up
					test.answer(w, r)
					return
				}
				io.WriteString(w, `{"flink-version":"2.3.0","flink-revision":"x"}`)
			}))
			defer server.Close()
			client, err := flinkrest.New(flinkrest.Config{URL: server.URL, Timeout: 100 * time.Millisecond})
			require.NoError(t, err)
			_, err = savepointFlags{StopTimeout: time.Minute}.stop(t.Context(), client, "0a000000000000000000000000000000")
			require.ErrorIs(t, err, flinkrest.ErrUnavailable)
			assert.Equal(t, test.hint, hintOf(err))
		})
	}
}
