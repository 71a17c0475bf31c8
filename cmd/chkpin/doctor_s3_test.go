package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/s3store"
	"github.com/chkpin/chkpin/blobstore/storetest/faults"
	"github.com/chkpin/chkpin/blobstore/storetest/servers"
)

// Rights are tried on a service, each by itself, and no probe is left where it
// can be deleted.
func TestDoctorOnS3(t *testing.T) {
	server := servers.VersityGW(t, []string{"bucket"})
	t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
	t.Setenv("AWS_REGION", "us-east-1")
	refused := faults.Answer(403, "AccessDenied")
	probes := func(method string) func(*http.Request) bool {
		return func(r *http.Request) bool {
			return r.Method == method && strings.Contains(r.URL.Path, ".chkpin-doctor-")
		}
	}
	asks := func(what string) func(*http.Request) bool {
		return func(r *http.Request) bool { return r.URL.Query().Has(what) }
	}
	for name, c := range map[string]struct {
		matches  func(*http.Request) bool
		fault    faults.Fault
		check    string
		severity severity
		evidence string
		exit     outcome
		left     int // probes
	}{
		"all rights":       {asks("nothing"), refused, "permissions", healthy, "listing, writing, reading and deleting", done, 0},
		"no listing":       {asks("list-type"), refused, "permissions", severe, "list s3://bucket/app/last-state: permission denied", denied, 0},
		"no writing":       {probes("PUT"), refused, "permissions", severe, "put s3://bucket/app/last-state/.chkpin-doctor-", denied, 0},
		"no reading":       {probes("GET"), refused, "permissions", severe, "open s3://bucket/app/last-state/.chkpin-doctor-", denied, 0},
		"no deleting":      {probes("DELETE"), refused, "permissions", severe, "delete s3://bucket/app/last-state/.chkpin-doctor-", denied, 1},
		"rules are secret": {asks("lifecycle"), refused, "lifecycle", noted, "could not be read", done, 0},
		"pins expire":      {asks("lifecycle"), expiring, "lifecycle", severe, `rule "tidy" on keys below "app/" deletes after 30 days`, misused, 0},
		"versions pile up": {asks("versioning"), versioned, "versioning", noted, "goes on costing", done, 0},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := faults.Start(t, server.URL)
			proxy.Inject(100, c.matches, c.fault)
			code, result := runDoctor(t, "s3://bucket/app", "--s3-endpoint", proxy.URL, "--s3-path-style")
			f := one(t, result.Findings, c.check)
			assert.Equal(t, c.severity, f.Severity)
			assert.Contains(t, f.Evidence, c.evidence)
			assert.Equal(t, c.exit.code, code)
			assert.Len(t, clearBucket(t, server), c.left)
		})
	}
}

// heedless is a service that writes whatever the conditions are.
type heedless struct{ blobstore.Store }

func (h heedless) Put(ctx context.Context, u blobstore.URI, body io.Reader, _ blobstore.PutOptions) (blobstore.Object, error) {
	return h.Store.Put(ctx, u, body, blobstore.PutOptions{})
}

func TestTryRights(t *testing.T) {
	root := blobstore.MustParse("s3://bucket/app/last-state")
	store := blobstore.NewMemory()
	p := tryRights(t.Context(), store, root)
	assert.NoError(t, p.write)
	assert.NoError(t, p.read)
	assert.NoError(t, p.remove)
	assert.False(t, p.unconditional)
	assert.False(t, p.modTime.IsZero())
	assert.True(t, blobstore.IsTemporary(p.object), "gc removes the probe of a doctor that was killed")
	assert.True(t, tryRights(t.Context(), heedless{store}, root).unconditional)
	assert.True(t, isEmpty(t.Context(), store, root), "probes are gone")
}

// clearBucket deletes what is in the bucket, and says what that was.
func clearBucket(t *testing.T, server servers.S3) (found []blobstore.Object) {
	t.Helper()
	store := s3store.New(s3store.Config{Endpoint: server.URL, PathStyle: true})
	for o, err := range store.List(t.Context(), blobstore.MustParse("s3://bucket"), blobstore.ListOptions{}) {
		require.NoError(t, err)
		found = append(found, o)
		require.NoError(t, store.Delete(t.Context(), o.URI))
	}
	return found
}

func runDoctor(t *testing.T, args ...string) (code int, result doctorResult) {
	t.Helper()
	var out bytes.Buffer
	command, env, err := parse(append([]string{"doctor", "--output", "json"}, args...), &out, io.Discard)
	require.NoError(t, err)
	err = command.Run(t.Context(), env)
	require.NoError(t, json.Unmarshal(out.Bytes(), &result), "%s", &out)
	return exitCode(t.Context(), err, io.Discard), result
}

func expiring(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	io.WriteString(w, `<LifecycleConfiguration><Rule><ID>tidy</ID><Status>Enabled</Status><Filter><Prefix>app/</Prefix></Filter>
		<Expiration><Days>30</Days></Expiration></Rule></LifecycleConfiguration>`) //nolint:errcheck // the client's to notice
}

func versioned(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	io.WriteString(w, `<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>`) //nolint:errcheck // the client's to notice
}
