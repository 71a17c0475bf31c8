package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/s3store"
	"github.com/chkpin/chkpin/blobstore/storetest/faults"
	"github.com/chkpin/chkpin/blobstore/storetest/servers"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/cmd/chkpin/sample"
	"github.com/chkpin/chkpin/flinkrest/replay"
)

//go:embed script.sh
var script []byte

const (
	bucket      = "bucket"
	checkpoints = "s3://bucket/checkpoints" // of all jobs
	fileSize    = 1024
)

// site is a job with its checkpoints in S3, and the programs that look after
// them, all on the loopback.
type site struct {
	dir    string
	server servers.S3
	store  blobstore.Store // past the proxy: what Flink does is not counted
	jm     *replay.JobManager
	s3     *faults.Proxy
	rest   *faults.Proxy
	next   int64    // checkpoint
	stops  []func() // in the order of starting

	chkpin, bare, meter string
	bin                 string // of the yardsticks
}

// newSite starts everything in dir.
func newSite(ctx context.Context, dir, chkpin string) (s *site, err error) {
	s = &site{dir: dir, chkpin: chkpin, next: 100}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if s.meter, s.bare, err = build(ctx, dir); err != nil {
		return s, err
	}
	if s.bin, err = installYardsticks(ctx); err != nil {
		return s, err
	}
	if err := os.WriteFile(s.scriptPath(), script, 0o755); err != nil {
		return s, err
	}
	data := filepath.Join(dir, "s3")
	if err := os.Mkdir(data, 0o755); err != nil {
		return s, err
	}
	// S3 keeps connections; versitygw by default does not.
	server, stop, err := servers.StartVersityGW(data, []string{bucket}, "--keep-alive")
	if err != nil {
		return s, err
	}
	s.server, s.stops = server, append(s.stops, stop)
	s.store = s3store.New(s3store.Config{
		Endpoint: server.URL, PathStyle: true, Region: "us-east-1", AccessKey: server.AccessKey, SecretKey: server.SecretKey,
	})
	if err := s.startJobManager(); err != nil {
		return s, err
	}
	s.s3, err = s.proxy(server.URL)
	return s, err
}

func (s *site) startJobManager() error {
	recorded, err := sample.Unpack(filepath.Join(s.dir, "sample"))
	if err != nil {
		return err
	}
	if s.jm, err = recorded.JobManager(); err != nil {
		return err
	}
	web := httptest.NewServer(s.jm)
	s.stops = append(s.stops, web.Close)
	s.rest, err = s.proxy(web.URL)
	return err
}

func (s *site) proxy(target string) (*faults.Proxy, error) {
	p, stop, err := faults.Listen(target)
	if err == nil {
		s.stops = append(s.stops, stop)
	}
	return p, err
}

func (s *site) stop() {
	for _, stop := range slices.Backward(s.stops) {
		stop()
	}
}

func (s *site) scriptPath() string { return filepath.Join(s.dir, "script.sh") }

// program is a command line that reaches S3 at an endpoint, and finds nothing
// else to configure it with.
func (s *site) program(endpoint string, args ...string) program {
	return program{meter: s.meter, args: args, env: []string{
		"PATH=" + s.bin + string(os.PathListSeparator) + os.Getenv("PATH"),
		"HOME=" + s.dir, "TMPDIR=" + s.dir,
		"AWS_ACCESS_KEY_ID=" + s.server.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.server.SecretKey,
		"AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ENDPOINT_URL=" + endpoint, "S3_ENDPOINT_URL=" + endpoint,
		"RCLONE_CONFIG_S3_TYPE=s3", "RCLONE_CONFIG_S3_PROVIDER=Other", "RCLONE_CONFIG_S3_ENV_AUTH=true", "RCLONE_CONFIG_S3_ENDPOINT=" + endpoint,
		"CHKPIN_S3_ENDPOINT=" + endpoint, "CHKPIN_S3_PATH_STYLE=true",
	}}
}

func (s *site) pin(app string) program {
	return s.program(s.s3.URL, s.chkpin, "pin", app, s.rest.URL)
}

func (s *site) copyByScript(app string) program {
	return s.program(s.s3.URL, s.scriptPath(), s.rest.URL, checkpoints, app)
}

// folder is the job's own.
func (s *site) folder() string { return checkpoints + "/" + s.jm.JobID() }

// complete lets the job take its next checkpoint, of these files.
func (s *site) complete(ctx context.Context, files []string) error {
	s.next++
	path := fmt.Sprintf("%s/chk-%d", s.folder(), s.next)
	if err := s.put(ctx, path+"/"+checkpoint.MetadataName, sample.Incremental(s.next, files, fileSize)); err != nil {
		return err
	}
	return s.jm.Complete(s.next, path)
}

func (s *site) put(ctx context.Context, uri string, data []byte) error {
	u, err := blobstore.Parse(uri)
	if err == nil {
		_, err = s.store.Put(ctx, u, bytes.NewReader(data), blobstore.PutOptions{})
	}
	return err
}

// write makes n state files below a folder, and returns their names.
func (s *site) write(ctx context.Context, folder string, n int) ([]string, error) {
	data := bytes.Repeat([]byte("state..."), fileSize/8)
	files := make([]string, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range files {
		files[i] = fmt.Sprintf("%s/%08x-4a1b-4c2d-8e3f-%012x", folder, i, i)
		g.Go(func() error { return s.put(ctx, files[i], data) })
	}
	return files, g.Wait()
}

// remove deletes all below a folder, behind the server's back.
func (s *site) remove(folder string) error {
	u, err := blobstore.Parse(folder)
	if err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(s.server.Dir, bucket, filepath.FromSlash(u.Key())))
}

// prove says whether a pin restores: every one of its files is there.
func (s *site) prove(ctx context.Context, app string, files int) error {
	u, err := blobstore.Parse(app)
	if err != nil {
		return err
	}
	pinned, err := checkpoint.Load(ctx, s.store, u.Join("last-state"), checkpoint.LoadOptions{})
	if err != nil {
		return err
	}
	report, err := checkpoint.Verify(ctx, s.store, pinned)
	if err != nil {
		return err
	}
	if report.Files != files {
		err = fmt.Errorf("%s names %d files, not %d", app, report.Files, files)
	}
	return errors.Join(err, report.Err(u))
}

// latency is what each counted request takes. It keeps requests that were sent at
// once under way at once, also on a busy machine.
const latency = 50 * time.Millisecond

// traffic is what one run asked for.
type traffic struct{ s3, steps, heads, rest int }

func (t traffic) String() string {
	return fmt.Sprintf("%d S3 in %d steps, %d REST", t.s3, t.steps, t.rest)
}

// count runs a program once and counts its requests.
func (s *site) count(ctx context.Context, p program) (t traffic, err error) {
	s.forget()
	s.s3.Latency = latency
	_, err = p.run(ctx)
	s.s3.Latency = 0
	for _, r := range s.s3.Requests() {
		t.s3++
		t.steps = max(t.steps, r.Step)
		if r.Method == "HEAD" {
			t.heads++
		}
	}
	t.rest = len(s.rest.Requests())
	return t, err
}

func (s *site) forget() {
	s.s3.Requests()
	s.rest.Requests()
}
