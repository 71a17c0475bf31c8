package checkpoint

import (
	"errors"
	"flag"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// Two chkpins, a collection and the job itself work on one pin at once. Every
// interleaving of their store calls is as good as any other, so the tests draw
// many of each kind. After every single call what stands at the constant path
// must restore, and must not be older than what stood there before.

// The first are drawn in every run, and enough to find what is plainly wrong;
// "make interleavings" draws as many as one has the time for.
var interleavings = flag.Uint64("interleavings", 75, "how many of each kind to draw")

type race struct {
	*lab
	seed uint64
}

// everyInterleaving runs a race with many seeds. prepare builds the pin and adds
// the actors; what must hold in the end, it returns.
func everyInterleaving(t *testing.T, prepare func(*race) (after func())) {
	t.Parallel()
	recorded := rocksdb.thin(t)
	for seed := range *interleavings {
		synctest.Test(t, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("seed %d", seed)
				}
			}()
			store, clock := memory()
			x := &race{&lab{t: t, store: store, clock: clock, app: blobstore.MustParse("s3://pins/orders")}, seed}
			x.job = startFlinkOf(t, store, rocksdb, recorded, "s3://lake/flink")
			after := prepare(x)
			rng := rand.New(rand.NewPCG(seed, 0))
			x.run(&bursts{rand: rng, length: 1 << rng.IntN(7)})
			after()
		})
		if t.Failed() {
			return
		}
	}
}

// Two CronJobs overlap: both see the same checkpoint. Each says that it is
// pinned, and there is one pin.
func TestTwoTicksPinTheSameCheckpoint(t *testing.T) {
	everyInterleaving(t, func(x *race) func() {
		if x.seed%2 == 0 { // else it is the first pin
			x.job.completes(6)
			x.job.pins(x.app, PinOptions{})
		}
		x.job.completes(7)
		a, b := x.ticks(x.job, PinOptions{}), x.ticks(x.job, PinOptions{})
		return func() {
			for _, o := range []*outcome{a, b} {
				require.NoError(x.t, o.err)
				require.Contains(x.t, []string{ResultPinned, ResultUnchanged}, o.pinned.Result)
				require.True(x.t, o.pinned.Restorable)
			}
			require.Contains(x.t, []string{a.pinned.Result, b.pinned.Result}, ResultPinned)
			x.job.requireRestores(x.app, 7)
			x.settle(x.job)
		}
	})
}

// One of the two has asked the JobManager a moment earlier. The newer checkpoint
// may come second or lose the race (the next tick pins it), but it never gives
// way to the older one.
func TestTwoTicksPinDifferentCheckpoints(t *testing.T) {
	everyInterleaving(t, func(x *race) func() {
		if x.seed%2 == 0 {
			x.job.completes(6)
			x.job.pins(x.app, PinOptions{})
		}
		x.job.completes(7)
		a := x.ticks(x.job, PinOptions{})
		x.job.completes(8)
		b := x.ticks(x.job, PinOptions{})
		return func() {
			newest := int64(0)
			for _, o := range []*outcome{a, b} {
				if o.err != nil {
					require.ErrorIs(x.t, o.err, ErrNewer)
					continue
				}
				require.Equal(x.t, ResultPinned, o.pinned.Result)
				newest = max(newest, o.pinned.CheckpointID)
			}
			x.job.requireRestores(x.app, newest)
			x.settle(x.job)
		}
	})
}

// A new job restored from the pin while the old one is still there: blue and
// green. Whoever publishes first, in the end the new one has the pin and the old
// one is held.
func TestTwoRunsAtOnce(t *testing.T) {
	everyInterleaving(t, func(x *race) func() {
		x.job.completes(6)
		x.job.pins(x.app, PinOptions{})
		green := x.job.successor("aaaaaaaa99507e464787c646439a53ff", LayoutOf(x.app).Root.String(), 6)
		x.job.completes(7)
		green.completes(7)
		a, b := x.ticks(x.job, PinOptions{}), x.ticks(green, PinOptions{})
		return func() {
			var held *HeldError
			for _, o := range []*outcome{a, b} {
				if o.err != nil && !errors.As(o.err, &held) {
					require.ErrorIs(x.t, o.err, ErrNewer)
				}
			}
			rec := readRecord(x.t, x.store, LayoutOf(x.app))
			loser := green
			if b.err == nil {
				loser = x.job
				x.settle(green)
				require.True(x.t, readRecord(x.t, x.store, LayoutOf(x.app)).Run.is(green.run))
			} else {
				require.NoError(x.t, a.err, "nobody published; pinned is %d", rec.Checkpoint.ID)
				x.settle(x.job)
			}
			loser.completes(8)
			_, err := Pin(x.t.Context(), x.store, x.app, loser, PinOptions{})
			require.ErrorAs(x.t, err, &held)
		}
	})
}

// Flink completes a checkpoint and deletes the one before while a tick copies
// it: the tick pins the one or the other, whole.
func TestTheJobDeletesWhatATickCopies(t *testing.T) {
	everyInterleaving(t, func(x *race) func() {
		x.job.completes(6)
		x.job.pins(x.app, PinOptions{})
		x.job.completes(7)
		out := x.ticksOf(x.job, PinOptions{})
		x.act(func(store blobstore.Store, _ int) {
			f := *x.job
			f.store = store
			f.completes(8)
			x.job.latest = f.latest
			f.subsumes(7)
		})
		return func() {
			require.NoError(x.t, out.err)
			x.job.requireRestores(x.app, out.pinned.CheckpointID)
			x.settle(x.job)
		}
	})
}

