package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/deploy"
	"github.com/chkpin/chkpin/flinkrest"
)

// chkpin is killed after its k-th call to the store, to the JobManager or of the command, for every k. Then
// the job runs on, or ends; and a second deploy ends right: one job, the wanted one, and no state is lost.
func TestDeployIsKilled(t *testing.T) {
	t.Parallel()
	for _, scenario := range []struct {
		name           string
		before, wanted deploy.Manifest // before has no name for a new job
		ended          bool            // the job before has, with a checkpoint
	}{
		{"new job", deploy.Manifest{}, ordersWith("SELECT a", "1"), false},
		{"settings changed", ordersWith("SELECT a", "1"), ordersWith("SELECT a", "2"), false},
		{"query changed", ordersWith("SELECT a", "1"), ordersWith("SELECT b", "1"), false},
		{"not running", ordersWith("SELECT a", "1"), ordersWith("SELECT a", "1"), true},
		{"not running, settings changed", ordersWith("SELECT a", "1"), ordersWith("SELECT a", "2"), true},
		{"not running, query changed", ordersWith("SELECT a", "1"), ordersWith("SELECT b", "1"), true},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			t.Parallel()
			for _, ends := range []bool{false, true} {
				for k, killed := 1, true; killed; k++ {
					x := newDeployLab(t)
					if scenario.before.Name != "" {
						x.deploys(scenario.before)
						x.session.checkpoint(x.session.jobs[0])
					}
					if scenario.ended {
						x.session.jobs[0].state = "CANCELED"
					}
					killed = x.isKilled(scenario.wanted, k)
					if ends {
						x.allEnd()
					}
					x.at = fmt.Sprintf("killed after call %d, the job ended: %t", k, ends)
					x.deploys(scenario.wanted)
					x.right(scenario.wanted)
					assert.NoFileExists(t, x.root.Join("manifests", "deploying", "orders.yaml").Path(), x.at)
				}
			}
		})
	}
}

// With high availability all jobs of an application have the same id: which one runs tells its start.
func TestDeployIsKilledWhereAllJobsHaveOneID(t *testing.T) {
	t.Parallel()
	for name, wanted := range map[string]deploy.Manifest{
		"settings changed": ordersWith("SELECT a", "2"),
		"query changed":    ordersWith("SELECT b", "1"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for k, killed := 1, true; killed; k++ {
				x := newDeployLab(t)
				x.session.oneID = true
				x.deploys(ordersWith("SELECT a", "1"))
				killed = x.isKilled(wanted, k)
				x.at = fmt.Sprintf("killed after call %d", k)
				x.deploys(wanted)
				require.Len(t, x.session.jobs, 2, "what runs as it should is not started again: %s", x.at)
				x.right(wanted)
			}
		})
	}
}

// What was wanted may be another thing by the time of the second deploy.
func TestDeployIsKilledAndSomethingElseIsWanted(t *testing.T) {
	t.Parallel()
	before, never, wanted := ordersWith("SELECT a", "1"), ordersWith("SELECT b", "1"), ordersWith("SELECT c", "1")
	for name, wanted := range map[string]deploy.Manifest{"the one before": before, "a third": wanted} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for k, killed := 1, true; killed; k++ {
				x := newDeployLab(t)
				x.deploys(before)
				x.session.checkpoint(x.session.jobs[0])
				killed = x.isKilled(never, k)
				x.at = fmt.Sprintf("killed after call %d", k)
				x.deploys(wanted)
				x.right(wanted)
			}
		})
	}
}

