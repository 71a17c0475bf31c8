package checkpoint

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// lab is a pin that several actors work on, one store call at a time, and that
// is looked at after every call.
type lab struct {
	t     *testing.T
	store blobstore.Store
	clock *clock // the store's
	app   blobstore.URI
	job   *flink

	actors []func(blobstore.Store, int)
	turns  turns

	// fault decides what becomes of the n-th store call, from 1; nil does it.
	fault func(n int, do func() error) error

	// What readers of the pin have seen so far.
	tag   string
	id    int64
	files []stateFile

	back []int64 // checkpoints that a rollback takes the pin to
}

// act adds an actor. Its store waits for its turn before every call.
func (x *lab) act(f func(store blobstore.Store, actor int)) { x.actors = append(x.actors, f) }

type outcome struct {
	pinned Pinned
	err    error
}

// ticks adds a tick of a job as it is now, and returns where its outcome will be.
func (x *lab) ticks(job *flink, opts PinOptions) *outcome {
	seen := *job // what the JobManager says throughout this tick
	return x.ticksOf(&seen, opts)
}

// ticksOf is ticks with a JobManager whose answers may change meanwhile.
func (x *lab) ticksOf(job Job, opts PinOptions) *outcome {
	out := &outcome{}
	x.act(func(store blobstore.Store, actor int) {
		opts.Sleep = func(context.Context, time.Duration) error {
			x.turns.wait(actor, "sleep")
			return nil
		}
		out.pinned, out.err = Pin(x.t.Context(), store, x.app, job, opts)
	})
	return out
}

// collects adds a collection of garbage.
func (x *lab) collects(opts GCOptions) *outcome {
	out := &outcome{}
	x.act(func(store blobstore.Store, _ int) { _, out.err = GC(x.t.Context(), store, x.app, opts) })
	return out
}

// rollsBack adds a rollback to a generation of this checkpoint, named as
// RollbackOptions says.
func (x *lab) rollsBack(checkpoint int64, opts RollbackOptions) *rolledBack {
	out := &rolledBack{}
	x.back = append(x.back, checkpoint)
	x.act(func(store blobstore.Store, actor int) {
		opts.Sleep = func(context.Context, time.Duration) error {
			x.turns.wait(actor, "sleep")
			return nil
		}
		out.RolledBack, out.err = Rollback(x.t.Context(), store, x.app, opts)
	})
	return out
}

type rolledBack struct {
	RolledBack
	err error
}

// ageOut makes everything that exists older than any grace, and younger than
// the week for which generations of previous runs stay.
func (x *lab) ageOut() { x.clock.advance(25 * time.Hour) }

// run lets the actors work until all are done.
func (x *lab) run(p picker) (calls int) {
	x.look()
	for i, act := range x.actors {
		go act(&hooked{Store: x.store, call: func(op string, u blobstore.URI, do func() error) error {
			x.turns.wait(i, op+" "+u.String())
			calls++ // one actor is at work at a time
			if x.fault != nil {
				return x.fault(calls, do)
			}
			return do()
		}}, i)
	}
	x.actors = nil
	defer func() { // a test that fails half way leaves nobody waiting
		for x.turns.next(inOrder{}) {
			synctest.Wait()
		}
	}()
	for {
		synctest.Wait()
		x.look()
		x.clock.advance(time.Millisecond)
		if !x.turns.next(p) {
			return calls
		}
	}
}

// look reads the pin as a starting job would: what stands at the constant path
// restores, and is not older than what stood there before, unless it was rolled
// back; then it is on hold.
func (x *lab) look() {
	ctx, l := x.t.Context(), LayoutOf(x.app)
	obj, err := x.store.Stat(ctx, l.Metadata)
	if errors.Is(err, blobstore.ErrNotExist) {
		require.Empty(x.t, x.tag, "the pin vanished")
		return
	}
	require.NoError(x.t, err)
	if obj.Tag != x.tag {
		s, err := Load(ctx, x.store, l.Metadata, LoadOptions{})
		require.NoError(x.t, err)
		if s.CheckpointID < x.id {
			require.Contains(x.t, x.back, s.CheckpointID, "the pin went back")
			require.NotNil(x.t, holdOf(x.t, x.store, x.app), "the pin was rolled back and is not held")
		}
		x.tag, x.id = obj.Tag, s.CheckpointID
		x.files, err = s.files()
		require.NoError(x.t, err)
	}
	for _, f := range x.files {
		obj, err := x.store.Stat(ctx, f.Location)
		require.NoError(x.t, err, "checkpoint %d is published", x.id)
		require.True(x.t, f.fits(obj.Size), "%s has %d bytes", f.URI, obj.Size)
	}
}

// settle runs one more tick, alone: whatever happened before, it must not stand
// in the way.
func (x *lab) settle(job *flink) {
	x.t.Helper()
	p, err := Pin(x.t.Context(), x.store, x.app, job, PinOptions{Sleep: noSleep})
	require.NoError(x.t, err)
	require.Contains(x.t, []string{ResultPinned, ResultUnchanged}, p.Result)
	job.requireRestores(x.app, job.latest.ID)
	rec := readRecord(x.t, x.store, LayoutOf(x.app))
	require.Equal(x.t, job.latest.ID, rec.Checkpoint.ID)
	require.True(x.t, rec.Run.is(job.run))
}

// killed runs a tick that dies before its first put of an object with this name.
func (x *lab) killed(job *flink, name string) {
	x.t.Helper()
	dead := false
	store := hook(x.store, func(op string, u blobstore.URI, do func() error) error {
		if dead = dead || op == "put" && u.Base() == name; dead {
			return errKilled
		}
		return do()
	})
	_, err := Pin(x.t.Context(), store, x.app, job, PinOptions{})
	require.ErrorIs(x.t, err, errKilled)
}

func readRecord(t testing.TB, store blobstore.Store, l Layout) Record {
	t.Helper()
	var rec Record
	_, ok, err := readJSON(t.Context(), store, l.Record, &rec)
	require.NoError(t, err)
	require.True(t, ok, "there is no pin.json")
	return rec
}

// holdOf is the hold that stands, nil if none does.
func holdOf(t testing.TB, store blobstore.Store, app blobstore.URI) *Hold {
	t.Helper()
	h, _, err := readHold(t.Context(), store, LayoutOf(app))
	require.NoError(t, err)
	return h
}
