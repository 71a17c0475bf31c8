package checkpoint

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// newBadNight is a pin of checkpoints 4, 5 and 6, the last of them bad, and the
// job that goes on and is at 7.
func newBadNight(t *testing.T) *lab {
	x := newLab(t, 4, 5, 6)
	x.job.completes(7)
	return x
}

func (x *lab) rollback(opts RollbackOptions) RolledBack {
	x.t.Helper()
	r, err := Rollback(x.t.Context(), x.store, x.app, opts)
	require.NoError(x.t, err)
	return r
}

func TestRollback(t *testing.T) {
	x := newBadNight(t)
	r := x.rollback(RollbackOptions{Reason: "orders are lost"})
	require.Equal(t, ResultRolledBack, r.Result)
	require.Equal(t, "00000003-chk-6", r.From)
	require.Equal(t, "00000002-chk-5", r.Generation)
	require.EqualValues(t, 5, r.Published.ID)
	require.Equal(t, x.job.run.JobID, r.Run.JobID)
	require.Equal(t, 4, r.Files)
	require.True(t, r.OnHold)
	requirePublished(t, x.store, app, "00000002-chk-5")
	x.job.requireRestores(app, 5)
	x.job.isHeld("the pin is on hold: orders are lost")
	path, err := Resolve(t.Context(), x.store, app, ResolveOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 5, path.CheckpointID)
	require.Empty(t, path.Warnings)

	before := contents(t, x.store, app)
	require.Equal(t, ResultUnchanged, x.rollback(RollbackOptions{Generation: "2"}).Result)
	require.Equal(t, before, contents(t, x.store, app), "twice is once")

	// A run restores it. Its generations are numbered after all that there are, and
	// the way back from it leads round what was rolled back.
	green := x.green(LayoutOf(app).Root, 5)
	green.completes(6)
	p := green.pins(app, PinOptions{})
	require.Equal(t, "00000004-chk-6", p.Generation)
	require.Nil(t, holdOf(t, x.store, app))
	require.Zero(t, readRecord(t, x.store, LayoutOf(app)).Highest)
	x.job.completes(9)
	x.job.isHeld("was replaced")
	require.Equal(t, "00000002-chk-5", x.rollback(RollbackOptions{}).Generation)
	require.Equal(t, "00000004-chk-6", x.rollback(RollbackOptions{Generation: "00000004-chk-6"}).Generation, "and forward again")
}

func TestADryRollbackWritesNothing(t *testing.T) {
	x := newBadNight(t)
	before := contents(t, x.store, app)
	r := x.rollback(RollbackOptions{DryRun: true, Generation: "chk-4"})
	require.Equal(t, ResultWouldRollBack, r.Result)
	require.Equal(t, "00000001-chk-4", r.Generation)
	require.False(t, r.OnHold)
	require.Equal(t, before, contents(t, x.store, app))
}

// The bad run had restored the very checkpoint that is held. That was before.
func TestARollbackToWhatTheBadRunRestored(t *testing.T) {
	x := newLab(t, 4)
	green := x.green(LayoutOf(app).Root, 4)
	stranger := x.job.successor("bbbbbbbb99507e464787c646439a53ff", "", 0)
	stranger.completes(50)
	stranger.isHeld("started empty")
	for id := int64(5); id <= 6; id++ {
		green.completes(id)
		green.pins(app, PinOptions{})
	}
	green.completes(7)
	x.rollback(RollbackOptions{Generation: "1"})
	green.isHeld("was replaced: the pin has gone on with, or back to, job " + x.job.run.JobID)
	rec := readRecord(t, x.store, LayoutOf(app))
	require.True(t, rec.Run.is(x.job.run))
	require.True(t, rec.Previous[0].is(green.run))
	require.EqualValues(t, 3, rec.Highest)
	stranger.isHeld("when it was first seen")

	_, err := Release(t.Context(), x.store, app, RollbackOptions{})
	require.NoError(t, err)
	green.isHeld("was replaced")
	require.Equal(t, ResultPinned, green.pins(app, PinOptions{AcceptLineage: true}).Result, "unless somebody says so")
}

