package checkpoint

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// last-state/_metadata is the truth. What else lies in a pin may be lost, stale
// or broken: the next tick mends it.

func TestPinJSONIsMended(t *testing.T) {
	l := LayoutOf(app)
	for name, harm := range map[string]func(t *testing.T, job *flink, before []byte){
		"lost":  func(t *testing.T, job *flink, _ []byte) { remove(t, job.store, l.Record) },
		"stale": func(t *testing.T, job *flink, before []byte) { put(t, job.store, l.Record.String(), before) },
		"empty": func(t *testing.T, job *flink, _ []byte) { put(t, job.store, l.Record.String(), nil) },
		"not JSON": func(t *testing.T, job *flink, _ []byte) {
			put(t, job.store, l.Record.String(), []byte("{\"layout\": 1,"))
		},
		"JSON of something else": func(t *testing.T, job *flink, _ []byte) {
			put(t, job.store, l.Record.String(), []byte(`{"name": "orders"}`))
		},
		"of a pin that was copied": func(t *testing.T, job *flink, _ []byte) {
			put(t, job.store, l.Metadata.String(), get(t, job.store, l.Metadata))
		},
	} {
		t.Run(name, func(t *testing.T) {
			job := newJob(t, hashmap)
			job.completes(4)
			job.pins(app, PinOptions{})
			before := get(t, job.store, l.Record)
			job.completes(5)
			job.pins(app, PinOptions{})
			want := readRecord(t, job.store, l)

			harm(t, job, before)
			p := job.pins(app, PinOptions{})
			require.Equal(t, ResultUnchanged, p.Result)
			require.Equal(t, "00000002-chk-5", p.Generation)
			got := readRecord(t, job.store, l)
			want.Metadata.Tag, got.Metadata.Tag = "", ""
			require.Equal(t, want, got)
			writes := 0
			job.store = counting(job.store, &writes)
			require.Equal(t, ResultUnchanged, job.pins(app, PinOptions{}).Result)
			require.Zero(t, writes, "once is enough")
		})
	}
}

// A newer chkpin may have changed what the files mean. An older one keeps its
// hands off, but a pin that restores is a pin that restores.
func TestAPinOfANewerChkpin(t *testing.T) {
	job := newJob(t, hashmap)
	job.completes(4)
	job.pins(app, PinOptions{})
	put(t, job.store, LayoutOf(app).Record.String(), []byte(`{"layout": 2}`))
	before := contents(t, job.store, app)
	job.completes(5)
	_, err := Pin(t.Context(), job.store, app, job, PinOptions{})
	require.ErrorContains(t, err, "layout 2, this one knows 1")
	_, err = GC(t.Context(), job.store, app, GCOptions{Delete: true, Now: epoch.Add(48 * time.Hour)})
	require.ErrorIs(t, err, ErrNothingCollected)
	require.Equal(t, before, contents(t, job.store, app))
	r, err := Resolve(t.Context(), job.store, app, ResolveOptions{})
	require.NoError(t, err)
	require.Contains(t, strings.Join(r.Warnings, "\n"), "layout 2")
}

// A _metadata that vanished, or was overwritten by something that is no
// checkpoint, is put back also when the job has nothing newer.
func TestMetadataIsPutBack(t *testing.T) {
	l := LayoutOf(app)
	for name, harm := range map[string]func(t *testing.T, job *flink){
		"vanished": func(t *testing.T, job *flink) { remove(t, job.store, l.Metadata) },
		"empty":    func(t *testing.T, job *flink) { put(t, job.store, l.Metadata.String(), nil) },
		"half": func(t *testing.T, job *flink) {
			data := get(t, job.store, l.Metadata)
			put(t, job.store, l.Metadata.String(), data[:len(data)/2])
		},
		"pin.json vanished too": func(t *testing.T, job *flink) { remove(t, job.store, l.Metadata); remove(t, job.store, l.Record) },
	} {
		t.Run(name, func(t *testing.T) {
			job := newJob(t, hashmap)
			job.completes(4)
			job.pins(app, PinOptions{})
			job.completes(5)
			job.pins(app, PinOptions{})
			pinned := get(t, job.store, l.Metadata)
			harm(t, job)
			p := job.pins(app, PinOptions{})
			require.Equal(t, ResultUnchanged, p.Result)
			require.True(t, p.Restorable)
			require.Contains(t, strings.Join(p.Warnings, "\n"), "put back from generation 00000002-chk-5")
			require.Equal(t, pinned, get(t, job.store, l.Metadata))
			job.requireRestores(app, 5)
		})
	}
}