// The command of a chkpin that was killed lives on: its job is there only when the next deploy has waited.
func TestDeployIsKilledAndItsCommandIsNot(t *testing.T) {
	t.Parallel()
	wanted := ordersWith("SELECT b", "1")
	x := newDeployLab(t)
	x.deploys(ordersWith("SELECT a", "1"))
	ctx, kill := context.WithCancelCause(t.Context())
	var dead atomic.Bool
	first := x.deployer(func(_ int, do func() error) error {
		if dead.Load() {
			return errKilled
		}
		return do()
	})
	var command func()
	submit := first.Start
	first.Start = func(_ context.Context, s deploy.Start) error {
		command = func() { dead.Store(false); assert.NoError(t, submit(t.Context(), s)) }
		dead.Store(true)
		kill(errKilled)
		return errKilled
	}
	_, err := first.Deploy(ctx, x.placed(wanted))
	require.ErrorIs(t, err, errKilled)

	second := x.deployer(nil)
	second.Note = func(format string, _ ...any) {
		if strings.Contains(format, "waiting") {
			command()
		}
	}
	outcome, err := second.Deploy(t.Context(), x.placed(wanted))
	require.NoError(t, err)
	assert.Equal(t, deploy.Nothing, outcome.Kind)
	assert.Equal(t, 2, outcome.Version)
	require.Len(t, x.session.jobs, 2, "it was started once")
	x.right(wanted)
}

// Of two deploys at once one wins, and the other says so, whatever call of the first the second comes in at. The time is
// that of synctest: the first beats as long as the second waits.
func TestTwoDeploysAtOnce(t *testing.T) {
	t.Parallel()
	for k, came := 1, true; came; k++ {
		synctest.Test(t, func(t *testing.T) { came = secondComesAt(t, k) })
		if t.Failed() {
			return
		}
	}
}

// secondComesAt reports whether the first has a k-th call.
func secondComesAt(t *testing.T, k int) (came bool) {
	wanted := ordersWith("SELECT a", "2")
	x := newDeployLab(t)
	x.beat = time.Second // longer than a deploy takes, so that its calls are the same every time
	x.deploys(ordersWith("SELECT a", "1"))
	x.session.checkpoint(x.session.jobs[0])
	var second error
	first := x.deployer(func(n int, do func() error) error {
		if n == k {
			came = true
			other := x.deployer(nil)
			_, second = other.Deploy(t.Context(), x.placed(wanted))
		}
		return do()
	})
	_, err := first.Deploy(t.Context(), x.placed(wanted))
	x.at = fmt.Sprintf("the second came at call %d", k)
	if err != nil {
		require.ErrorIs(t, err, deploy.ErrOtherDeploy, x.at)
		require.NoError(t, second, x.at)
	}
	if second != nil {
		require.ErrorIs(t, second, deploy.ErrOtherDeploy, x.at)
	}
	x.right(wanted)
	require.Len(t, x.session.jobs, 2, "it was started once: %s", x.at)
	return came
}

// The answer to the k-th write is lost, and the store's client tries again, which has been done already: nobody else is
// at work.
func TestDeployAnswersAreLost(t *testing.T) {
	t.Parallel()
	for _, wanted := range []deploy.Manifest{ordersWith("SELECT a", "2"), ordersWith("SELECT b", "1")} {
		for k, lost := 1, true; lost; k++ {
			x := newDeployLab(t)
			x.deploys(ordersWith("SELECT a", "1"))
			x.session.checkpoint(x.session.jobs[0])
			d := x.deployer(nil)
			d.Beat = time.Hour // writes are the same every time
			store := &losing{Store: d.Store, at: k}
			d.Store = store
			_, err := d.Deploy(t.Context(), x.placed(wanted))
			x.at = fmt.Sprintf("the answer to write %d was lost", k)
			require.NoError(t, err, x.at)
			lost = store.lost
			x.right(wanted)
		}
	}
}

// A deploy that failed, or was told to end, says so to the next one, and does not wait for ever for storage that does
// not answer.
func TestDeployThatFailedEnds(t *testing.T) {
	t.Parallel()
	x := newDeployLab(t)
	d := x.deployer(nil)
	store := &bounded{Store: d.Store}
	d.Store, d.Beat = store, time.Hour
	ctx, cancel := context.WithCancelCause(t.Context())
	d.Start = func(context.Context, deploy.Start) error { cancel(errKilled); return errKilled }
	_, err := d.Deploy(ctx, x.placed(ordersWith("SELECT a", "1")))
	require.ErrorIs(t, err, errKilled)
	assert.True(t, store.last)
	x.deploys(ordersWith("SELECT a", "1"))
}

// bounded notes whether the last Put had a deadline.
type bounded struct {
	blobstore.Store
	last bool
}

