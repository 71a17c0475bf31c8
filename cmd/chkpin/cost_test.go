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
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/s3store"
	"github.com/chkpin/chkpin/blobstore/storetest/faults"
	"github.com/chkpin/chkpin/blobstore/storetest/servers"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/checkpoint/metadata"
	"github.com/chkpin/chkpin/cmd/chkpin/sample"
	"github.com/chkpin/chkpin/flinkrest"
	"github.com/chkpin/chkpin/flinkrest/replay"
)

// s3Job is the sample's job with its checkpoints in S3, and a tick of it whose
// requests are counted.
type s3Job struct {
	*testing.T
	sample sample.Sample
	jm     *replay.JobManager
	direct blobstore.Store // past the proxy: what Flink does is not counted
	s3     *faults.Proxy
	rest   *faults.Proxy
	job    restJob
	store  blobstore.Store
}

const s3App = "s3://bucket/orders"

func newS3Job(t *testing.T) *s3Job {
	s, err := sample.Unpack(t.TempDir())
	require.NoError(t, err)
	jm, err := s.JobManager()
	require.NoError(t, err)
	web := httptest.NewServer(jm)
	t.Cleanup(web.Close)
	server := servers.FakeS3(t, "bucket")
	config := s3store.Config{Endpoint: server.URL, PathStyle: true, Region: "us-east-1", AccessKey: server.AccessKey, SecretKey: server.SecretKey}
	j := &s3Job{T: t, sample: s, jm: jm, direct: s3store.New(config), s3: faults.Start(t, server.URL), rest: faults.Start(t, web.URL)}
	config.Endpoint = j.s3.URL
	j.store = s3store.New(config)
	client, err := flinkrest.New(flinkrest.Config{URL: j.rest.URL})
	require.NoError(t, err)
	j.job = restJob{client: client}
	j.upload()
	return j
}

// upload puts what the sample holds where a job with checkpoints in S3 has it,
// and tells the JobManager.
func (j *s3Job) upload() {
	j.Helper()
	const ck = "s3://bucket/checkpoints"
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
func (j *s3Job) completes() {
	j.Helper()
	require.NoError(j, j.sample.Complete())
	require.NoError(j, j.jm.Complete(j.sample.Checkpoint, j.sample.Path()))
	j.upload()
}

// tick pins, and returns the outcome with the requests to S3 and to the
// JobManager.
func (j *s3Job) tick(replicas ...blobstore.URI) (p checkpoint.Pinned, s3, rest []faults.Request) {
	j.Helper()
	j.s3.Requests()
	j.rest.Requests()
	p, err := checkpoint.Pin(j.Context(), j.store, blobstore.MustParse(s3App), j.job, checkpoint.PinOptions{Replicas: replicas})
	require.NoError(j, err)
	return p, j.s3.Requests(), j.rest.Requests()
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

func listings(r faults.Request) bool { return r.Query.Has("list-type") }

// A tick costs the same however much history there is: these numbers are what
// the README promises.
func TestCostOfATick(t *testing.T) {
	for _, history := range []int{0, 3000} {
		t.Run(fmt.Sprintf("%d objects of history", history), func(t *testing.T) {
			j := newS3Job(t)
			for i := range history {
				u := blobstore.MustParse(fmt.Sprintf("s3://bucket/checkpoints/old/shared/%05d", i))
				_, err := j.direct.Put(t.Context(), u, bytes.NewReader(nil), blobstore.PutOptions{})
				require.NoError(t, err)
			}
			p, _, _ := j.tick()
			require.Equal(t, 10, p.Copied)
			j.s3.Latency, j.rest.Latency = 20*time.Millisecond, 0

			p, s3, rest := j.tick()
			require.Equal(t, checkpoint.ResultUnchanged, p.Result)
			assert.Len(t, s3, 2, "unchanged: %v", s3)
			assert.Equal(t, 1, steps(s3), "unchanged")
			assert.Len(t, rest, 2, "unchanged")

			j.completes()
			p, s3, rest = j.tick()
			require.Equal(t, checkpoint.ResultPinned, p.Result)
			assert.Equal(t, 4, p.Copied)
			assert.Len(t, s3, 8+p.Copied+1+1, "changed: 8, the copies, the pinned metadata, one page of files: %v", s3)
			assert.Equal(t, 1, count(s3, listings))
			assert.Equal(t, 1, count(s3, func(r faults.Request) bool { return r.Method == "HEAD" }), "only of last-state/_metadata")
			assert.Len(t, rest, 2, "changed")
		})
	}
}

// A replica that is up to date costs a tick one request, whatever is in it.
func TestCostOfAReplica(t *testing.T) {
	j := newS3Job(t)
	replicas := []blobstore.URI{blobstore.MustParse("s3://bucket/second"), blobstore.MustParse("s3://bucket/third")}
	p, _, _ := j.tick(replicas...)
	require.Equal(t, checkpoint.ResultPinned, p.Replicas[1].Result)
	j.s3.Latency = 20 * time.Millisecond

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
	j := newS3Job(t)
	inline := inlineCheckpoint(t)
	publish := func(id int64) {
		u := blobstore.MustParse(fmt.Sprintf("s3://bucket/checkpoints/%s/chk-%d", j.sample.JobID, id))
		_, err := j.direct.Put(t.Context(), u.Join(checkpoint.MetadataName), bytes.NewReader(withID(inline, id)), blobstore.PutOptions{})
		require.NoError(t, err)
		require.NoError(t, j.jm.Complete(id, u.String()))
	}
	publish(7)
	j.tick()
	publish(8)
	j.s3.Latency = 20 * time.Millisecond
	p, s3, rest := j.tick()
	require.Equal(t, checkpoint.ResultPinned, p.Result)
	assert.LessOrEqual(t, len(s3), 8, "%v", s3)
	assert.LessOrEqual(t, steps(s3), 6, "%v", s3)
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
