package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
)

// On S3 the tag of what is rolled back to is the one that it had when it was
// published first: the digest of the same bytes.
func TestRollbackOnS3(t *testing.T) {
	j := newCloudJob(t, inS3(t))
	j.tick()
	j.completes()
	j.tick()
	app := blobstore.MustParse(j.root + "/orders")
	j.cloud.Requests()
	r, err := checkpoint.Rollback(t.Context(), j.store, app, checkpoint.RollbackOptions{})
	require.NoError(t, err)
	assert.Equal(t, "00000001-chk-6", r.Generation)
	requests := j.cloud.Requests()
	assert.Len(t, requests, 12, "%v", requests)

	j.completes()
	_, err = checkpoint.Pin(t.Context(), j.store, app, j.job, checkpoint.PinOptions{})
	require.ErrorAs(t, err, new(*checkpoint.HeldError))
	s, err := checkpoint.Load(t.Context(), j.direct, app.Join("last-state"), checkpoint.LoadOptions{})
	require.NoError(t, err)
	assert.EqualValues(t, 6, s.CheckpointID)
	report, err := checkpoint.Verify(t.Context(), j.direct, s)
	require.NoError(t, err)
	assert.True(t, report.OK())

	_, err = checkpoint.Release(t.Context(), j.store, app, checkpoint.RollbackOptions{})
	require.NoError(t, err)
	p, _, _ := j.tick()
	assert.Equal(t, "00000003-chk-8", p.Generation)
}
