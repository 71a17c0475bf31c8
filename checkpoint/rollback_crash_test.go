package checkpoint

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// rollbacks are stories of a rollback to checkpoint 4. Whatever call of it fails,
// the pin is the old one or that, and a hold that was written stands.
var rollbacks = []story{
	{name: "to the one before", after: rolledBackTo4, prepare: func(x *lab) *flink {
		x.pinned(4, 5)
		x.job.completes(6)
		x.rollsBack(4, RollbackOptions{})
		return x.job
	}},
	{name: "to one of an earlier run, which the bad one restored", after: rolledBackTo4, prepare: func(x *lab) *flink {
		x.pinned(4)
		green := x.green(LayoutOf(x.app).Root, 4)
		green.completes(5)
		green.pins(x.app, PinOptions{})
		green.completes(6)
		green.pins(x.app, PinOptions{})
		green.completes(7)
		x.rollsBack(4, RollbackOptions{Generation: "1"})
		return green
	}},
	{name: "of a rollback", after: rolledBackTo4, prepare: func(x *lab) *flink {
		x.pinned(4, 5, 6)
		_, err := Rollback(x.t.Context(), x.store, x.app, RollbackOptions{})
		require.NoError(x.t, err)
		x.job.completes(7)
		x.rollsBack(4, RollbackOptions{Generation: "chk-4"})
		return x.job
	}},
	{name: "when pin.json vanished", after: rolledBackTo4, prepare: func(x *lab) *flink {
		x.pinned(4, 5)
		remove(x.t, x.store, LayoutOf(x.app).Record)
		x.job.completes(6)
		x.rollsBack(4, RollbackOptions{})
		return x.job
	}},
	{name: "when _metadata vanished", after: rolledBackTo4, prepare: func(x *lab) *flink {
		x.pinned(4, 5)
		remove(x.t, x.store, LayoutOf(x.app).Metadata)
		x.job.completes(6)
		x.rollsBack(4, RollbackOptions{})
		return x.job
	}},
	{name: "while a killed collection is still announced", after: rolledBackTo4, prepare: func(x *lab) *flink {
		x.pinned(4, 5)
		x.job.completes(6)
		l, names := LayoutOf(x.app), []string{}
		for _, f := range filesOf(x.t, x.store, l.generation("00000001-chk-4").Join(MetadataName)) {
			names = append(names, f.URI.Base())
		}
		require.NoError(x.t, announce(x.t.Context(), x.store, l.State.Join(announcementPrefix+"killed"), names))
		x.ageOut()
		x.rollsBack(4, RollbackOptions{})
		return x.job
	}},
}

func TestEveryCallOfARollbackMayFail(t *testing.T) {
	recorded := hashmap.thin(t)
	everyCall(t, rollbacks, griefs, func(t *testing.T, _ int) *lab {
		store, clock := memory()
		x := &lab{t: t, store: store, clock: clock, app: blobstore.MustParse("s3://pins/orders")}
		x.job = startFlinkOf(t, store, hashmap, recorded, "s3://lake/flink")
		return x
	})
}

// rolledBackTo4 is what holds after a rollback that came to grief at any call:
// bad is the job that runs on.
func rolledBackTo4(x *lab, bad *flink) {
	l := LayoutOf(x.app)
	s, err := prove(x.t.Context(), x.store, l.Metadata, nil)
	if holdOf(x.t, x.store, x.app) == nil { // it did not begin
		require.True(x.t, err != nil || s.CheckpointID > 4)
	} else {
		x.requireHeld(bad)
	}

	// The operator does it again, and it is done.
	r, err := Rollback(x.t.Context(), x.store, x.app, RollbackOptions{Generation: "1", Reason: "again"})
	require.NoError(x.t, err)
	require.Equal(x.t, "00000001-chk-4", r.Generation)
	require.True(x.t, r.OnHold)
	requirePublished(x.t, x.store, x.app, "00000001-chk-4")
	x.requireHeld(bad)
	bad.completes(bad.latest.ID + 1)
	bad.fails()
	x.requireHeld(bad)
	x.clock.advance(48 * time.Hour)
	_, err = GC(x.t.Context(), x.store, x.app, GCOptions{Delete: true, Keep: 2, Now: x.clock.Now()})
	require.NoError(x.t, err)
	requirePublished(x.t, x.store, x.app, "00000001-chk-4")

	// A run restores it and has the pin from then on.
	good := x.job.successor("99999999999999999999999999999999", l.Root.String(), 4)
	good.completes(5)
	x.settle(good)
	require.Nil(x.t, holdOf(x.t, x.store, x.app))
	good.completes(6)
	x.settle(good)
	_, err = Pin(x.t.Context(), x.store, x.app, bad, PinOptions{})
	require.ErrorAs(x.t, err, new(*HeldError), "the bad one was replaced")
	_, err = GC(x.t.Context(), x.store, x.app, GCOptions{Delete: true, Now: x.clock.Now().Add(9 * 24 * time.Hour)})
	require.NoError(x.t, err)
	require.Empty(x.t, unknownTo(x.t, x.store, x.app))
}

// requireHeld runs a tick of a job that must be held, and leave the pin alone.
func (x *lab) requireHeld(job *flink) {
	x.t.Helper()
	l := LayoutOf(x.app)
	before, err := Load(x.t.Context(), x.store, l.Metadata, LoadOptions{})
	_, heldErr := Pin(x.t.Context(), x.store, x.app, job, PinOptions{Sleep: noSleep})
	require.ErrorAs(x.t, heldErr, new(*HeldError))
	if err == nil {
		require.Equal(x.t, before.Bytes(), get(x.t, x.store, l.Metadata))
	}
}

// requireStands checks that the constant path restores what a generation holds.
func requireStands(t testing.TB, store blobstore.Store, app blobstore.URI, generation string) {
	t.Helper()
	l := LayoutOf(app)
	_, err := prove(t.Context(), store, l.Metadata, nil)
	require.NoError(t, err)
	require.Equal(t, get(t, store, l.generation(generation).Join(MetadataName)), get(t, store, l.Metadata))
}

// requirePublished checks that a generation stands, and that pin.json says so.
func requirePublished(t testing.TB, store blobstore.Store, app blobstore.URI, generation string) {
	t.Helper()
	requireStands(t, store, app, generation)
	l := LayoutOf(app)
	rec := readRecord(t, store, l)
	require.Equal(t, generation, rec.Generation)
	obj, err := store.Stat(t.Context(), l.Metadata)
	require.NoError(t, err)
	require.Equal(t, obj.Tag, rec.Metadata.Tag)
}