// --release gives the pin back to the run whose checkpoint it is, whatever that
// does next.
func TestRelease(t *testing.T) {
	x := newBadNight(t)
	hold, err := Release(t.Context(), x.store, app, RollbackOptions{})
	require.NoError(t, err)
	require.Nil(t, hold, "there was none")

	x.rollback(RollbackOptions{Reason: "a mistake"})
	hold, err = Release(t.Context(), x.store, app, RollbackOptions{DryRun: true})
	require.NoError(t, err)
	require.Equal(t, "a mistake", hold.Reason)
	x.job.isHeld("on hold")
	hold, err = Release(t.Context(), x.store, app, RollbackOptions{})
	require.NoError(t, err)
	require.Equal(t, "00000002-chk-5", hold.Generation)
	require.False(t, exists(t, x.store, LayoutOf(app).Hold))
	require.Equal(t, "00000004-chk-7", x.job.pins(app, PinOptions{}).Generation)
	x.job.requireRestores(app, 7)
}

// What was before the published one: the one that it was made after, though
// others lie between.
func TestTheWayBack(t *testing.T) {
	gen := func(name, parent string) Record { return Record{Generation: name, Parent: parent} }
	names := func(records []Record) string {
		var all []string
		for _, r := range records {
			all = append(all, r.Generation[7:8])
		}
		return strings.Join(all, " ")
	}
	all := []Record{
		gen("00000006-chk-9", "00000002-chk-5"), // after a rollback
		gen("00000005-chk-8", "00000004-chk-7"),
		gen("00000004-chk-7", "00000002-chk-5"),
		gen("00000003-chk-6", "00000002-chk-5"), // a tick was killed before it published this
		gen("00000002-chk-5", ""),               // these two are from before parents were written down
		gen("00000001-chk-4", ""),
	}
	require.Equal(t, "6 2 1", names(history("00000006-chk-9", all)))
	require.Equal(t, "6 2 1 5 4 3", names(wayBack("00000006-chk-9", all)))
	require.Equal(t, "5 4 2 1", names(history("00000005-chk-8", all)))
	require.Equal(t, "1 6 5 4 3 2", names(wayBack("00000001-chk-4", all)))
	require.Equal(t, "6", names(history("00000006-chk-9", all[:4])), "the one before is gone: nothing else takes its place")
	require.Equal(t, "6 5 4 3 2 1", names(wayBack("", all)), "nobody knows what was published")
}

// A pin that does not restore falls back along the way that it came.
func TestFallingBackAfterARollback(t *testing.T) {
	x := newBadNight(t)
	x.rollback(RollbackOptions{Generation: "1"})
	green := x.green(LayoutOf(app).Root, 4)
	green.completes(5)
	green.pins(app, PinOptions{})
	for _, u := range filesOf(t, x.store, LayoutOf(app).Metadata) {
		remove(t, x.store, u.URI)
	}
	r, err := Resolve(t.Context(), x.store, app, ResolveOptions{})
	require.NoError(t, err)
	require.Equal(t, "00000001-chk-4", r.Generation, "not 3, which was rolled back")
}

// GC keeps what was rolled back for as long as somebody may change his mind.
func TestGCKeepsWhatWasRolledBackWhileItIsOnHold(t *testing.T) {
	x := newBadNight(t)
	x.rollback(RollbackOptions{Generation: "1"})
	x.ageOut()
	got, report := x.gc(GCOptions{Keep: 2})
	require.Equal(t, []string{"00000003-chk-6", "00000002-chk-5", "00000001-chk-4"}, got)
	require.Equal(t, "it was rolled back, and the pin is on hold", report.Generations[0].Why)

	green := x.green(LayoutOf(app).Root, 4)
	green.completes(5)
	green.pins(app, PinOptions{})
	x.ageOut()
	got, _ = x.gc(GCOptions{Keep: 2})
	require.Equal(t, []string{"00000004-chk-5", "00000001-chk-4"}, got, "and then it counts what one could go back to")
}

func TestARollbackOverAScriptsCopy(t *testing.T) {
	x := newBadNight(t)
	l := LayoutOf(app)
	put(t, x.store, l.Metadata.String(), get(t, x.store, x.job.chk(7).Join(MetadataName)))
	r := x.rollback(RollbackOptions{})
	require.Empty(t, r.From)
	require.Equal(t, "00000003-chk-6", r.Generation, "the newest of ours")
	requirePublished(t, x.store, app, "00000003-chk-6")
}

