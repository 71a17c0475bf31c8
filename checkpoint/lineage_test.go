package checkpoint

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// The runs of these tests. Blue is pinned at checkpoint 40; before it, navy was.
var (
	blue  = Run{JobID: "b1b1b1" + "00000000000000000000000000", Started: 2000, Folder: "s3://lake/flink/b1b1b1" + "00000000000000000000000000"}
	navy  = Run{JobID: "a0a0a0" + "00000000000000000000000000", Started: 1000, Folder: "s3://lake/flink/a0a0a0" + "00000000000000000000000000"}
	green = Run{JobID: "c2c2c2" + "00000000000000000000000000", Started: 3000, Folder: "s3://lake/flink/c2c2c2" + "00000000000000000000000000"}
	red   = Run{JobID: "d3d3d3" + "00000000000000000000000000", Started: 4000, Folder: "s3://lake/flink/d3d3d3" + "00000000000000000000000000"}
)

// started is a run of the same job id that started at another time.
func started(r Run, at int64) Run {
	r.Started = at
	return r
}

func restored(id int64, path string) *Restored {
	return &Restored{ID: id, Path: blobstore.MustParse(path)}
}

// pinned is the record of blue at checkpoint 40.
func pinned(change func(*Record)) Record {
	r := Record{Generation: "00000009-chk-40", Checkpoint: CheckpointRecord{ID: 40}, Run: blue, Previous: []Run{navy}}
	if change != nil {
		change(&r)
	}
	return r
}