// A job that claims the pin deletes it, at its first checkpoint: _metadata and
// state files that older generations may share. What is put back is older than
// what the job restored, and yet the job goes on with the pin, also when the tick
// that put it back came no further.
func TestAClaimedPinIsFollowed(t *testing.T) {
	l := LayoutOf(app)
	job := newJob(t, hashmap)
	x := &lab{t: t, store: job.store, app: app, job: job}
	x.pinned(4, 5)
	green := x.green(l.Root, 5)
	x.claimed()
	for range 2 {
		_, err := Pin(t.Context(), job.store, app, green, PinOptions{})
		require.ErrorIs(t, err, ErrNoCheckpoint)
		job.requireRestores(app, 4)
		require.EqualValues(t, 5, readRecord(t, job.store, l).Lost)
		remove(t, job.store, l.Metadata) // once more, by whoever
	}

	green.completes(6)
	p := green.pins(app, PinOptions{})
	require.Equal(t, ResultPinned, p.Result)
	require.Equal(t, RestoredPin, p.RestoredFrom)
	green.requireRestores(app, 6)
	require.Zero(t, readRecord(t, job.store, l).Lost)

	// What was rolled back is not lost.
	green.completes(7)
	green.pins(app, PinOptions{})
	blue := green.successor("bbbbbbbb99507e464787c646439a53ff", l.Root.String(), 7)
	_, err := Rollback(t.Context(), job.store, app, RollbackOptions{})
	require.NoError(t, err)
	blue.completes(8)
	blue.isHeld("rolled back")
}

// Also when nothing is left that could be put back.
func TestAClaimedPinOfWhichNothingIsLeftIsFollowed(t *testing.T) {
	l := LayoutOf(app)
	x := newLab(t, 4)
	x.pinned(5)
	green := x.green(l.Root, 5)
	deleteBelow(t, x.store, l.State)
	remove(t, x.store, l.Metadata)
	green.completes(6)
	p := green.pins(app, PinOptions{})
	require.Equal(t, ResultPinned, p.Result)
	require.Equal(t, RestoredPin, p.RestoredFrom)
	require.Contains(t, strings.Join(p.Warnings, "\n"), "last-state/_metadata was missing or damaged, and of no generation is every file there")
	green.requireRestores(app, 6)
}

// Neither is it when the rollback was killed before pin.json told of it; nor, as the
// hold shows, what nobody can put back any more.
func TestAKilledRollbackLosesNothing(t *testing.T) {
	l := LayoutOf(app)
	for name, gone := range map[string]bool{"whole": false, "damaged": true} {
		t.Run(name, func(t *testing.T) {
			x := newLab(t, 4)
			x.pinned(5)
			blue := x.green(l.Root, 5)
			if gone {
				x.damaged()
			}
			_, err := Rollback(t.Context(), killedAt(x.store, l.Record), app, RollbackOptions{}) // published, and on hold
			require.NoError(t, err)
			if gone {
				blue.completes(6)
				blue.isHeld("rolled back") // and mends pin.json
			}
			_, err = Release(t.Context(), x.store, app, RollbackOptions{})
			require.NoError(t, err)
			x.job.requireRestores(app, 4)

			blue.completes(6)
			blue.isHeld("rolled back")
			require.Zero(t, readRecord(t, x.store, l).Lost)
		})
	}
}

// Nor when another lineage was accepted, at a lower number, by a tick that was
// killed then.
func TestAnAcceptedLineageLosesNothing(t *testing.T) {
	l := LayoutOf(app)
	x := newLab(t, 4)
	x.pinned(5)
	blue := x.green(l.Root, 5)
	x.damaged()
	stranger := x.job.successor("bbbbbbbb99507e464787c646439a53ff", "", 0)
	stranger.completes(2)
	_, err := Pin(t.Context(), killedAt(x.store, l.Record), app, stranger, PinOptions{AcceptLineage: true})
	require.NoError(t, err)
	stranger.requireRestores(app, 2)

	blue.completes(6)
	blue.isHeld("rolled back")
	require.Zero(t, readRecord(t, x.store, l).Lost)
}

// damaged takes from the pin what only the published generation names.
func (x *lab) damaged() {
	x.t.Helper()
	u := LayoutOf(x.app).Metadata
	published := get(x.t, x.store, u)
	x.claimed()
	put(x.t, x.store, u.String(), published)
	x.job.pins(x.app, PinOptions{}) // mends pin.json
}

