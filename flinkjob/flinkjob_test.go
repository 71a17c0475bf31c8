package flinkjob

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/cmd/chkpin/sample"
	"github.com/chkpin/chkpin/flinkrest"
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

	_, err = Job{Client: client}.Observe(t.Context())
	assert.EqualError(t, err, "no live job at "+server.URL)
}
