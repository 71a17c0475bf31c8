package main

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/storetest/faults"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/checkpoint/metadata"
)

// uploadJobs puts a checkpoint of each of n jobs into S3, with its files in the job's folder.
func (j *cloudJob) uploadJobs(n int) {
	j.Helper()
	files := map[string][]byte{}
	folder := blobstore.MustParse("s3://bucket/checkpoints/" + j.sample.JobID)
	for o, err := range j.direct.List(j.Context(), folder, blobstore.ListOptions{}) {
		require.NoError(j, err)
		data, _, err := blobstore.ReadAll(j.Context(), j.direct, o.URI, 0)
		require.NoError(j, err)
		rel, _ := o.URI.Rel(folder)
		files[rel] = data
	}
	g, ctx := errgroup.WithContext(j.Context())
	for i := range n {
		job := folder.Dir().Join(fmt.Sprintf("%032x", i))
		g.Go(func() error {
			for rel, data := range files {
				if err := j.uploadOf(ctx, folder, job, rel, data); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(j, g.Wait())
}

func (j *cloudJob) uploadOf(ctx context.Context, from, to blobstore.URI, rel string, data []byte) error {
	if u := to.Join(rel); u.Base() == checkpoint.MetadataName {
		f, err := metadata.Parse(data)
		if err != nil {
			return err
		}
		data, err = f.Rewrite(func(h metadata.Handle) (metadata.Path, error) {
			path, err := h.Path()
			if err != nil || h.Kind == metadata.RelativeFile {
				return metadata.Path{Text: path, Relative: true}, err
			}
			rel, _ := blobstore.MustParse(path).Rel(from)
			return metadata.Path{Text: to.Join(rel).String()}, nil
		})
		if err != nil {
			return err
		}
	}
	_, err := j.direct.Put(ctx, to.Join(rel), bytes.NewReader(data), blobstore.PutOptions{})
	return err
}

// A job costs a listing of its folder, its metadata, and a look at where its files are; the first line comes after one
// job, and the others are proved at once.
func TestCostOfAListing(t *testing.T) {
	const jobs, others = 40, 1500
	j := newCloudJob(t, inS3(t))
	j.uploadJobs(jobs)
	for i := range others {
		u := blobstore.MustParse(fmt.Sprintf("s3://bucket/checkpoints/%s/shared/%08x", j.sample.JobID, uint32(i)*2654435761)) // evenly spread, as UUIDs are
		_, err := j.direct.Put(t.Context(), u, bytes.NewReader(nil), blobstore.PutOptions{})
		require.NoError(t, err)
	}
	j.cloud.Requests()
	j.cloud.Latency = 20 * time.Millisecond

	lines, first := 0, 0
	for f, err := range checkpoint.List(t.Context(), j.store, blobstore.MustParse("s3://bucket/checkpoints"), checkpoint.ListOptions{}) {
		require.NoError(t, err)
		require.NoError(t, f.Err, f.URI.String())
		if lines++; lines == 1 {
			first = len(j.cloud.Requests())
		}
	}
	rest := j.cloud.Requests()
	require.Equal(t, jobs+1, lines)
	// The two files in chk-6 are asked for one by one.
	const each = 1 + 1 + 1 + 2
	assert.LessOrEqual(t, first+len(rest), 1+(jobs+1)*each+1, "one more page of the folder with %d files", others)
	assert.LessOrEqual(t, first, 1+12*each, "the first line waits for one job, and some others are under way")
	assert.LessOrEqual(t, count(rest, func(r faults.Request) bool { return r.Method == "HEAD" }), 2*(jobs+1))
}
