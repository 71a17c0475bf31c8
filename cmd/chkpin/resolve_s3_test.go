package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/storetest/faults"
)

// Who may only read the pin (manifests/iam/resolve.json) may start for the first
// time, too: S3 denies a look at what is beside it.
func TestFirstStartWithTheRightsOfResolve(t *testing.T) {
	j := newCloudJob(t, inS3(t))
	app := blobstore.MustParse(j.root + "/new")
	j.cloud.Requests()
	j.cloud.Inject(1, func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/new/_metadata") }, faults.Answer(http.StatusForbidden, "AccessDenied"))
	require.NoError(t, (&environment{store: j.store}).checkApps(t.Context(), []blobstore.URI{app}))
	assert.Len(t, j.cloud.Requests(), 1)
}