// killedAt is a store for who is killed when it puts this object.
func killedAt(store blobstore.Store, at blobstore.URI) blobstore.Store {
	return hook(store, func(op string, u blobstore.URI, do func() error) error {
		if op == "put" && u.Same(at) {
			return errKilled
		}
		return do()
	})
}

// The generation that is put back is the published one, not a newer one that was
// rolled back; the newest that proves only if that is lost.
func TestARollbackIsNotUndoneByPuttingBack(t *testing.T) {
	l := LayoutOf(app)
	job := newJob(t, hashmap)
	x := &lab{t: t, store: job.store, app: app, job: job}
	x.pinned(4, 5, 6)
	put(t, job.store, l.Hold.String(), []byte(`{"layout": 1, "generation": "00000001-chk-4", "checkpointId": 4, "reason": "bad release"}`))
	put(t, job.store, l.Metadata.String(), get(t, job.store, l.generation("00000001-chk-4").Join(MetadataName)))
	job.completes(7)
	_, err := Pin(t.Context(), job.store, app, job, PinOptions{}) // mends pin.json
	var held *HeldError
	require.ErrorAs(t, err, &held)
	require.Contains(t, held.Reason, "bad release")
	require.Equal(t, "00000001-chk-4", readRecord(t, job.store, l).Generation)

	remove(t, job.store, l.Metadata)
	r, err := Resolve(t.Context(), job.store, app, ResolveOptions{})
	require.NoError(t, err)
	require.Equal(t, "00000001-chk-4", r.Generation)
	_, err = Pin(t.Context(), job.store, app, job, PinOptions{})
	require.ErrorAs(t, err, &held)
	job.requireRestores(app, 4)

	remove(t, job.store, l.Metadata)
	for _, f := range filesOf(t, job.store, l.generation("00000001-chk-4").Join(MetadataName)) {
		remove(t, job.store, f.URI)
	}
	_, err = Pin(t.Context(), job.store, app, job, PinOptions{})
	require.ErrorAs(t, err, &held)
	job.requireRestores(app, 6)
}

// Nothing proves any more: then the job's newest checkpoint is published, the
// same one if need be.
func TestAPinThatIsBeyondRepairIsMadeAnew(t *testing.T) {
	l := LayoutOf(app)
	for name, harm := range map[string]func(t *testing.T, job *flink){
		"all of it is gone": func(t *testing.T, job *flink) { deleteBelow(t, job.store, l.Root) },
		"only pin.json is left": func(t *testing.T, job *flink) {
			remove(t, job.store, l.Metadata)
			deleteBelow(t, job.store, l.Generations)
		},
		"_metadata is broken": func(t *testing.T, job *flink) {
			put(t, job.store, l.Metadata.String(), []byte("?"))
			deleteBelow(t, job.store, l.Generations)
		},
		"state and _metadata are": func(t *testing.T, job *flink) {
			put(t, job.store, l.Metadata.String(), []byte("?"))
			deleteBelow(t, job.store, l.State)
		},
	} {
		t.Run(name, func(t *testing.T) {
			job := newJob(t, hashmap)
			job.completes(4)
			job.pins(app, PinOptions{})
			harm(t, job)
			p := job.pins(app, PinOptions{})
			require.Equal(t, ResultPinned, p.Result)
			job.requireRestores(app, 4)
			require.Equal(t, ResultUnchanged, job.pins(app, PinOptions{}).Result)
		})
	}
}

// No copy is taken at its word: what is not there when all are made is copied
// again.
func TestACopyThatVanishesIsMadeAgain(t *testing.T) {
	job := newJob(t, hashmap)
	job.completes(4)
	l := LayoutOf(app)
	vanished := false
	store := hook(job.store, func(op string, u blobstore.URI, do func() error) error {
		if made := below(t, job.store, l.State); len(made) == 4 && !vanished {
			vanished = true
			remove(t, job.store, made[2])
		}
		return do()
	})
	p, err := Pin(t.Context(), store, app, job, PinOptions{Sleep: noSleep})
	require.NoError(t, err)
	require.Equal(t, ResultPinned, p.Result)
	require.True(t, vanished)
	job.requireRestores(app, 4)
}

// Generations are numbered, and of one number the higher checkpoint is newer:
// chk-10 comes after chk-9.
func TestOrderOfGenerations(t *testing.T) {
	names := []string{"00000002-chk-9", "100000000-chk-1", "00000010-chk-1", "00000002-chk-10"}
	sortGenerations(names)
	require.Equal(t, []string{"100000000-chk-1", "00000010-chk-1", "00000002-chk-10", "00000002-chk-9"}, names)
}