func TestLineage(t *testing.T) {
	const pin = "s3://lake/pins/orders/last-state"
	for _, c := range []struct {
		name       string
		pinned     Record
		run        Run
		restored   *Restored
		configured string // what an application-mode cluster was told to start from
		siblings   string
		hold       string // a part of the reason; "" publishes
	}{
		// The pin has no history yet.
		{name: "first pin, of a job that started empty", run: blue},
		{name: "first pin, of a job that came from anywhere", run: blue, restored: restored(7, "s3://elsewhere/savepoint-123456-abc")},

		// This run is the pinned one.
		{name: "the pinned run goes on", pinned: pinned(nil), run: blue},
		{name: "the pinned run failed over", pinned: pinned(nil), run: blue, restored: restored(41, blue.Folder+"/chk-41")},
		{name: "the pinned run of a constant job id goes on beside refused ones", run: blue,
			pinned: pinned(func(r *Record) { r.Held = []Run{started(blue, 2500)} })},

		// It restored from this pin.
		{name: "from the constant path", pinned: pinned(nil), run: green, restored: restored(40, pin)},
		{name: "from the file itself", pinned: pinned(nil), run: green, restored: restored(40, pin+"/_metadata")},
		{name: "from a generation", pinned: pinned(nil), run: green, restored: restored(40, pin+"/generations/00000009-chk-40")},
		{name: "in another spelling", pinned: pinned(nil), run: green, restored: restored(40, "s3a://lake//pins/orders/last-state/")},
		{name: "from an older generation", pinned: pinned(nil), run: green, restored: restored(30, pin+"/generations/00000008-chk-30"),
			hold: "restored checkpoint 30 of the pin, which has moved on"},
		{name: "from the constant path, and blue went on", pinned: pinned(nil), run: green, restored: restored(39, pin),
			hold: "restored checkpoint 39 of the pin, which has moved on"},
		{name: "from what was rolled back since", pinned: pinned(nil), run: green, restored: restored(41, pin),
			hold: "restored checkpoint 41 of the pin, which was rolled back"},
		{name: "from the state folder, where no checkpoint is", pinned: pinned(nil), run: green, restored: restored(40, pin+"/state"),
			hold: "does not come from the pin"},
		{name: "from a sibling's pin", pinned: pinned(nil), run: green, restored: restored(40, "s3://lake/pins/payments/last-state"),
			hold: "does not come from the pin"},

		// Under --all, the pins of the jobs of one session lie side by side.
		{name: "renamed: it restored the pin of its old name", run: green, siblings: "s3://lake/pins", restored: restored(40, "s3://lake/pins/payments/last-state"),
			hold: "the pin of a job with another name"},
		{name: "renamed, from a generation", pinned: pinned(nil), run: green, siblings: "s3://lake/pins",
			restored: restored(40, "s3://lake/pins/payments/last-state/generations/00000001-chk-40"), hold: "the pin of a job with another name"},
		{name: "renamed, and accepted", pinned: pinned(nil), run: blue, siblings: "s3://lake/pins", restored: restored(30, "s3://lake/pins/payments/last-state")},
		{name: "not renamed", pinned: pinned(nil), run: green, siblings: "s3://lake/pins", restored: restored(40, pin)},
		{name: "not renamed, first pin, though its checkpoints lie beside the pins", run: green, siblings: "s3://lake", restored: restored(41, green.Folder+"/chk-41")},

		// Seen at once: later failovers hide it.
		{name: "seen, then failed over", pinned: pinned(func(r *Record) { r.Seen = &Seen{green, 40} }), run: green,
			restored: restored(41, green.Folder+"/chk-41")},
		{name: "seen, then failed over, and blue went on", pinned: pinned(func(r *Record) { r.Seen = &Seen{green, 39} }), run: green,
			restored: restored(43, green.Folder+"/chk-43"), hold: "restored checkpoint 39 of the pin, which has moved on"},
		{name: "another run was seen", pinned: pinned(func(r *Record) { r.Seen = &Seen{green, 40} }), run: red,
			restored: restored(41, red.Folder+"/chk-41"), hold: "did not restore from the pin"},
		{name: "another start of the run that was seen", pinned: pinned(func(r *Record) { r.Seen = &Seen{green, 40} }), run: started(green, 3500),
			hold: "did not restore from the pin"},

		// The second witness survives failovers.
		{name: "configured to restore, failed over", pinned: pinned(nil), run: green, restored: restored(41, green.Folder+"/chk-41"), configured: pin + "/_metadata"},
		{name: "configured to restore a generation", pinned: pinned(nil), run: green, restored: restored(41, green.Folder+"/chk-41"),
			configured: pin + "/generations/00000009-chk-40/_metadata"},
		{name: "configured to restore, but what it has is not after the pin", pinned: pinned(nil), run: green,
			restored: restored(40, green.Folder+"/chk-40"), configured: pin, hold: "is at checkpoint 40"},
		{name: "configured to restore something else", pinned: pinned(nil), run: green, restored: restored(41, green.Folder+"/chk-41"),
			configured: "s3://lake/pins/payments/last-state", hold: "did not restore from the pin"},
		{name: "configured with something that is no URI", pinned: pinned(nil), run: green, configured: "last-state", hold: "started empty"},
		{name: "failed over, in a session", pinned: pinned(nil), run: green, restored: restored(41, green.Folder+"/chk-41"), hold: "did not restore from the pin"},

		// From a checkpoint inside a lineage folder.
		{name: "from a newer checkpoint of the pinned run", pinned: pinned(nil), run: green, restored: restored(45, blue.Folder+"/chk-45")},
		{name: "from the pinned checkpoint at its source", pinned: pinned(nil), run: green, restored: restored(40, blue.Folder+"/chk-40")},
		{name: "from an older checkpoint of the pinned run", pinned: pinned(nil), run: green, restored: restored(39, blue.Folder+"/chk-39"),
			hold: "restored checkpoint 39 of job b1b1b1"},
		{name: "from a checkpoint of a run before", pinned: pinned(nil), run: green, restored: restored(50, navy.Folder+"/chk-50")},
		{name: "from a folder with a longer name", pinned: pinned(nil), run: green, restored: restored(45, blue.Folder+"0/chk-45"),
			hold: "does not come from the pin"},
		{name: "from nowhere known", pinned: pinned(nil), run: green, restored: restored(45, "s3://elsewhere/chk-45"), hold: "does not come from the pin"},

		// From a savepoint of a lineage job.
		{name: "from a savepoint of the pinned job", pinned: pinned(nil), run: green, restored: restored(41, "s3://elsewhere/savepoint-b1b1b1-0123456789ab")},
		{name: "from an older savepoint", pinned: pinned(nil), run: green, restored: restored(39, "s3://lake/savepoints/savepoint-b1b1b1-0123456789ab"),
			hold: "restored checkpoint 39 of a savepoint of job b1b1b1"},
		{name: "from another job's savepoint", pinned: pinned(nil), run: green, restored: restored(41, "s3://lake/savepoints/savepoint-ffffff-0123456789ab"),
			hold: "does not come from the pin"},

		// It started empty.
		{name: "empty", pinned: pinned(nil), run: green, hold: "started empty"},
		{name: "empty, held, failed over", pinned: pinned(func(r *Record) { r.Held = []Run{green} }), run: green,
			restored: restored(41, green.Folder+"/chk-41"), hold: "when it was first seen"},
		{name: "held, though configured to restore", pinned: pinned(func(r *Record) { r.Held = []Run{green} }), run: green,
			restored: restored(41, green.Folder+"/chk-41"), configured: pin, hold: "when it was first seen"},
		{name: "held, and now it restored from the pin", pinned: pinned(func(r *Record) { r.Held = []Run{green} }), run: green, restored: restored(40, pin)},

		// A JobManager recovers: the same job id and folder, another start.
		{name: "recovered", pinned: pinned(nil), run: started(blue, 2500), restored: restored(41, blue.Folder+"/chk-41")},
		{name: "recovered from what is pinned", pinned: pinned(nil), run: started(blue, 2500), restored: restored(40, blue.Folder+"/chk-40")},
		{name: "recovered from something older", pinned: pinned(nil), run: started(blue, 2500), restored: restored(39, blue.Folder+"/chk-39"),
			hold: "older than the pin"},
		{name: "recovered twice", run: started(blue, 2700), restored: restored(42, blue.Folder+"/chk-42"),
			pinned: pinned(func(r *Record) { r.Run = started(blue, 2500); r.Previous = []Run{blue, navy} })},

		// A constant job id: the folder is everybody's.
		{name: "constant id, empty", pinned: pinned(nil), run: started(blue, 2500), hold: "started empty"},
		{name: "constant id, empty, held, failed over past the pin", run: started(blue, 2500), restored: restored(99, blue.Folder+"/chk-99"),
			pinned: pinned(func(r *Record) { r.Held = []Run{started(blue, 2500)} }), hold: "when it was first seen"},
		{name: "constant id, another start after a refused one", run: started(blue, 2600), restored: restored(99, blue.Folder+"/chk-99"),
			pinned: pinned(func(r *Record) { r.Held = []Run{started(blue, 2500)} }), hold: "did not restore from the pin"},
		{name: "constant id, from a savepoint that a refused run may have made", run: started(blue, 2600),
			restored: restored(99, "s3://lake/savepoints/savepoint-b1b1b1-0123456789ab"),
			pinned:   pinned(func(r *Record) { r.Held = []Run{started(blue, 2500)} }), hold: "does not come from the pin"},
		{name: "constant id, restored from the pin", run: started(blue, 2600), restored: restored(40, pin),
			pinned: pinned(func(r *Record) { r.Held = []Run{started(blue, 2500)} })},
		{name: "constant id, configured and recovered after a refused one", run: started(blue, 2600), restored: restored(41, blue.Folder+"/chk-41"), configured: pin,
			pinned: pinned(func(r *Record) { r.Held = []Run{started(blue, 2500)} })},

		// A run that was replaced does not come back.
		{name: "the run before", pinned: pinned(nil), run: navy, restored: restored(60, navy.Folder+"/chk-60"), hold: "was replaced"},
		{name: "the run before, started empty once", pinned: pinned(nil), run: navy, hold: "was replaced"},
		{name: "the run before, its JobManager recovered", pinned: pinned(nil), run: started(navy, 2600), restored: restored(60, navy.Folder+"/chk-60"), hold: "was replaced"},
		{name: "the run before, configured to restore", pinned: pinned(nil), run: navy, configured: pin, hold: "was replaced"},
		{name: "the run before, which restored what the pin was rolled back to", pinned: pinned(nil), run: navy, restored: restored(40, pin), hold: "was replaced"},

		// With constant job ids, jobs take turns: what was replaced is deployed again.
		{name: "in turn, from the pin", pinned: pinned(nil), run: started(navy, 2600), restored: restored(40, pin)},
		{name: "in turn, from something older", pinned: pinned(nil), run: started(navy, 2600), restored: restored(30, pin+"/generations/00000008-chk-30"),
			hold: "restored checkpoint 30 of the pin, which has moved on"},
		{name: "in turn, seen, then failed over", pinned: pinned(func(r *Record) { r.Seen = &Seen{started(navy, 2600), 40} }), run: started(navy, 2600),
			restored: restored(41, navy.Folder+"/chk-41")},
		{name: "in turn, from a savepoint", pinned: pinned(nil), run: started(navy, 2600), restored: restored(41, "s3://elsewhere/savepoint-b1b1b1-0123456789ab")},
		{name: "in turn, from a checkpoint", pinned: pinned(nil), run: started(navy, 2600), restored: restored(41, blue.Folder+"/chk-41")},
		{name: "in turn, from an older savepoint", pinned: pinned(nil), run: started(navy, 2600), restored: restored(39, "s3://elsewhere/savepoint-b1b1b1-0123456789ab"),
			hold: "older than the pin"},
		{name: "in turn, empty", pinned: pinned(nil), run: started(navy, 2600), hold: "was replaced"},
		{name: "in turn, from its own folder, which may be a recovery", pinned: pinned(nil), run: started(navy, 2600), restored: restored(41, navy.Folder+"/chk-41"),
			hold: "was replaced"},
		{name: "in turn, from a folder that is everybody's", pinned: pinned(func(r *Record) { r.Run.Folder = navy.Folder }), run: started(navy, 2600),
			restored: restored(41, navy.Folder+"/chk-41"), hold: "was replaced"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := lineage{layout: LayoutOf(app), pinned: c.pinned, configured: func() (string, error) { return c.configured, nil }}
			if c.siblings != "" {
				l.siblings = blobstore.MustParse(c.siblings)
			}
			v, err := l.judge(c.run, c.restored)
			require.NoError(t, err)
			if c.hold == "" {
				require.True(t, v.publish, v.reason)
				return
			}
			require.False(t, v.publish)
			require.Contains(t, v.reason, c.hold)
		})
	}
}

