package checkpoint

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

var (
	primary = blobstore.MustParse("s3://pins/orders")
	backup  = blobstore.MustParse(inAzure)
)

// replicated runs a tick with a replica, which must succeed at both.
func (f *flink) replicated(store blobstore.Store) Pinned {
	f.t.Helper()
	p, err := Pin(f.t.Context(), store, primary, f, PinOptions{Replicas: []blobstore.URI{backup}, Sleep: noSleep})
	require.NoError(f.t, err)
	require.Len(f.t, p.Replicas, 1)
	return p
}

// A replica follows its pin, generation by generation, and only what is new is
// brought there.
func TestReplicaFollows(t *testing.T) {
	job := startFlink(t, twoClouds(), rocksdb, "s3://lake/flink")
	copied := 0
	counting := hook(job.store, func(op string, u blobstore.URI, do func() error) error {
		if op == "copy" && u.Within(backup) {
			copied++
		}
		return do()
	})
	for id := int64(6); id < 9; id++ {
		job.completes(id)
		p := job.replicated(counting)
		assert.Equal(t, Replica{App: backup, Result: ResultPinned, Generation: p.Generation}, p.Replicas[0])
		assert.Equal(t, p.Copied, copied)
		copied = 0
		job.requireRestores(primary, id)
		job.requireRestores(backup, id)
	}
	p := job.replicated(counting)
	assert.Equal(t, ResultUnchanged, p.Result)
	assert.Equal(t, ResultUnchanged, p.Replicas[0].Result)
	require.Empty(t, unknownTo(t, job.store, backup))
	assert.Equal(t, readRecord(t, job.store, LayoutOf(primary)).Run, readRecord(t, job.store, LayoutOf(backup)).Run)
}

// unless refuses every call on a place while it is down.
func unless(down *bool, store blobstore.Store, place blobstore.URI) blobstore.Store {
	return hook(store, func(_ string, u blobstore.URI, do func() error) error {
		if *down && u.Within(place) {
			return &blobstore.Error{Op: "put", URI: u, Err: errRefuse}
		}
		return do()
	})
}

// A replica that fails holds nothing up, and catches up with what is newest, also
// while the JobManager is away.
func TestReplicaCatchesUp(t *testing.T) {
	job := startFlink(t, twoClouds(), rocksdb, "s3://lake/flink")
	down := false
	store := unless(&down, job.store, backup)
	job.completes(6)
	job.replicated(store)

	down = true
	for _, id := range []int64{7, 8} {
		job.completes(id)
		p := job.replicated(store)
		assert.Equal(t, ResultPinned, p.Result)
		require.ErrorIs(t, p.Replicas[0].Err, ErrBehind)
		require.ErrorIs(t, p.Replicas[0].Err, errRefuse)
		job.requireRestores(primary, id)
		job.requireRestores(backup, 6)
	}
	down = false
	away := errors.New("503")
	p, err := Pin(t.Context(), store, primary, jobThatIsAway{away}, PinOptions{Replicas: []blobstore.URI{backup}})
	require.ErrorIs(t, err, away)
	assert.Equal(t, Replica{App: backup, Result: ResultPinned, Generation: "00000003-chk-8"}, p.Replicas[0])
	job.requireRestores(backup, 8)
}

type jobThatIsAway struct{ err error }

func (j jobThatIsAway) Observe(context.Context) (Observation, error) { return Observation{}, j.err }
func (j jobThatIsAway) RestorePath(context.Context) (string, error)  { return "", j.err }

// A replica that does not answer gets half of the tick's time.
func TestReplicaThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		job := startFlink(t, twoClouds(), hashmap, "s3://lake/flink")
		second := blobstore.MustParse("s3://second/orders")
		job.completes(4)
		started := time.Now()
		hangs := &hanging{job.store, backup}
		p, err := Pin(t.Context(), hangs, primary, job, PinOptions{Timeout: time.Minute, Replicas: []blobstore.URI{backup, second}})
		require.NoError(t, err)
		assert.Equal(t, ResultPinned, p.Result)
		require.ErrorIs(t, p.Replicas[0].Err, ErrBehind)
		assert.ErrorContains(t, p.Replicas[0].Err, "out of time after 30s")
		assert.Equal(t, ResultPinned, p.Replicas[1].Result, "the other one is not held up")
		assert.Equal(t, 30*time.Second, time.Since(started))
		job.requireRestores(primary, 4)
		job.requireRestores(second, 4)
	})
}

// hanging does not answer about a place.
type hanging struct {
	blobstore.Store
	place blobstore.URI
}