// A _metadata that a script copied there, before chkpin came or after.
func TestAForeignPin(t *testing.T) {
	l := LayoutOf(app)
	foreign := func(t *testing.T, id int64) *flink { // a job whose checkpoint a script copies
		job := newJob(t, hashmap)
		job.completes(id)
		put(t, job.store, l.Metadata.String(), get(t, job.store, job.chk(id).Join(MetadataName)))
		return job
	}
	t.Run("gives way to the job that has come as far", func(t *testing.T) {
		job := foreign(t, 4)
		p := job.pins(app, PinOptions{})
		require.Equal(t, ResultPinned, p.Result)
		require.Contains(t, p.Warnings[0], "which chkpin did not write")
		job.requireRestores(app, 4)
	})
	t.Run("gives way to the job that restored it", func(t *testing.T) {
		job := foreign(t, 40)
		green := job.successor("aaaaaaaa99507e464787c646439a53ff", l.Root.String(), 40)
		green.completes(5)
		green.pins(app, PinOptions{})
		green.requireRestores(app, 5)
	})
	t.Run("is not given up for a job that is behind", func(t *testing.T) {
		job := foreign(t, 40)
		before := get(t, job.store, l.Metadata)
		job.completes(39)
		p, err := Pin(t.Context(), job.store, app, job, PinOptions{})
		var held *HeldError
		require.ErrorAs(t, err, &held)
		require.Contains(t, held.Error(), "holds checkpoint 40, which chkpin did not write")
		require.False(t, p.Restorable, "nobody proved it")
		require.Equal(t, before, get(t, job.store, l.Metadata))
		p = job.pins(app, PinOptions{AcceptLineage: true})
		require.Equal(t, ResultPinned, p.Result)
		job.requireRestores(app, 39)
	})
	t.Run("over a pin of ours is replaced, though the checkpoint is pinned", func(t *testing.T) {
		job := newJob(t, hashmap)
		job.completes(4)
		job.pins(app, PinOptions{})
		put(t, job.store, l.Metadata.String(), get(t, job.store, job.chk(4).Join(MetadataName)))
		require.Equal(t, ResultPinned, job.pins(app, PinOptions{}).Result)
		job.deletes()
		job.requireRestores(app, 4)
	})
	t.Run("over a pin of ours is no way in for a stranger", func(t *testing.T) {
		job := newJob(t, hashmap)
		job.completes(4)
		job.pins(app, PinOptions{})
		stranger := job.successor("bbbbbbbb99507e464787c646439a53ff", "", 0)
		stranger.completes(50)
		put(t, job.store, l.Metadata.String(), get(t, job.store, stranger.chk(50).Join(MetadataName)))
		_, err := Pin(t.Context(), job.store, app, stranger, PinOptions{})
		var held *HeldError
		require.ErrorAs(t, err, &held)
	})
	t.Run("over a pin of ours is a start for who restored it", func(t *testing.T) {
		job := newJob(t, hashmap)
		job.completes(4)
		job.pins(app, PinOptions{})
		job.completes(6)
		put(t, job.store, l.Metadata.String(), get(t, job.store, job.chk(6).Join(MetadataName)))
		green := job.successor("aaaaaaaa99507e464787c646439a53ff", l.Root.String(), 6)
		green.completes(7)
		green.pins(app, PinOptions{})
		green.requireRestores(app, 7)
	})
}

// A record stays small whatever there is to remember; what it forgets first is
// what was replaced longest ago.
func TestARecordStaysSmall(t *testing.T) {
	long := func(i int, what string) Run {
		id := fmt.Sprintf("%032x", i)
		return Run{JobID: id, JobName: shorten(strings.Repeat("insert-into_default_catalog.", 100)), Started: int64(i),
			Folder: "s3://lake/" + strings.Repeat(what, 300) + "/" + id}
	}
	r := Record{Layout: 1, Generation: "00000001-chk-1", Run: long(0, "x")}
	r.Checkpoint.Source = r.Run.Folder + "/chk-1"
	r.Metadata = MetadataRecord{SHA256: digestOf(nil), Size: 1, Tag: strings.Repeat("t", 40)}
	for i := 1; i <= 50; i++ {
		next := Record{Layout: 1, Generation: "00000001-chk-1", Metadata: r.Metadata, Checkpoint: r.Checkpoint, Run: long(i, "x")}
		r = next.succeeds(r.withHeld(long(1000+i, "held")))
		require.Less(t, len(r.encode()), maxRecord)
	}
	store, _ := memory()
	put(t, store, LayoutOf(app).Record.String(), r.encode())
	got := readRecord(t, store, LayoutOf(app))
	require.Equal(t, r.Run, got.Run)
	require.Equal(t, r.Checkpoint, got.Checkpoint)
	require.GreaterOrEqual(t, len(got.Previous), keepRuns)
	require.Equal(t, r.Previous[:len(got.Previous)], got.Previous)
}

