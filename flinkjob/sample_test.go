package flinkjob_test

import (
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/cmd/chkpin/sample"
	"github.com/chkpin/chkpin/flinkjob"
	"github.com/chkpin/chkpin/flinkrest"
	"github.com/chkpin/chkpin/flinkrest/replay"
)

// sampleFlink is a job that runs, on a volume of its own: what the examples take
// from the world. Its methods panic, since an example has nothing to fail.
type sampleFlink struct {
	url        string // of the JobManager
	root, app  blobstore.URI
	dir        string
	sample     sample.Sample
	jobManager *replay.JobManager
	server     *httptest.Server
}

func startSample() *sampleFlink {
	dir := must(os.MkdirTemp("", "chkpin-example-"))
	root := must(blobstore.Parse("file://" + filepath.ToSlash(dir)))
	s := must(sample.Unpack(filepath.Join(dir, "checkpoints")))
	jm := must(s.JobManager())
	server := httptest.NewServer(jm)
	return &sampleFlink{server.URL, root, root.Join("orders"), dir, s, jm, server}
}

func (f *sampleFlink) stop() {
	f.server.Close()
	check(os.RemoveAll(f.dir))
}

func (f *sampleFlink) job() flinkjob.Job {
	return flinkjob.Job{Client: must(flinkrest.New(flinkrest.Config{URL: f.url}))}
}

func (f *sampleFlink) pin(ctx context.Context, store blobstore.Store) {
	must(checkpoint.Pin(ctx, store, f.app, f.job(), checkpoint.PinOptions{}))
}

// completes is the job's next checkpoint.
func (f *sampleFlink) completes() {
	check(f.sample.Complete())
	check(f.jobManager.Complete(f.sample.Checkpoint, f.sample.Path()))
}

// deleted: Flink, or somebody, deleted a folder below the root.
func (f *sampleFlink) deleted(folder ...string) {
	check(os.RemoveAll(filepath.Join(append([]string{f.dir}, folder...)...)))
}

// below is a path as it is below the volume's root.
func (f *sampleFlink) below(path string) string {
	_, rest, _ := strings.Cut(path, filepath.Base(f.dir)+"/")
	return rest
}

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