// What the configuration says is asked for only where it decides, and not
// guessed when it cannot be had.
func TestTheConfigurationIsAskedLast(t *testing.T) {
	down := errors.New("503")
	l := lineage{layout: LayoutOf(app), pinned: pinned(nil), configured: func() (string, error) { return "", down }}
	for _, from := range []*Restored{restored(40, "s3://lake/pins/orders/last-state"), restored(45, blue.Folder+"/chk-45"), restored(45, "s3://elsewhere/chk-45")} {
		_, err := l.judge(green, from)
		require.NoError(t, err)
	}
	_, err := l.judge(green, nil)
	require.ErrorIs(t, err, down)
	_, err = l.judge(green, restored(41, green.Folder+"/chk-41"))
	require.ErrorIs(t, err, down)
}

// The rest is the same through ticks.

// newPair is a job that is pinned at checkpoint 4 and 5, and a way to start others.
func newPair(t *testing.T) (job *flink, next func(from string, id int64) *flink) {
	job = newJob(t, hashmap)
	(&lab{t: t, store: job.store, app: app, job: job}).pinned(4, 5)
	return job, func(from string, id int64) *flink {
		return job.successor("aaaaaaaa99507e464787c646439a53ff", from, id)
	}
}

// isHeld runs a tick that must be held, and leave the pin alone.
func (f *flink) isHeld(because string) {
	f.t.Helper()
	l := LayoutOf(app)
	before := contents(f.t, f.store, l.Root)
	p, err := Pin(f.t.Context(), f.store, app, f, PinOptions{})
	var held *HeldError
	require.ErrorAs(f.t, err, &held)
	require.Contains(f.t, held.Reason, because)
	require.Contains(f.t, err.Error(), "pinned: checkpoint")
	require.True(f.t, p.Restorable)
	after := contents(f.t, f.store, l.Root)
	delete(before, recordName) // which remembers the run
	delete(after, recordName)
	require.Equal(f.t, before, after)
}