// The same through ticks: a job whose JobManager recovers again and again, with
// the name of a long SQL statement.
func TestARecordOfManyRecoveriesStaysSmall(t *testing.T) {
	job := newJob(t, hashmap)
	job.run.JobName = strings.Repeat("insert-into_", 1000)
	for id := int64(4); id < 44; id++ {
		job.completes(id)
		require.Equal(t, ResultPinned, job.pins(app, PinOptions{}).Result)
		require.Less(t, len(get(t, job.store, LayoutOf(app).Record)), maxRecord)
		job.fails()
		job.run.Started++
	}
	for _, u := range below(t, job.store, LayoutOf(app).Generations) {
		if u.Base() == recordName {
			require.Less(t, len(get(t, job.store, u)), maxRecord)
		}
	}
}

// Two applications in one folder tree do not see each other.
func TestApplicationsAreApart(t *testing.T) {
	job := newJob(t, hashmap)
	job.completes(4)
	other := blobstore.MustParse("s3://lake/pins/orders-2")
	job.pins(app, PinOptions{})
	job.pins(other, PinOptions{})
	deleteBelow(t, job.store, app)
	job.requireRestores(other, 4)
}

// What was pinned is gone, and only the record that there was state is left. A
// run that started empty must not make that look like a first start.
func TestALostPinIsNoFirstStart(t *testing.T) {
	lost := func(t *testing.T) (*flink, *flink) {
		job := newJob(t, hashmap)
		job.completes(4)
		job.pins(app, PinOptions{})
		deleteBelow(t, job.store, LayoutOf(app).Root)
		empty := job.successor("aaaaaaaa99507e464787c646439a53ff", "", 0)
		empty.restored = nil
		empty.completes(1)
		return job, empty
	}
	t.Run("held", func(t *testing.T) {
		_, empty := lost(t)
		_, err := Pin(t.Context(), empty.store, app, empty, PinOptions{})
		var held *HeldError
		require.ErrorAs(t, err, &held)
		require.Contains(t, held.Reason, "none is left, and this run started empty")
		require.False(t, exists(t, empty.store, LayoutOf(app).Metadata))
	})
	t.Run("accepted", func(t *testing.T) {
		_, empty := lost(t)
		p := empty.pins(app, PinOptions{AcceptLineage: true})
		require.Contains(t, strings.Join(p.Warnings, "\n"), "a new history begins")
	})
	t.Run("restored from elsewhere", func(t *testing.T) {
		_, other := lost(t)
		other.restored = &Restored{ID: 1, Path: blobstore.MustParse("s3://lake/backup/chk-1")}
		p := other.pins(app, PinOptions{})
		require.Contains(t, strings.Join(p.Warnings, "\n"), "a new history begins")
	})
	t.Run("the run whose state it was", func(t *testing.T) {
		job, _ := lost(t)
		require.Empty(t, job.pins(app, PinOptions{}).Warnings)
	})
}

// A first tick that cannot copy has pinned nothing: the job may start without state
// once more.
func TestAFirstTickThatFailsLeavesAFirstStart(t *testing.T) {
	job := newJob(t, hashmap)
	job.completes(4)
	lost := filesOf(t, job.store, job.latest.Path.Join(MetadataName))[0].URI
	content := get(t, job.store, lost)
	remove(t, job.store, lost)
	var damaged *DamagedError
	_, err := Pin(t.Context(), job.store, app, job, PinOptions{Sleep: noSleep})
	require.ErrorAs(t, err, &damaged)
	_, err = Resolve(t.Context(), job.store, app, ResolveOptions{})
	require.ErrorIs(t, err, ErrNoPin)

	put(t, job.store, lost.String(), content)
	job.pins(app, PinOptions{})
	job.requireRestores(app, 4)
	deleteBelow(t, job.store, LayoutOf(app).Root)
	_, err = Resolve(t.Context(), job.store, app, ResolveOptions{})
	require.ErrorIs(t, err, ErrPinGone)
}