func (s *bounded) Put(ctx context.Context, u blobstore.URI, body io.Reader, opts blobstore.PutOptions) (blobstore.Object, error) {
	_, s.last = ctx.Deadline()
	return s.Store.Put(ctx, u, body, opts)
}

// losing is a store whose client gets no answer to one of its Puts, and tries again.
type losing struct {
	blobstore.Store
	at   int
	lost bool

	mu sync.Mutex
	n  int
}

func (s *losing) Put(ctx context.Context, u blobstore.URI, body io.Reader, opts blobstore.PutOptions) (blobstore.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, err := io.ReadAll(body)
	if err != nil {
		return blobstore.Object{}, err
	}
	if s.n++; s.n == s.at {
		s.lost = true
		_, _ = s.Store.Put(ctx, u, bytes.NewReader(data), opts)
	}
	return s.Store.Put(ctx, u, bytes.NewReader(data), opts)
}

func ordersWith(sql, parallelism string) deploy.Manifest {
	return deploy.Manifest{Name: "orders", SQL: sql, Properties: map[string]string{"pipeline.name": "orders", "parallelism.default": parallelism}}
}

// deployLab is a session cluster, a folder for its state and one for manifests.
type deployLab struct {
	t       *testing.T
	root    blobstore.URI
	session *session
	beat    time.Duration
	at      string // what has happened, for messages
}

func newDeployLab(t *testing.T) *deployLab {
	dir := t.TempDir()
	return &deployLab{t: t, root: blobstore.MustParse("file://" + dir), session: &session{scratch: dir + "/scratch"}, beat: 5 * time.Millisecond}
}