func TestAnEmptyStartIsHeldForGood(t *testing.T) {
	_, next := newPair(t)
	stranger := next("", 0)
	stranger.completes(1)
	stranger.isHeld("started empty")
	stranger.completes(90)
	stranger.isHeld("when it was first seen")
	stranger.fails()
	stranger.completes(91)
	stranger.isHeld("when it was first seen")
	stranger.restorePath = LayoutOf(app).Metadata.String()
	stranger.isHeld("when it was first seen")

	require.Equal(t, ResultPinned, stranger.pins(app, PinOptions{AcceptLineage: true}).Result)
	stranger.requireRestores(app, 91)
	stranger.completes(92)
	require.Equal(t, ResultPinned, stranger.pins(app, PinOptions{}).Result, "accepted once is accepted")
}

// It is seen to be empty before it has anything to pin.
func TestAnEmptyStartIsRememberedBeforeItsFirstCheckpoint(t *testing.T) {
	_, next := newPair(t)
	stranger := next("", 0)
	_, err := Pin(t.Context(), stranger.store, app, stranger, PinOptions{})
	require.ErrorIs(t, err, ErrNoCheckpoint)
	stranger.completes(6)
	stranger.fails()
	stranger.completes(7)
	stranger.isHeld("when it was first seen")
}

