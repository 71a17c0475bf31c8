package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/s3store"
	"github.com/chkpin/chkpin/blobstore/storetest/faults"
	"github.com/chkpin/chkpin/blobstore/storetest/servers"
	"github.com/chkpin/chkpin/deploy"
)

// Manifests are in a bucket. While it refuses to be read or written, nothing is started or stopped.
func TestDeployWithManifestsOnS3(t *testing.T) {
	server := servers.VersityGW(t, []string{"bucket"})
	t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
	t.Setenv("AWS_REGION", "us-east-1")
	store := s3store.New(s3store.Config{Endpoint: server.URL, PathStyle: true})
	stored := blobstore.MustParse("s3://bucket/manifests/orders.yaml")

	dir := t.TempDir()
	s := startSession(dir)
	t.Cleanup(s.Close)
	t.Setenv("SESSION", s.URL)
	self, err := os.Executable()
	require.NoError(t, err)
	flink, file := filepath.Join(dir, "flink"), filepath.Join(dir, "orders.yaml") // TestMain goes by the program's name
	require.NoError(t, os.Symlink(self, flink))

	deployed := func(endpoint, query string) (code int, result struct{ Decision, Result, Error string }) {
		t.Helper()
		require.NoError(t, os.WriteFile(file, []byte("name: orders\nsql: "+query), 0o666))
		var out bytes.Buffer
		command, env, err := parse([]string{"deploy", "--job-config-path", file, "--manifests", "s3://bucket/manifests", "--state", "file://" + dir,
			"--s3-endpoint", endpoint, "--s3-path-style", "--jobmanager", s.URL, "--settle", "1ms", "--output", "json",
			"--", flink, "run", "-d", "{properties}", "{restore}", "job.jar"}, &out, io.Discard)
		require.NoError(t, err)
		err = command.Run(t.Context(), env)
		require.NoError(t, json.Unmarshal(out.Bytes(), &result), "%s", &out)
		return exitCode(t.Context(), err, io.Discard), result
	}
	storedQuery := func() string {
		t.Helper()
		data, _, err := blobstore.ReadAll(t.Context(), store, stored, 0)
		require.NoError(t, err)
		m, err := deploy.ParseStored(stored.String(), data)
		require.NoError(t, err)
		return m.SQL
	}

	for method, operation := range map[string]string{http.MethodGet: "open", http.MethodPut: "put"} {
		proxy := faults.Start(t, server.URL)
		proxy.Inject(100, faults.Method(method), faults.Answer(403, "AccessDenied"))
		code, result := deployed(proxy.URL, "SELECT 1")
		assert.Equal(t, denied.code, code)
		assert.Contains(t, result.Error, operation+" s3://bucket/manifests/")
		assert.Contains(t, result.Error, "permission denied")
		assert.Empty(t, s.submitted)
	}

	for _, step := range []struct{ query, decision string }{
		{"SELECT 1", "clean"}, {"SELECT  1", "nothing"}, {"SELECT 2", "savepoint-clean"},
	} {
		code, result := deployed(server.URL, step.query)
		assert.Equal(t, done.code, code, result.Error)
		assert.Equal(t, step.decision, result.Decision)
	}
	assert.Equal(t, "SELECT 2", storedQuery(), "replaced on the condition that it was still that of SELECT 1")
	assert.Equal(t, []string{"orders", "orders"}, s.submitted)
}