// deployer deploys with calls that fail as fault says; nil means that they do not.
func (x *deployLab) deployer(fault func(n int, do func() error) error) *deploy.Deployer {
	calls := &numbered{fault: fault}
	client, err := flinkrest.New(flinkrest.Config{URL: "http://session", Transport: calls.transport(x.session), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(x.t, err)
	env := &environment{stderr: io.Discard}
	return &deploy.Deployer{
		Store:      &numberedStore{blobstore.NewFile(), calls},
		JobManager: &deployCluster{client: client, env: env, stopping: savepointFlags{Format: "canonical", StopTimeout: time.Minute}},
		Manifests:  x.root.Join("manifests"),
		Start: func(_ context.Context, s deploy.Start) error {
			return calls.call(func() error {
				properties := maps.Clone(s.Manifest.Properties)
				properties["query"] = s.Manifest.SQL
				x.session.mu.Lock()
				defer x.session.mu.Unlock()
				x.session.submit(submission{s.Restore.Path.String(), properties})
				return nil
			})
		},
		StartTimeout: time.Minute, Looks: 2, Interval: time.Millisecond, Beat: x.beat,
	}
}

func (x *deployLab) placed(m deploy.Manifest) deploy.Manifest {
	m.Properties = maps.Clone(m.Properties)
	require.NoError(x.t, m.Place(x.root))
	return m
}

func (x *deployLab) deploys(m deploy.Manifest) {
	_, err := x.deployer(nil).Deploy(x.t.Context(), x.placed(m))
	require.NoError(x.t, err, x.at)
}

var errKilled = errors.New("killed")

// isKilled deploys with a chkpin that is killed after its k-th call; it reports whether there was one. The answer to
// that call is lost.
func (x *deployLab) isKilled(m deploy.Manifest, k int) bool {
	var killed atomic.Bool // calls come at once, too
	ctx, kill := context.WithCancelCause(x.t.Context())
	defer kill(nil)
	d := x.deployer(func(n int, do func() error) error {
		switch {
		case n < k:
			return do()
		case n == k:
			_ = do()
		}
		killed.Store(true)
		kill(errKilled)
		return errKilled
	})
	d.Beat = time.Hour // calls are the same every time
	_, err := d.Deploy(ctx, x.placed(m))
	if !killed.Load() {
		require.NoError(x.t, err)
	}
	return killed.Load()
}

// allEnd: every job writes a checkpoint and ends.
func (x *deployLab) allEnd() {
	for _, j := range x.session.jobs {
		if j.live() {
			x.session.checkpoint(j)
			j.state = "FAILED"
		}
	}
}

// right: the wanted job runs, once; its manifest is stored; it goes on from the last state of the job of the same
// query that was there before, if there was one.
func (x *deployLab) right(wanted deploy.Manifest) {
	t := x.t
	var live []*sessionJob
	var first *sessionJob // of the query that runs without a break since
	for _, j := range x.session.jobs {
		if j.live() {
			live = append(live, j)
		}
		if j.Properties["query"] != wanted.SQL {
			first = nil
		} else if first == nil {
			first = j
		}
	}
	require.Len(t, live, 1, x.at)
	job := live[0]
	require.Equal(t, wanted.SQL, job.Properties["query"], x.at)
	require.Equal(t, wanted.Properties["parallelism.default"], job.Properties["parallelism.default"], x.at)
	origin := job
	for origin.origin != nil {
		require.Equal(t, wanted.SQL, origin.origin.Properties["query"], "never from the state of another query: %s", x.at)
		origin = origin.origin
	}
	require.Empty(t, origin.Restore, "restored from what is not the last state of a job: %s", x.at)
	require.Same(t, first, origin, "state was lost: %s", x.at)

	data, err := os.ReadFile(x.root.Join("manifests", "orders.yaml").Path())
	require.NoError(t, err, x.at)
	stored, err := deploy.ParseStored("stored", data)
	require.NoError(t, err, x.at)
	assert.Equal(t, stored.Versioned().Properties["state.checkpoints.dir"], job.Properties["state.checkpoints.dir"], x.at)

	outcome, err := x.deployer(nil).Plan(t.Context(), x.placed(wanted))
	require.NoError(t, err, x.at)
	require.Equal(t, deploy.Nothing, outcome.Kind, x.at)
}

// numbered gives the calls of one deploy numbers, whatever they go to.
type numbered struct {
	fault func(n int, do func() error) error

	mu sync.Mutex
	n  int
}

func (c *numbered) call(do func() error) error {
	if c.fault == nil {
		return do()
	}
	c.mu.Lock()
	c.n++
	n := c.n
	c.mu.Unlock()
	return c.fault(n, do)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// transport is a network in which only this server is.
func (c *numbered) transport(server http.Handler) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		answer := httptest.NewRecorder()
		err := c.call(func() error {
			if err := context.Cause(r.Context()); err != nil {
				return err
			}
			server.ServeHTTP(answer, r)
			return nil
		})
		if err != nil {
			return nil, err
		}
		return answer.Result(), nil
	})
}

// numberedStore counts each call once; a listing is one.
type numberedStore struct {
	blobstore.Store
	calls *numbered
}

func (s *numberedStore) Stat(ctx context.Context, u blobstore.URI) (o blobstore.Object, err error) {
	err = s.calls.call(func() (err error) { o, err = s.Store.Stat(ctx, u); return err })
	return o, err
}

func (s *numberedStore) Open(ctx context.Context, u blobstore.URI) (r io.ReadCloser, o blobstore.Object, err error) {
	err = s.calls.call(func() (err error) { r, o, err = s.Store.Open(ctx, u); return err })
	return r, o, err
}

func (s *numberedStore) Put(ctx context.Context, u blobstore.URI, body io.Reader, opts blobstore.PutOptions) (o blobstore.Object, err error) {
	err = s.calls.call(func() (err error) { o, err = s.Store.Put(ctx, u, body, opts); return err })
	return o, err
}

func (s *numberedStore) Delete(ctx context.Context, u blobstore.URI) error {
	return s.calls.call(func() error { return s.Store.Delete(ctx, u) })
}

func (s *numberedStore) List(ctx context.Context, dir blobstore.URI, opts blobstore.ListOptions) iter.Seq2[blobstore.Object, error] {
	return func(yield func(blobstore.Object, error) bool) {
		if err := s.calls.call(func() error { return nil }); err != nil {
			yield(blobstore.Object{}, err)
			return
		}
		for o, err := range s.Store.List(ctx, dir, opts) {
			if !yield(o, err) {
				return
			}
		}
	}
}
