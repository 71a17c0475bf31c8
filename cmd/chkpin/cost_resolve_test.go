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
	j := newS3Job(t)
	j.tick()
	j.completes()
	for i := range 1100 { // more than a page
		u := blobstore.MustParse(fmt.Sprintf("s3://bucket/checkpoints/%s/taskowned/%05d", j.sample.JobID, i))
		_, err := j.direct.Put(t.Context(), u, bytes.NewReader(nil), blobstore.PutOptions{})
		require.NoError(t, err)
	}
	resolve := func(opts checkpoint.ResolveOptions) (checkpoint.Resolved, []faults.Request) {
		j.s3.Requests()
		r, err := checkpoint.Resolve(t.Context(), j.store, blobstore.MustParse(s3App), opts)
		require.NoError(t, err)
		return r, j.s3.Requests()
	}

	r, s3 := resolve(checkpoint.ResolveOptions{})
	assert.Equal(t, s3App+"/last-state/_metadata", r.Path.String())
	assert.Len(t, s3, 3, "pin.json, _metadata, a page of files: %v", s3)

	r, s3 = resolve(checkpoint.ResolveOptions{
		Checkpoints: []blobstore.URI{blobstore.MustParse("s3://bucket/checkpoints")},
		Savepoints:  []blobstore.URI{blobstore.MustParse("s3://bucket/savepoints")},
	})
	assert.Equal(t, "s3://bucket/checkpoints/"+j.sample.JobID+"/chk-7/_metadata", r.Path.String())
	assert.Equal(t, []string{"nothing is at s3://bucket/savepoints: is it the right folder, and the volume mounted?"}, r.Warnings)
	assert.Len(t, s3, 14, "%v", s3)
}
