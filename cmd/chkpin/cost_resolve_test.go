package main

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/storetest/faults"
	"github.com/chkpin/chkpin/checkpoint"
)

// A start waits for resolve, so looking for more than the pin lists folders and
// never walks the files of a job.
func TestCostOfResolving(t *testing.T) {
	j := newCloudJob(t, inS3(t))
	j.tick()
	j.completes()
	for i := range 1100 { // more than a page
		u := blobstore.MustParse(fmt.Sprintf("s3://bucket/checkpoints/%s/taskowned/%05d", j.sample.JobID, i))
		_, err := j.direct.Put(t.Context(), u, bytes.NewReader(nil), blobstore.PutOptions{})
		require.NoError(t, err)
	}
	app := j.root + "/orders"
	resolve := func(opts checkpoint.ResolveOptions) (checkpoint.Resolved, []faults.Request) {
		j.cloud.Requests()
		r, err := checkpoint.Resolve(t.Context(), j.store, blobstore.MustParse(app), opts)
		require.NoError(t, err)
		return r, j.cloud.Requests()
	}

	r, s3 := resolve(checkpoint.ResolveOptions{})
	assert.Equal(t, app+"/last-state/_metadata", r.Path.String())
	assert.Len(t, s3, 3, "pin.json, _metadata, a page of files: %v", s3)

	r, s3 = resolve(checkpoint.ResolveOptions{
		Checkpoints: []blobstore.URI{blobstore.MustParse("s3://bucket/checkpoints")},
		Savepoints:  []blobstore.URI{blobstore.MustParse("s3://bucket/savepoints")},
	})
	assert.Equal(t, "s3://bucket/checkpoints/"+j.sample.JobID+"/chk-7/_metadata", r.Path.String())
	assert.Equal(t, []string{"nothing is at s3://bucket/savepoints: is it the right folder, and the volume mounted?"}, r.Warnings)
	assert.Len(t, s3, 14, "%v", s3)
}