func TestARollbackThatCannotBe(t *testing.T) {
	x := newBadNight(t)
	remove(t, x.store, filesOf(t, x.store, LayoutOf(app).generation("00000002-chk-5").Join(MetadataName))[0].URI)
	before := contents(t, x.store, app)
	for wanted, is := range map[string]error{"": nil, "chk-7": ErrNoGeneration, "00000009-chk-5": ErrNoGeneration} {
		_, err := Rollback(t.Context(), x.store, app, RollbackOptions{Generation: wanted})
		if is == nil {
			require.ErrorAs(t, err, new(*DamagedError))
			continue
		}
		require.ErrorIs(t, err, is)
		require.ErrorContains(t, err, "00000003-chk-6 of job "+x.job.run.JobID+", 00000002-chk-5")
	}
	require.Equal(t, before, contents(t, x.store, app))

	for _, u := range below(t, x.store, LayoutOf(app).Root) {
		remove(t, x.store, u)
	}
	_, err := Rollback(t.Context(), x.store, app, RollbackOptions{})
	require.ErrorIs(t, err, ErrPinGone)
	_, err = Release(t.Context(), x.store, app, RollbackOptions{})
	require.ErrorIs(t, err, ErrPinGone)
	deleteBelow(t, x.store, app)
	_, err = Rollback(t.Context(), x.store, app, RollbackOptions{})
	require.ErrorIs(t, err, ErrNoPin)
}

// What is published may be put on hold, too. A tick that is at work by then does not
// publish over it, where the store's tags tell.
func TestARollbackToWhatIsPublishedStopsATick(t *testing.T) {
	x := newLab(t, 4)
	x.pinned(5)
	x.job.completes(6)
	var once sync.Once
	store := hook(x.store, func(op string, u blobstore.URI, do func() error) error {
		if op == "put" && u.Within(LayoutOf(app).Generations) {
			once.Do(func() {
				_, err := Rollback(t.Context(), x.store, app, RollbackOptions{Generation: "chk-5", Reason: "investigating"})
				require.NoError(t, err)
			})
		}
		return do()
	})
	before := readRecord(t, x.store, LayoutOf(app))
	_, err := Pin(t.Context(), store, app, x.job, PinOptions{Sleep: noSleep})
	var held *HeldError
	require.ErrorAs(t, err, &held)
	require.Contains(t, held.Reason, "investigating")
	x.job.requireRestores(app, 5)
	after := readRecord(t, x.store, LayoutOf(app))
	after.Metadata.Tag = before.Metadata.Tag
	require.Equal(t, before, after)
}

// A collection that is at work on the generation may need a while; a rollback
// waits, and says so when it takes too long. The pin is on hold by then.
func TestARollbackWaitsForACollection(t *testing.T) {
	x := newBadNight(t)
	l := LayoutOf(app)
	f := filesOf(t, x.store, l.generation("00000001-chk-4").Join(MetadataName))[0]
	require.NoError(t, announce(t.Context(), x.store, l.State.Join(announcementPrefix+"other"), []string{f.URI.Base()}))
	r, err := Rollback(t.Context(), x.store, app, RollbackOptions{Generation: "1", Sleep: noSleep})
	require.ErrorIs(t, err, ErrCollecting)
	require.True(t, r.OnHold)
	x.job.requireRestores(app, 6)
	x.job.isHeld("on hold")
	x.clock.advance(collectionLife + time.Second)
	require.Equal(t, "00000001-chk-4", x.rollback(RollbackOptions{}).Generation, "it finishes what was begun")
}

// What a run started from, as each tick says it.
func TestWhatARunStartedFrom(t *testing.T) {
	const pin = "s3://lake/pins/orders/last-state"
	for _, c := range []struct {
		name     string
		pinned   Record
		run      Run
		restored *Restored
		from     string
		id       int64
	}{
		{"nothing, and nothing is pinned", Record{}, blue, nil, RestoredNothing, 0},
		{"the pin", pinned(nil), green, restored(40, pin), RestoredPin, 40},
		{"a generation of it", pinned(nil), green, restored(30, pin+"/generations/00000008-chk-30"), RestoredPin, 30},
		{"the pin, and it failed over", pinned(func(r *Record) { r.Seen = &Seen{green, 40} }), green, restored(44, green.Folder+"/chk-44"), RestoredPin, 40},
		{"the pin, is pinned itself and failed over", pinned(func(r *Record) { r.Seen = &Seen{blue, 30} }), blue, restored(44, blue.Folder+"/chk-44"), RestoredPin, 30},
		{"nobody saw what, before it failed over", pinned(nil), blue, restored(44, blue.Folder+"/chk-44"), RestoredOwn, 44},
		{"a checkpoint of the pinned run", pinned(nil), green, restored(44, blue.Folder+"/chk-44"), RestoredLineage, 44},
		{"a savepoint of an earlier run", pinned(nil), green, restored(44, "s3://elsewhere/savepoint-a0a0a0-0123456789ab"), RestoredLineage, 44},
		{"something else", pinned(nil), green, restored(44, "s3://elsewhere/chk-44"), RestoredElsewhere, 44},
		{"nothing", pinned(nil), green, nil, RestoredNothing, 0},
		{"nothing, and it failed over", pinned(func(r *Record) { g := green; g.StartedEmpty = true; r.Held = []Run{g} }), green,
			restored(3, green.Folder+"/chk-3"), RestoredNothing, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, id := lineage{layout: LayoutOf(app), pinned: c.pinned}.origin(c.run, c.restored)
			require.Equal(t, c.from, from)
			require.Equal(t, c.id, id)
		})
	}
}