// With a constant job id the new run even writes where the pinned one wrote.
func TestAnEmptyStartUnderAConstantJobIDIsHeldForGood(t *testing.T) {
	job, _ := newPair(t)
	again := *job
	again.run.Started++
	again.latest = nil
	_, err := Pin(t.Context(), job.store, app, &again, PinOptions{})
	require.ErrorIs(t, err, ErrNoCheckpoint)
	again.completes(6)
	again.fails()
	again.completes(7)
	again.isHeld("when it was first seen")

	// The old run goes on publishing, which clears nobody.
	job.completes(8)
	job.pins(app, PinOptions{})
	again.completes(9)
	again.isHeld("when it was first seen")
}

func TestARunThatRestoredThePinIsPinned(t *testing.T) {
	_, next := newPair(t)
	green := next(LayoutOf(app).Root.String(), 5)
	_, err := Pin(t.Context(), green.store, app, green, PinOptions{})
	require.ErrorIs(t, err, ErrNoCheckpoint, "nothing to pin yet, but it was seen")
	require.EqualValues(t, 5, readRecord(t, green.store, LayoutOf(app)).Seen.RestoredID)
	green.completes(6)
	green.fails()
	green.completes(7)
	require.Equal(t, ResultPinned, green.pins(app, PinOptions{}).Result)
	green.requireRestores(app, 7)
}

// In application mode its configuration speaks for a run that nobody saw before
// its first failover, also when the JobManager has recovered since and knows no
// checkpoint.
func TestTheConfigurationSpeaksForARun(t *testing.T) {
	_, next := newPair(t)
	green := next(LayoutOf(app).Root.String(), 5)
	green.restorePath = LayoutOf(app).Metadata.String()
	green.completes(6)
	green.fails()
	green.latest = nil
	_, err := Pin(t.Context(), green.store, app, green, PinOptions{})
	require.ErrorIs(t, err, ErrNoCheckpoint)
	green.completes(7)
	green.pins(app, PinOptions{})
	green.requireRestores(app, 7)
}

func TestBlueDoesNotTakeThePinBackFromGreen(t *testing.T) {
	blue, next := newPair(t)
	green := next(LayoutOf(app).Root.String(), 5)
	green.completes(6)
	green.pins(app, PinOptions{})
	blue.completes(50)
	blue.isHeld("was replaced")
	blue.fails()
	blue.completes(51)
	blue.isHeld("was replaced")
	green.completes(7)
	green.pins(app, PinOptions{})
	green.requireRestores(app, 7)
}

// Blue and green have constant job ids and take turns.
func TestBlueComesBackAfterGreen(t *testing.T) {
	blue, next := newPair(t)
	green := next(LayoutOf(app).Root.String(), 5)
	green.completes(6)
	green.pins(app, PinOptions{})

	again := blue.successor(blue.run.JobID, LayoutOf(app).Root.String(), 6)
	again.run.Started = green.run.Started + 1
	_, err := Pin(t.Context(), again.store, app, again, PinOptions{})
	require.ErrorIs(t, err, ErrNoCheckpoint)
	again.completes(7)
	again.fails()
	again.completes(8)
	require.Equal(t, ResultPinned, again.pins(app, PinOptions{}).Result)
	again.requireRestores(app, 8)

	blue.completes(50)
	blue.isHeld("was replaced")
	green.completes(51)
	green.isHeld("was replaced")
}