func (h *hanging) Stat(ctx context.Context, u blobstore.URI) (blobstore.Object, error) {
	if u.Within(h.place) {
		<-ctx.Done()
		return blobstore.Object{}, &blobstore.Error{Op: "stat", URI: u, Err: ctx.Err()}
	}
	return h.Store.Stat(ctx, u)
}

// What another job was pinned to is no replica, and neither is what has become
// a pin of its own.
func TestReplicaIsNoOtherPin(t *testing.T) {
	job := startFlink(t, twoClouds(), hashmap, "s3://lake/flink")
	job.successorPinned(inAzure)
	before := contents(t, job.store, backup)
	job.completes(4)
	p := job.replicated(job.store)
	require.ErrorIs(t, p.Replicas[0].Err, ErrOccupied)
	assert.Equal(t, before, contents(t, job.store, backup))
	job.requireRestores(primary, 4)
}

func TestReplicaThatBecameAPin(t *testing.T) {
	job := startFlink(t, twoClouds(), hashmap, "s3://lake/flink")
	job.completes(4)
	job.replicated(job.store)
	green := job.successor("aaaaaaaa99507e464787c646439a53ff", LayoutOf(backup).Root.String(), 4)
	green.completes(5)
	green.pins(backup, PinOptions{})
	green.requireRestores(backup, 5)

	job.completes(6)
	p := job.replicated(job.store)
	require.ErrorIs(t, p.Replicas[0].Err, ErrOccupied)
	green.requireRestores(backup, 5)
	job.requireRestores(primary, 6)
}

// Garbage is collected in a replica, too, by a limit of its own.
func TestReplicaStaysBounded(t *testing.T) {
	s3, clock := memory()
	job := startFlink(t, s3, hashmap, "s3://lake/flink")
	replica := blobstore.MustParse(inS3)
	for id := int64(4); id < 40; id++ {
		job.completes(id)
		job.pins(primary, PinOptions{Replicas: []blobstore.URI{replica}, ReplicaKeep: 2})
		job.subsumes(id - 1)
		clock.advance(2 * time.Hour)
	}
	names, err := generationNames(t.Context(), s3, LayoutOf(replica))
	require.NoError(t, err)
	assert.Less(t, len(names), 2+slack+2)
	job.requireRestores(replica, 39)
	require.Empty(t, unknownTo(t, s3, replica))
}

// A job that restored from a replica goes on with the history of the pin, if the
// replica had what is pinned.
func TestRunThatRestoredFromAReplica(t *testing.T) {
	const green = "aaaaaaaa99507e464787c646439a53ff"
	for _, test := range []struct {
		name    string
		from    string // below the replica
		id      int64
		prepare func(job *flink, down *bool)
		hold    string
	}{
		{name: "up to date", from: "last-state", id: 5},
		{name: "up to date, by its metadata", from: "last-state/_metadata", id: 5},
		{name: "up to date, a generation", from: "last-state/generations/00000002-chk-5", id: 5},
		{name: "behind", from: "last-state", id: 5, hold: "restored checkpoint 5 from the replica " + inAzure + ", which is older than the pin",
			prepare: func(job *flink, down *bool) {
				*down = true
				job.completes(6)
				job.replicated(unless(down, job.store, backup))
				*down = false
			}},
		{name: "an earlier generation", from: "last-state/generations/00000001-chk-4", id: 4, hold: "older than the pin"},
		{name: "another job is pinned there now", from: "last-state", id: 5, hold: "not a copy of what is pinned here",
			prepare: func(job *flink, _ *bool) {
				other := job.successor("cccccccc99507e464787c646439a53ff", LayoutOf(backup).Root.String(), 5)
				other.completes(6)
				other.pins(backup, PinOptions{})
			}},
		{name: "somebody has written over it", from: "last-state", id: 5, hold: "not a copy of what is pinned here",
			prepare: func(job *flink, _ *bool) {
				u := LayoutOf(backup).Metadata
				put(job.t, job.store, u.String(), get(job.t, job.store, LayoutOf(backup).generation("00000001-chk-4").Join(MetadataName)))
			}},
		{name: "no replica of this pin", from: "other/last-state", id: 5, hold: "does not come from the pin"},
	} {
		t.Run(test.name, func(t *testing.T) {
			job := startFlink(t, twoClouds(), hashmap, "s3://lake/flink")
			for _, id := range []int64{4, 5} {
				job.completes(id)
				job.replicated(job.store)
			}
			down := false
			if test.prepare != nil {
				test.prepare(job, &down)
			}
			next := job.successor(green, backup.Join(test.from).String(), test.id)
			next.completes(7)
			p, err := Pin(t.Context(), job.store, primary, next, PinOptions{Replicas: []blobstore.URI{backup}, Sleep: noSleep})
			if test.hold != "" {
				var held *HeldError
				require.ErrorAs(t, err, &held)
				assert.Contains(t, held.Reason, test.hold)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, ResultPinned, p.Result)
			assert.Equal(t, ResultPinned, p.Replicas[0].Result)
			next.requireRestores(primary, 7)
			next.requireRestores(backup, 7)

			next.fails() // which hides where it came from
			next.completes(8)
			next.replicated(job.store)
			next.requireRestores(backup, 8)
		})
	}
}