// A collection beside ticks: it deletes nothing that a tick relies on, also not
// files that nobody named for a long time and that the new checkpoint names
// again. Those come up whenever savepoints are pinned between checkpoints, since
// a savepoint shares no file with them.
func TestTicksBesideCollections(t *testing.T) {
	everyInterleaving(t, func(x *race) func() {
		x.job.completes(6)
		x.job.pins(x.app, PinOptions{})
		for id := int64(7); id <= 9; id++ {
			x.job.savepoint(id, "s3://lake/savepoints")
			x.job.pins(x.app, PinOptions{})
		}
		if x.seed%5 == 0 { // a tick that was killed left a generation unfinished
			x.job.completes(10)
			x.killed(x.job, "pin.json")
		}
		x.ageOut()
		put(x.t, x.store, LayoutOf(x.app).Root.Join("notes.txt").String(), nil) // by which a collection tells the time
		x.job.completes(10)
		ticks := []*outcome{x.ticks(x.job, PinOptions{})}
		collections := []*outcome{x.collects(GCOptions{Delete: true, Keep: 2, ID: "one"})}
		switch x.seed % 3 {
		case 1:
			x.job.completes(11)
			ticks = append(ticks, x.ticks(x.job, PinOptions{}))
		case 2:
			collections = append(collections, x.collects(GCOptions{Delete: true, Keep: 2, ID: "two"}))
		}
		return func() {
			for _, o := range ticks {
				if o.err != nil && !errors.Is(o.err, ErrNewer) {
					require.ErrorIs(x.t, o.err, ErrCollecting)
				}
			}
			for _, o := range collections {
				if o.err != nil {
					require.ErrorIs(x.t, o.err, ErrNothingCollected)
				}
			}
			x.settle(x.job)
		}
	})
}

// The bad job's ticks go on while somebody rolls back. In the end the pin is
// what it was rolled back to, and stays so until a run restored that.
func TestARollbackBesideTicks(t *testing.T) {
	everyInterleaving(t, func(x *race) func() {
		x.pinned(6, 7)
		x.job.completes(8)
		ticks := []*outcome{x.ticks(x.job, PinOptions{})}
		if x.seed%2 == 0 {
			x.job.completes(9)
			ticks = append(ticks, x.ticks(x.job, PinOptions{}))
		}
		out := x.rollsBack(6, RollbackOptions{Generation: "1"})
		return func() {
			require.NoError(x.t, out.err)
			for _, o := range ticks {
				if o.err != nil && !errors.Is(o.err, ErrNewer) {
					require.ErrorAs(x.t, o.err, new(*HeldError))
				}
			}
			requireStands(x.t, x.store, x.app, "00000001-chk-6")
			x.job.completes(10)
			x.requireHeld(x.job)
			requirePublished(x.t, x.store, x.app, "00000001-chk-6")
			good := x.green(LayoutOf(x.app).Root, 6)
			good.completes(7)
			x.settle(good)
			require.Nil(x.t, holdOf(x.t, x.store, x.app))
		}
	})
}

// The pin was rolled back, a run restored it and is about to be pinned, and just
// then somebody rolls back further. The tick that ends the first hold does not
// end the second.
func TestARollbackWhileARunFulfilsTheHoldBefore(t *testing.T) {
	everyInterleaving(t, func(x *race) func() {
		x.pinned(6, 7, 8)
		_, err := Rollback(x.t.Context(), x.store, x.app, RollbackOptions{})
		require.NoError(x.t, err)
		green := x.green(LayoutOf(x.app).Root, 7)
		green.completes(8)
		x.ticks(green, PinOptions{})
		out := x.rollsBack(6, RollbackOptions{Generation: "00000001-chk-6"})
		return func() {
			require.NoError(x.t, out.err)
			requireStands(x.t, x.store, x.app, "00000001-chk-6")
			green.completes(9)
			x.requireHeld(green)
			requirePublished(x.t, x.store, x.app, "00000001-chk-6")
			x.job.completes(9)
			x.requireHeld(x.job)
		}
	})
}

// Two operators roll back to different generations: both commands succeed or say
// that they did not, and what is on hold is what is published.
func TestTwoRollbacksAtOnce(t *testing.T) {
	everyInterleaving(t, func(x *race) func() {
		x.pinned(6, 7, 8)
		x.back = []int64{6, 7, 8}
		a := x.rollsBack(6, RollbackOptions{Generation: "1"})
		b := x.rollsBack(7, RollbackOptions{Generation: "2"})
		return func() {
			for _, o := range []*rolledBack{a, b} {
				if o.err != nil {
					require.ErrorIs(x.t, o.err, ErrNewer)
				}
			}
			require.True(x.t, a.err == nil || b.err == nil)
			requireStands(x.t, x.store, x.app, holdOf(x.t, x.store, x.app).Generation)
		}
	})
}

// A collection is about to delete the very generation that somebody goes back
// to: either it stays and is published, or it goes and nothing is published.
func TestARollbackBesideACollection(t *testing.T) {
	everyInterleaving(t, func(x *race) func() {
		x.pinned(6, 7, 8, 9)
		x.ageOut()
		put(x.t, x.store, LayoutOf(x.app).Root.Join("notes.txt").String(), nil) // by which a collection tells the time
		out := x.rollsBack(6, RollbackOptions{Generation: "chk-6"})
		collection := x.collects(GCOptions{Delete: true, Keep: 2, ID: "one"})
		return func() {
			if collection.err != nil {
				require.ErrorIs(x.t, collection.err, ErrNothingCollected)
			}
			if out.err == nil {
				x.job.requireRestores(x.app, 6)
				return
			}
			if !errors.Is(out.err, ErrNoGeneration) && !errors.Is(out.err, ErrCollecting) {
				require.ErrorAs(x.t, out.err, new(*DamagedError))
			}
			x.job.requireRestores(x.app, 9)
		}
	})
}