// The pin is rolled back from green to blue, and green is deployed again.
func TestGreenIsDeployedAgainAfterARollback(t *testing.T) {
	_, next := newPair(t)
	l := LayoutOf(app)
	green := next(l.Root.String(), 5)
	green.completes(6)
	green.pins(app, PinOptions{})
	_, err := Rollback(t.Context(), green.store, app, RollbackOptions{})
	require.NoError(t, err)
	green.completes(7)
	green.isHeld("was replaced")

	again := green.successor(green.run.JobID, l.Root.String(), 5)
	again.completes(8)
	require.Equal(t, ResultPinned, again.pins(app, PinOptions{}).Result)
	require.Nil(t, holdOf(t, green.store, app))
	again.requireRestores(app, 8)
	green.isHeld("was replaced")
}

// The tick of blue comes first once more: green restored what is not the newest
// any more, and says so rather than lose what blue did.
func TestGreenIsHeldWhenBlueWentOn(t *testing.T) {
	blue, next := newPair(t)
	green := next(LayoutOf(app).Root.String(), 5)
	_, err := Pin(t.Context(), green.store, app, green, PinOptions{})
	require.ErrorIs(t, err, ErrNoCheckpoint)
	blue.completes(6)
	blue.pins(app, PinOptions{})
	green.completes(6)
	green.isHeld("restored checkpoint 5 of the pin, which has moved on")
	green.fails()
	green.completes(9)
	green.isHeld("restored checkpoint 5 of the pin, which has moved on")
	green.pins(app, PinOptions{AcceptLineage: true})
	green.requireRestores(app, 9)
	blue.completes(10)
	blue.isHeld("was replaced")
}

// A JobManager that recovers says another start time and remembers nothing.
func TestARecoveredRunGoesOn(t *testing.T) {
	job, _ := newPair(t)
	job.fails()
	job.run.Started++
	p := job.pins(app, PinOptions{})
	require.Equal(t, ResultUnchanged, p.Result, "it is at the checkpoint that is pinned")
	job.latest = nil
	_, err := Pin(t.Context(), job.store, app, job, PinOptions{})
	require.ErrorIs(t, err, ErrNoCheckpoint)
	job.completes(6)
	require.Equal(t, ResultPinned, job.pins(app, PinOptions{}).Result)
}

// A job that says an older checkpoint than is pinned: its statistics are cached,
// or there are two.
func TestThePinNeverGoesBack(t *testing.T) {
	job, next := newPair(t)
	job.latest = &Latest{ID: 4, Path: job.chk(4)}
	_, err := Pin(t.Context(), job.store, app, job, PinOptions{})
	require.ErrorIs(t, err, ErrNewer)
	_, err = Pin(t.Context(), job.store, app, job, PinOptions{AcceptLineage: true})
	require.ErrorIs(t, err, ErrNewer, "it is no question of lineage")

	green := next("", 0)
	green.restorePath = LayoutOf(app).Root.String()
	green.completes(3)
	_, err = Pin(t.Context(), job.store, app, green, PinOptions{})
	require.ErrorIs(t, err, ErrNewer, "whoever restored checkpoint 5 is beyond 3")
	green.state[5], job.state[5] = job.state[5], nil
	green.requireRestores(app, 5)
}

// hold.json: the operator, or a rollback, holds the pin until a run restored
// what is held.
func TestAHold(t *testing.T) {
	job, next := newPair(t)
	l := LayoutOf(app)
	put(t, job.store, l.Hold.String(), []byte(`{"layout": 1, "generation": "00000002-chk-5", "checkpointId": 5, "reason": "investigating"}`))
	job.completes(6)
	job.isHeld("on hold: investigating")
	_, err := Pin(t.Context(), job.store, app, job, PinOptions{AcceptLineage: true})
	var held *HeldError
	require.ErrorAs(t, err, &held, "a hold is not about lineage")

	green := next(l.Root.String(), 5)
	green.completes(6)
	require.Equal(t, ResultWouldPin, green.pins(app, PinOptions{DryRun: true}).Result)
	require.NotNil(t, holdOf(t, job.store, app))
	require.Equal(t, ResultPinned, green.pins(app, PinOptions{}).Result)
	require.Nil(t, holdOf(t, job.store, app))

	// One without an end is for everybody.
	put(t, job.store, l.Hold.String(), []byte(`{"layout": 1}`))
	green.completes(7)
	green.isHeld("on hold")
	remove(t, job.store, l.Hold)
	green.pins(app, PinOptions{})
	green.requireRestores(app, 7)
}