// The alarm outlives failovers, and the folder that the run's first checkpoint
// tells.
func TestAnEmptyStartIsAnAlarm(t *testing.T) {
	_, next := newPair(t)
	stranger := next("", 0)
	p, err := Pin(t.Context(), stranger.store, app, stranger, PinOptions{})
	require.ErrorIs(t, err, ErrNoCheckpoint)
	require.True(t, p.StartedEmpty)
	for range 2 {
		stranger.completes(6)
		p, err = Pin(t.Context(), stranger.store, app, stranger, PinOptions{})
		require.ErrorAs(t, err, new(*HeldError))
		require.True(t, p.StartedEmpty)
		require.Equal(t, RestoredNothing, p.RestoredFrom)
		stranger.fails()
	}
	require.False(t, stranger.pins(app, PinOptions{AcceptLineage: true}).StartedEmpty)

	// With a witness in the configuration it is none.
	_, next = newPair(t)
	told := next("", 0)
	told.restorePath = LayoutOf(app).Metadata.String()
	told.completes(6)
	p = told.pins(app, PinOptions{})
	require.False(t, p.StartedEmpty)
	require.Equal(t, RestoredPin, p.RestoredFrom)
}

// A rollback never publishes after its deadline. Where the hold stands by then, it
// says so: the same rollback finishes what this one began.
func TestARollbackIsBounded(t *testing.T) {
	l := LayoutOf(app)
	for name, c := range map[string]struct {
		slow   func(op string, u blobstore.URI) bool
		onHold bool
	}{
		"before the hold": {func(op string, u blobstore.URI) bool { return op == "open" && u.Base() == MetadataName }, false},
		"after the hold":  {func(op string, u blobstore.URI) bool { return op == "put" && u.Same(l.Metadata) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				job := newJob(t, hashmap)
				for _, id := range []int64{4, 5} {
					job.completes(id)
					job.pins(app, PinOptions{})
				}
				before := get(t, job.store, l.Metadata)
				store := &hooked{Store: job.store, call: func(op string, u blobstore.URI, do func() error) error {
					if c.slow(op, u) {
						<-time.After(2 * time.Minute) // of the time of synctest
					}
					return do()
				}}
				r, err := Rollback(t.Context(), store, app, RollbackOptions{Timeout: time.Minute})
				require.ErrorIs(t, err, ErrDeadline)
				require.Equal(t, c.onHold, r.OnHold)
				require.Equal(t, before, get(t, job.store, l.Metadata))
				r, err = Rollback(t.Context(), job.store, app, RollbackOptions{Timeout: time.Minute})
				require.NoError(t, err)
				require.Equal(t, ResultRolledBack, r.Result)
			})
		})
	}
}

// So is the end of a hold.
func TestAReleaseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		job := newJob(t, hashmap)
		for _, id := range []int64{4, 5} {
			job.completes(id)
			job.pins(app, PinOptions{})
		}
		_, err := Rollback(t.Context(), job.store, app, RollbackOptions{})
		require.NoError(t, err)
		store := &hooked{Store: job.store, call: func(op string, u blobstore.URI, do func() error) error {
			<-time.After(2 * time.Minute)
			return do()
		}}
		_, err = Release(t.Context(), store, app, RollbackOptions{Timeout: time.Minute})
		require.ErrorIs(t, err, ErrDeadline)
		require.True(t, exists(t, job.store, LayoutOf(app).Hold))
	})
}
