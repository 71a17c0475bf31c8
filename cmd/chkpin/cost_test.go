package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/azstore"
	"github.com/chkpin/chkpin/blobstore/s3store"
	"github.com/chkpin/chkpin/blobstore/storetest/faults"
	"github.com/chkpin/chkpin/blobstore/storetest/servers"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/checkpoint/metadata"
	"github.com/chkpin/chkpin/cmd/chkpin/sample"
	"github.com/chkpin/chkpin/flinkjob"
	"github.com/chkpin/chkpin/flinkrest"
	"github.com/chkpin/chkpin/flinkrest/replay"
)

// cloudJob is the sample's job with its checkpoints in a cloud, and a tick of it
// whose requests are counted.
type cloudJob struct {
	*testing.T
	sample sample.Sample
	jm     *replay.JobManager
	root   string          // a bucket
	direct blobstore.Store // past the proxy: what Flink does is not counted
	cloud  *faults.Proxy
	rest   *faults.Proxy
	job    flinkjob.Job
	store  blobstore.Store
}

// cloud is a server, and a store that reaches it at any URL.
type cloud struct {
	root string
	url  string
	open func(url string) blobstore.Store
}

func inS3(t *testing.T) cloud {
	server := servers.FakeS3(t, "bucket")
	return cloud{"s3://bucket", server.URL, func(url string) blobstore.Store {
		return s3store.New(s3store.Config{Endpoint: url, PathStyle: true, Region: "us-east-1", AccessKey: server.AccessKey, SecretKey: server.SecretKey})
	}}
}

func inAzure(t *testing.T) cloud {
	server := servers.Azurite(t, "bucket")
	return cloud{"wasb://bucket@storageemulator", server.URL, func(url string) blobstore.Store {
		return azstore.New(azstore.Config{Endpoint: url})
	}}
}

func newCloudJob(t *testing.T, in cloud) *cloudJob {
	s, err := sample.Unpack(t.TempDir())
	require.NoError(t, err)
	jm, err := s.JobManager()
	require.NoError(t, err)
	web := httptest.NewServer(jm)
	t.Cleanup(web.Close)
	j := &cloudJob{T: t, sample: s, jm: jm, root: in.root, direct: in.open(in.url), cloud: faults.Start(t, in.url), rest: faults.Start(t, web.URL)}
	j.store = in.open(j.cloud.URL)
	client, err := flinkrest.New(flinkrest.Config{URL: j.rest.URL})
	require.NoError(t, err)
	j.job = flinkjob.Job{Client: client}
	j.upload()
	return j
}

// upload puts what the sample holds where a job with checkpoints in the cloud has
// it, and tells the JobManager.
func (j *cloudJob) upload() {
	j.Helper()
	ck := j.root + "/checkpoints"
	require.NoError(j, filepath.WalkDir(j.sample.Dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if d.Name() == checkpoint.MetadataName {
			f, err := metadata.Parse(data)
			if err != nil {
				return err
			}
			data, err = f.Rewrite(func(h metadata.Handle) (metadata.Path, error) {
				path, err := h.Path()
				return metadata.Path{Text: strings.Replace(path, "file:"+j.sample.Dir, ck, 1), Relative: h.Kind == metadata.RelativeFile}, err
			})
			if err != nil {
				return err
			}
		}
		u := blobstore.MustParse(ck + strings.TrimPrefix(name, j.sample.Dir))
		_, err = j.direct.Put(j.Context(), u, bytes.NewReader(data), blobstore.PutOptions{})
		return err
	}))
	j.jm.Replace("file:"+j.sample.Dir, ck)
}

// completes lets the job take its next checkpoint.
func (j *cloudJob) completes() {
	j.Helper()
	require.NoError(j, j.sample.Complete())
	require.NoError(j, j.jm.Complete(j.sample.Checkpoint, j.sample.Path()))
	j.upload()
}

// tick pins, and returns the outcome with the requests to the cloud and to the
// JobManager.
func (j *cloudJob) tick(replicas ...blobstore.URI) (p checkpoint.Pinned, cloud, rest []faults.Request) {
	j.Helper()
	j.cloud.Requests()
	j.rest.Requests()
	p, err := checkpoint.Pin(j.Context(), j.store, blobstore.MustParse(j.root+"/orders"), j.job, checkpoint.PinOptions{Replicas: replicas})
	require.NoError(j, err)
	return p, j.cloud.Requests(), j.rest.Requests()
}

// steps is how many requests had to wait for one before them.
func steps(requests []faults.Request) (n int) {
	for _, r := range requests {
		n = max(n, r.Step)
	}
	return n
}

func count(requests []faults.Request, match func(faults.Request) bool) (n int) {
	for _, r := range requests {
		if match(r) {
			n++
		}
	}
	return n
}