// Without --replica the guard is what it was.
func TestRunThatRestoredFromWhatIsNoReplicaIsHeld(t *testing.T) {
	job := startFlink(t, twoClouds(), hashmap, "s3://lake/flink")
	job.completes(4)
	job.replicated(job.store)
	next := job.successor("aaaaaaaa99507e464787c646439a53ff", LayoutOf(backup).Root.String(), 4)
	next.completes(5)
	var held *HeldError
	_, err := Pin(t.Context(), job.store, primary, next, PinOptions{})
	require.ErrorAs(t, err, &held)
}

// Whether a replica had what is pinned is not guessed when it cannot be seen,
// and the run is not remembered as a stranger.
func TestReplicaThatCannotBeSeenDecidesNothing(t *testing.T) {
	job := startFlink(t, twoClouds(), hashmap, "s3://lake/flink")
	job.completes(4)
	job.replicated(job.store)
	next := job.successor("aaaaaaaa99507e464787c646439a53ff", LayoutOf(backup).Root.String(), 4)
	next.completes(5)
	down := true
	_, err := Pin(t.Context(), unless(&down, job.store, backup), primary, next, PinOptions{Replicas: []blobstore.URI{backup}})
	require.ErrorIs(t, err, errRefuse)
	next.replicated(job.store)
	next.requireRestores(primary, 5)
}

func TestReplicaMustLieElsewhere(t *testing.T) {
	job := startFlink(t, twoClouds(), hashmap, "s3://lake/flink")
	job.completes(4)
	for at, want := range map[string]error{
		"s3a://pins/orders":             ErrNested,
		"s3://pins":                     ErrNested,
		"s3://pins/orders/replica":      ErrNested,
		job.folder.Join("pin").String(): ErrInsideJob,
	} {
		_, err := Pin(t.Context(), job.store, primary, job, PinOptions{Replicas: []blobstore.URI{blobstore.MustParse(at)}})
		require.ErrorIs(t, err, want, at)
		require.Empty(t, below(t, job.store, primary))
	}
}

// A hold is a hold in the replica, too, until it ends.
func TestReplicaOfAPinOnHold(t *testing.T) {
	job := startFlink(t, twoClouds(), hashmap, "s3://lake/flink")
	job.completes(4)
	job.pins(primary, PinOptions{})
	put(t, job.store, LayoutOf(primary).Hold.String(), []byte(`{"layout": 1, "generation": "00000001-chk-4", "checkpointId": 4}`))
	job.replicated(job.store)
	assert.True(t, exists(t, job.store, LayoutOf(backup).Hold))

	next := job.successor("aaaaaaaa99507e464787c646439a53ff", LayoutOf(primary).Root.String(), 4)
	next.completes(5)
	next.replicated(job.store)
	assert.Nil(t, holdOf(t, job.store, backup))
	next.requireRestores(backup, 5)
}

// A rollback is one in the replica, too, and is over there when it is over here.
func TestReplicaFollowsARollback(t *testing.T) {
	job := startFlink(t, twoClouds(), hashmap, "s3://lake/flink")
	for id := int64(4); id < 6; id++ {
		job.completes(id)
		job.replicated(job.store)
	}
	_, err := Rollback(t.Context(), job.store, primary, RollbackOptions{Sleep: noSleep})
	require.NoError(t, err)
	job.completes(6)
	p, err := Pin(t.Context(), job.store, primary, job, PinOptions{Replicas: []blobstore.URI{backup}, Sleep: noSleep})
	require.ErrorAs(t, err, new(*HeldError))
	require.Equal(t, Replica{App: backup, Result: ResultPinned, Generation: "00000001-chk-4"}, p.Replicas[0])
	require.NotNil(t, holdOf(t, job.store, backup))
	job.requireRestores(backup, 4)

	next := job.successor("aaaaaaaa99507e464787c646439a53ff", LayoutOf(backup).Root.String(), 4)
	next.completes(5)
	assert.Equal(t, RestoredPin, next.replicated(job.store).RestoredFrom)
	assert.Nil(t, holdOf(t, job.store, primary))
	assert.Nil(t, holdOf(t, job.store, backup))
	requirePublished(t, job.store, backup, "00000003-chk-5")
	next.requireRestores(backup, 5)
}