func listings(r faults.Request) bool {
	return r.Query.Has("list-type") || r.Query.Get("comp") == "list"
}

// A tick costs the same however much history there is: these numbers are what
// the README promises.
func TestCostOfATick(t *testing.T) {
	for _, c := range []struct {
		name    string
		in      func(*testing.T) cloud
		history int
	}{{"S3", inS3, 0}, {"S3 with 3000 objects of history", inS3, 3000}, {"Azure", inAzure, 0}} {
		t.Run(c.name, func(t *testing.T) {
			j := newCloudJob(t, c.in(t))
			for i := range c.history {
				u := blobstore.MustParse(fmt.Sprintf("%s/checkpoints/old/shared/%05d", j.root, i))
				_, err := j.direct.Put(t.Context(), u, bytes.NewReader(nil), blobstore.PutOptions{})
				require.NoError(t, err)
			}
			p, _, _ := j.tick()
			require.Equal(t, 10, p.Copied)
			j.cloud.Together(2)

			p, requests, rest := j.tick()
			require.Equal(t, checkpoint.ResultUnchanged, p.Result)
			assert.Len(t, requests, 2, "unchanged: %v", requests)
			assert.Equal(t, 1, steps(requests), "unchanged")
			assert.Len(t, rest, 2, "unchanged")

			j.completes()
			p, requests, rest = j.tick()
			require.Equal(t, checkpoint.ResultPinned, p.Result)
			assert.Equal(t, 4, p.Copied)
			assert.Len(t, requests, 8+p.Copied+1+1, "changed: 8, the copies, the pinned metadata, one page of files: %v", requests)
			assert.Equal(t, 1, count(requests, listings))
			assert.Equal(t, 1, count(requests, func(r faults.Request) bool { return r.Method == "HEAD" }), "only of last-state/_metadata")
			assert.Len(t, rest, 2, "changed")
		})
	}
}

// A replica that is up to date costs a tick one request, whatever is in it.
func TestCostOfAReplica(t *testing.T) {
	j := newCloudJob(t, inS3(t))
	replicas := []blobstore.URI{blobstore.MustParse("s3://bucket/second"), blobstore.MustParse("s3://bucket/third")}
	p, _, _ := j.tick(replicas...)
	require.Equal(t, checkpoint.ResultPinned, p.Replicas[1].Result)
	j.cloud.Together(2, len(replicas))

	p, s3, rest := j.tick(replicas...)
	require.Equal(t, checkpoint.ResultUnchanged, p.Result)
	require.Equal(t, checkpoint.ResultUnchanged, p.Replicas[0].Result)
	assert.Len(t, s3, 2+len(replicas))
	assert.Equal(t, 2, steps(s3), "both replicas at once")
	assert.Len(t, rest, 2)

	j.completes()
	p, s3, _ = j.tick(replicas[0])
	require.Equal(t, checkpoint.ResultPinned, p.Replicas[0].Result)
	own := 8 + p.Copied + 1 + 1
	assert.LessOrEqual(t, len(s3)-own, p.Copied+15)
	assert.Equal(t, 1+2, count(s3, listings), "of the replica's files before and after")
}

// State that is all inside _metadata needs no file at all.
func TestCostOfATickWithoutFiles(t *testing.T) {
	j := newCloudJob(t, inS3(t))
	inline := inlineCheckpoint(t)
	publish := func(id int64) {
		u := blobstore.MustParse(fmt.Sprintf("%s/checkpoints/%s/chk-%d", j.root, j.sample.JobID, id))
		_, err := j.direct.Put(t.Context(), u.Join(checkpoint.MetadataName), bytes.NewReader(withID(inline, id)), blobstore.PutOptions{})
		require.NoError(t, err)
		require.NoError(t, j.jm.Complete(id, u.String()))
	}
	publish(7)
	j.tick()
	publish(8)
	j.cloud.Together(2, 2)
	p, requests, rest := j.tick()
	require.Equal(t, checkpoint.ResultPinned, p.Result)
	assert.LessOrEqual(t, len(requests), 8, "%v", requests)
	assert.LessOrEqual(t, steps(requests), 6, "%v", requests)
	assert.Len(t, rest, 2)
}

// inlineCheckpoint is a real one of Flink 1.20.5 that names no files.
func inlineCheckpoint(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile("../../checkpoint/metadata/testdata/1.20.5-hashmap-inline/_metadata")
	require.NoError(t, err)
	return data
}

// withID changes the checkpoint id, the first number after magic and version.
func withID(data []byte, id int64) []byte {
	data = bytes.Clone(data)
	data[8+7] = byte(id)
	return data
}
