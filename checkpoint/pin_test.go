package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint/metadata"
)

var app = blobstore.MustParse("s3://lake/pins/orders")

// newJob starts a job and a store in memory for it.
func newJob(t *testing.T, r recording) *flink {
	store, _ := memory()
	return startFlink(t, store, r, "s3://lake/flink")
}

// What Flink left, byte for byte and at the very URIs its handles name, is
// pinned, and restores when Flink has deleted all of it.
func TestPinAsFlinkLeftIt(t *testing.T) {
	for _, r := range recordings {
		t.Run(r.name, func(t *testing.T) {
			store, _ := memory()
			job := startFlink(t, store, r, r.root())
			for name, content := range job.recorded {
				put(t, store, job.folder.Join(name).String(), content)
			}
			job.latest = &Latest{ID: r.id, Path: job.chk(r.id)}
			job.state[r.id] = stateOf(t, store, job.chk(r.id))

			p := job.pins(app, PinOptions{})
			require.Equal(t, ResultPinned, p.Result)
			require.Equal(t, fmt.Sprintf("00000001-chk-%d", r.id), p.Generation)
			require.Equal(t, len(job.recorded)-1, p.Copied+p.Reused, "all files but _metadata")
			require.True(t, p.Restorable)
			require.Empty(t, p.Warnings)

			job.deletes()
			job.requireRestores(app, r.id)
			l := LayoutOf(app)
			require.Equal(t, get(t, store, l.Metadata), get(t, store, l.generation(p.Generation).Join(MetadataName)),
				"a generation starts as well as the constant path does")
			require.True(t, exists(t, store, l.Existed))
		})
	}
}

func TestAnUnchangedCheckpointIsLeftAlone(t *testing.T) {
	job := newJob(t, rocksdb)
	job.completes(6)
	job.pins(app, PinOptions{})
	writes := 0
	job.store = counting(job.store, &writes)
	p := job.pins(app, PinOptions{})
	require.Equal(t, ResultUnchanged, p.Result)
	require.True(t, p.Restorable)
	require.Zero(t, writes)
}

// counting counts the calls that write.
func counting(store blobstore.Store, writes *int) blobstore.Store {
	return hook(store, func(op string, _ blobstore.URI, do func() error) error {
		if isWrite(op) {
			*writes++
		}
		return do()
	})
}

// The next pin copies only what is new. Both generations restore, whatever Flink
// deletes.
func TestTheNextPinReusesSharedFiles(t *testing.T) {
	job := newJob(t, rocksdb)
	job.completes(6)
	first := job.pins(app, PinOptions{})
	require.Zero(t, first.Reused)
	job.completes(7)
	job.subsumes(6)
	second := job.pins(app, PinOptions{})
	require.Positive(t, second.Reused)
	require.Less(t, second.Copied, first.Copied)
	require.Equal(t, first.Copied, second.Copied+second.Reused)
	require.Less(t, second.BytesCopied, first.BytesCopied)

	job.deletes()
	job.requireRestores(app, 7)
	old := LayoutOf(app).generation(first.Generation)
	require.Equal(t, job.state[6], stateOf(t, job.store, old.Join(MetadataName)))
}

// Physical files of merged state are copied once, however many checkpoints name
// ranges in them.
func TestMergedFilesAreCopiedOnce(t *testing.T) {
	job := newJob(t, merged)
	job.completes(5)
	first := job.pins(app, PinOptions{})
	job.completes(6)
	second := job.pins(app, PinOptions{})
	require.Zero(t, second.Copied)
	require.Equal(t, first.Copied, second.Reused)
	job.deletes()
	job.requireRestores(app, 6)

	for h := range loaded(t, job.store, LayoutOf(app).Metadata).Handles() {
		if h.Kind == metadata.Directory {
			text, err := h.Path()
			require.NoError(t, err)
			require.Equal(t, "s3://lake/pins/orders/last-state/generations/00000002-chk-6/merged", text)
			require.Empty(t, below(t, job.store, blobstore.MustParse(text)), "Flink may delete this folder")
		}
	}
}

func loaded(t *testing.T, store blobstore.Store, u blobstore.URI) *Snapshot {
	t.Helper()
	s, err := Load(t.Context(), store, u, LoadOptions{})
	require.NoError(t, err)
	return s
}

func TestASavepointIsASource(t *testing.T) {
	job := newJob(t, hashmap)
	job.completes(4)
	job.pins(app, PinOptions{})
	job.savepoint(5, "s3://lake/savepoints")
	require.Equal(t, ResultPinned, job.pins(app, PinOptions{}).Result)
	job.deletes()
	job.requireRestores(app, 5)
	rec := readRecord(t, job.store, LayoutOf(app))
	require.True(t, rec.Checkpoint.Savepoint)
	require.Equal(t, job.folder.String(), rec.Run.Folder, "the savepoint's folder is not the run's")
}

// Flink registers a file system by scheme, so the pin's files are named with the
// scheme and the spelling of the job's own.
func TestPathsAreSpelledAsTheJobSpellsThem(t *testing.T) {
	for _, c := range []struct{ app, checkpoints, want string }{
		{"s3://lake/pins/orders", "s3a://lake/flink", "s3a://lake/pins/orders/last-state/state/"},
		{"s3a://lake/pins/orders/", "s3://lake/flink/", "s3://lake/pins/orders/last-state/state/"},
		{"file:///state/orders", "file:/state/flink", "file:/state/orders/last-state/state/"},
		{"/state/orders", "file:///state/flink", "file:///state/orders/last-state/state/"},
		{"abfss://c@acc.dfs.core.windows.net/orders", "wasbs://c@acc.blob.core.windows.net/flink", "wasbs://c@acc.blob.core.windows.net/orders/last-state/state/"},
	} {
		t.Run(c.checkpoints, func(t *testing.T) {
			store, _ := memory()
			job := startFlink(t, store, rocksdb, c.checkpoints)
			job.completes(6)
			job.pins(blobstore.MustParse(c.app), PinOptions{})
			for h := range loaded(t, store, LayoutOf(blobstore.MustParse(c.app)).Metadata).Handles() {
				if h.Kind != metadata.Inline {
					require.Equal(t, metadata.AbsoluteFile, h.Kind)
					text, err := h.Path()
					require.NoError(t, err)
					require.Equal(t, c.want, text[:len(c.want)])
				}
			}
		})
	}
}

// chkpin may see the volume under another path than Flink does. What it writes
// is named as Flink sees it.
func TestRelocations(t *testing.T) {
	store, _ := memory()
	flinkSees, chkpinSees := blobstore.MustParse("file:/state"), blobstore.MustParse("mem://volume/mnt")
	relocations := Relocations{{flinkSees, chkpinSees}}
	job := startFlink(t, store, rocksdb, "file:/state/flink")
	move := func() {
		for _, u := range below(t, store, flinkSees) {
			rel, _ := u.Rel(flinkSees)
			put(t, store, chkpinSees.Join(rel).String(), get(t, store, u))
			remove(t, store, u)
		}
	}
	app := blobstore.MustParse("file:/state/orders")
	for id := int64(6); id <= 8; id++ {
		job.completes(id)
		move()
		require.Equal(t, ResultPinned, job.pins(app, PinOptions{Relocations: relocations}).Result)
	}
	require.Empty(t, below(t, store, flinkSees))
	deleteBelow(t, store, chkpinSees.Join("flink"))

	r, err := Resolve(t.Context(), store, app, ResolveOptions{Relocations: relocations})
	require.NoError(t, err)
	require.Equal(t, "file:/state/orders/last-state/_metadata", r.Path.String())
	require.Empty(t, r.Warnings)
	report, err := GC(t.Context(), store, app, GCOptions{Relocations: relocations, Keep: 2, Delete: true, Now: epoch.Add(48 * time.Hour)})
	require.NoError(t, err)
	require.Positive(t, report.Deleted)

	// Mounted where Flink has it, the pin restores without a word about it.
	for _, u := range below(t, store, chkpinSees) {
		rel, _ := u.Rel(chkpinSees)
		put(t, store, flinkSees.Join(rel).String(), get(t, store, u))
	}
	job.requireRestores(app, 8)
}

// Up to Flink 1.14, and in LEGACY mode, a job that restored a pin goes on naming
// its files. They are copied like any other, so that a pin never depends on what
// a job may claim and delete.
func TestFilesOfThePinItselfAreCopiedAgain(t *testing.T) {
	job := newJob(t, rocksdb)
	job.completes(6)
	job.pins(app, PinOptions{})
	l := LayoutOf(app)
	green := job.successor("aaaaaaaa99507e464787c646439a53ff", l.Root.String(), 6)
	green.completes(7)
	u := green.chk(7).Join(MetadataName)
	owned := filesOf(t, job.store, l.Metadata)
	i := 0
	data, err := loaded(t, job.store, u).Rewrite(func(h metadata.Handle) (metadata.Path, error) {
		text, err := h.Path()
		if h.Kind == metadata.AbsoluteFile && h.Shared() { // as the pin names them, in the same order
			for ; i < len(owned); i++ {
				if owned[i].need == h.Size() {
					i++
					return metadata.Path{Text: owned[i-1].URI.String()}, nil
				}
			}
		}
		return metadata.Path{Text: text, Relative: h.Kind == metadata.RelativeFile}, err
	})
	require.NoError(t, err)
	require.Positive(t, i)
	put(t, job.store, u.String(), data)
	green.state[7] = stateOf(t, job.store, u)

	p := green.pins(app, PinOptions{})
	require.Zero(t, p.Reused)
	for _, f := range owned { // Flink, in CLAIM mode
		remove(t, job.store, f.URI)
	}
	green.requireRestores(app, 7)
}

func filesOf(t *testing.T, store blobstore.Store, u blobstore.URI) []stateFile {
	t.Helper()
	files, err := loaded(t, store, u).files()
	require.NoError(t, err)
	return files
}

func TestMaxBytes(t *testing.T) {
	job := newJob(t, hashmap)
	job.completes(4)
	var size int64
	for _, f := range filesOf(t, job.store, job.latest.Path) {
		size += f.need
	}
	p, err := Pin(t.Context(), job.store, app, job, PinOptions{MaxBytes: size - 1})
	require.ErrorIs(t, err, ErrTooLarge)
	require.Equal(t, size, p.BytesCopied, "how much it would be")
	require.NotEqual(t, ResultWouldPin, p.Result)
	require.Empty(t, below(t, job.store, app))
	require.Equal(t, ResultPinned, job.pins(app, PinOptions{MaxBytes: size}).Result)
}

func TestMinInterval(t *testing.T) {
	job := newJob(t, hashmap)
	job.completes(4) // triggered at minute 4
	job.pins(app, PinOptions{MinInterval: 10 * time.Minute})
	job.completes(13)
	p := job.pins(app, PinOptions{MinInterval: 10 * time.Minute})
	require.Equal(t, ResultSkipped, p.Result)
	require.EqualValues(t, 13, p.CheckpointID)
	require.True(t, p.Restorable)
	job.requireRestores(app, 4)
	job.completes(14)
	require.Equal(t, ResultPinned, job.pins(app, PinOptions{MinInterval: 10 * time.Minute}).Result)

	// It is between checkpoints of one run, and needs to know the times. A clock
	// that went back is no reason to wait until it is there again.
	job.completes(15)
	job.latest.Triggered = time.Time{}
	require.Equal(t, ResultPinned, job.pins(app, PinOptions{MinInterval: 10 * time.Minute}).Result)
	job.completes(16)
	require.Equal(t, ResultPinned, job.pins(app, PinOptions{MinInterval: 10 * time.Minute}).Result)
	job.completes(17)
	job.latest.Triggered = epoch.Add(-time.Hour)
	require.Equal(t, ResultPinned, job.pins(app, PinOptions{MinInterval: 10 * time.Minute}).Result)
	green := job.successor("aaaaaaaa99507e464787c646439a53ff", LayoutOf(app).Root.String(), 17)
	green.completes(18)
	green.latest.Triggered = job.latest.Triggered.Add(time.Minute)
	require.Equal(t, ResultPinned, green.pins(app, PinOptions{MinInterval: 10 * time.Minute}).Result)
}

// A pin that lost its _metadata is not made to wait.
func TestMinIntervalDoesNotDelayRepair(t *testing.T) {
	job := newJob(t, hashmap)
	job.completes(4)
	job.pins(app, PinOptions{})
	deleteBelow(t, job.store, LayoutOf(app).Generations)
	remove(t, job.store, LayoutOf(app).Metadata)
	require.Equal(t, ResultPinned, job.pins(app, PinOptions{MinInterval: time.Hour}).Result, "the same checkpoint again")
	job.requireRestores(app, 4)
}

func TestDryRunWritesNothing(t *testing.T) {
	for name, prepare := range map[string]func(*flink){
		"first pin": func(job *flink) {},
		"next pin":  func(job *flink) { job.pins(app, PinOptions{}); job.completes(5) },
		"pin.json is gone": func(job *flink) {
			job.pins(app, PinOptions{})
			job.completes(5)
			remove(t, job.store, LayoutOf(app).Record)
		},
		"_metadata is gone": func(job *flink) {
			job.pins(app, PinOptions{})
			job.completes(5)
			remove(t, job.store, LayoutOf(app).Metadata)
		},
		"_metadata is broken": func(job *flink) {
			job.pins(app, PinOptions{})
			job.completes(5)
			put(t, job.store, LayoutOf(app).Metadata.String(), nil)
		},
		"another wrote it": func(job *flink) {
			put(t, job.store, LayoutOf(app).Metadata.String(), get(t, job.store, job.chk(4).Join(MetadataName)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			job := newJob(t, hashmap)
			job.completes(4)
			prepare(job)
			before := contents(t, job.store, blobstore.MustParse("s3://lake"))
			p := job.pins(app, PinOptions{DryRun: true})
			require.Equal(t, ResultWouldPin, p.Result)
			require.Equal(t, 4, p.Copied)
			require.Positive(t, p.BytesCopied)
			require.Equal(t, before, contents(t, job.store, blobstore.MustParse("s3://lake")))
		})
	}
}

// It does not write down what it saw of a run either.
func TestDryRunRemembersNobody(t *testing.T) {
	_, next := newPair(t)
	for _, c := range []struct {
		from string
		id   int64
		want string // result; "" is held
	}{{LayoutOf(app).Root.String(), 5, ResultWouldPin}, {"", 0, ""}} {
		green := next(c.from, c.id)
		green.completes(6)
		before := contents(t, green.store, app)
		p, err := Pin(t.Context(), green.store, app, green, PinOptions{DryRun: true})
		require.Equal(t, c.want, p.Result)
		var held *HeldError
		require.Equal(t, c.want == "", errors.As(err, &held))
		require.Equal(t, before, contents(t, green.store, app))
	}
}

// A tick never publishes after its deadline, however far it got.
func TestNothingIsPublishedAfterTheDeadline(t *testing.T) {
	for _, slow := range []string{"copy", "list", "put"} {
		t.Run(slow, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				job := newJob(t, hashmap)
				job.completes(4)
				job.pins(app, PinOptions{})
				before := get(t, job.store, LayoutOf(app).Metadata)
				job.completes(5)
				store := &hooked{Store: job.store, call: func(op string, u blobstore.URI, do func() error) error {
					if op == slow && u.Within(LayoutOf(app).Root) {
						<-time.After(6 * time.Minute) // of the time of synctest
					}
					return do()
				}}
				_, err := Pin(t.Context(), store, app, job, PinOptions{})
				require.ErrorIs(t, err, ErrDeadline)
				require.Equal(t, before, get(t, job.store, LayoutOf(app).Metadata))
			})
		})
	}
}

// Interrupted is not out of time.
func TestAnInterruptedTickPublishesNothing(t *testing.T) {
	job := newJob(t, hashmap)
	job.completes(4)
	ctx, interrupt := context.WithCancelCause(t.Context())
	why := errors.New("SIGTERM")
	store := hook(job.store, func(op string, u blobstore.URI, do func() error) error {
		if op == "copy" {
			interrupt(why)
		}
		return do()
	})
	_, err := Pin(ctx, store, app, job, PinOptions{})
	require.ErrorIs(t, err, why, "whichever call notices first")
	require.NotErrorIs(t, err, ErrDeadline)
	require.False(t, exists(t, job.store, LayoutOf(app).Metadata))
}

// The moment _metadata is replaced the pin is published. What goes wrong after
// that is a warning.
func TestAPublishedPinIsASuccess(t *testing.T) {
	job := newJob(t, hashmap)
	job.completes(4)
	store := hook(job.store, func(op string, u blobstore.URI, do func() error) error {
		if op == "put" && u.Same(LayoutOf(app).Record) {
			return errRefuse
		}
		return do()
	})
	p, err := Pin(t.Context(), store, app, job, PinOptions{})
	require.NoError(t, err)
	require.Equal(t, ResultPinned, p.Result)
	require.Len(t, p.Warnings, 1)
	require.Contains(t, p.Warnings[0], errRefuse.Error())
	job.requireRestores(app, 4)
	require.Equal(t, ResultUnchanged, job.pins(app, PinOptions{}).Result)
	require.EqualValues(t, 4, readRecord(t, job.store, LayoutOf(app)).Checkpoint.ID)
}

func TestTheApplicationMustNotLieInTheJobsFolder(t *testing.T) {
	job := newJob(t, hashmap)
	job.completes(4)
	for _, inside := range []string{job.folder.String(), job.folder.Join("pins").String(), strings.Replace(job.chk(4).String(), "s3:", "s3a:", 1)} {
		_, err := Pin(t.Context(), job.store, blobstore.MustParse(inside), job, PinOptions{})
		require.ErrorIs(t, err, ErrInsideJob, inside)
	}
	job.pins(job.folder.Dir().Join("pins"), PinOptions{})
	require.Empty(t, below(t, job.store, job.folder.Join("last-state")))
}

func TestNoCheckpointYet(t *testing.T) {
	job := newJob(t, hashmap)
	p, err := Pin(t.Context(), job.store, app, job, PinOptions{})
	require.ErrorIs(t, err, ErrNoCheckpoint)
	require.False(t, p.Restorable)
	require.Empty(t, below(t, job.store, app), "nothing was pinned, so nothing is written")
	job.completes(4)
	job.pins(app, PinOptions{})
	job.latest = nil // its JobManager was started anew
	p, err = Pin(t.Context(), job.store, app, job, PinOptions{})
	require.ErrorIs(t, err, ErrNoCheckpoint)
	require.True(t, p.Restorable)
}

// A job that keeps changelog state pins, with a word about what Flink will do.
func TestChangelogIsAWarning(t *testing.T) {
	job := newJob(t, hashmap)
	data := testdata(t, "metadata/testdata/1.20.5-hashmap-changelog/_metadata")
	file, err := metadata.Parse(data)
	require.NoError(t, err)
	put(t, job.store, job.chk(file.CheckpointID).Join(MetadataName).String(), data)
	s := loaded(t, job.store, job.chk(file.CheckpointID))
	for _, f := range filesOf(t, job.store, s.URI) {
		put(t, job.store, f.URI.String(), make([]byte, f.need))
	}
	job.latest = &Latest{ID: file.CheckpointID, Path: s.URI.Dir()}
	p := job.pins(app, PinOptions{})
	require.Len(t, p.Warnings, 1)
	require.Contains(t, p.Warnings[0], "changelog")
	require.Equal(t, p.Warnings, Warnings(loaded(t, job.store, LayoutOf(app).Metadata)))
}

// Merged files that Flink has not closed are not there yet on an object store,
// though the checkpoint is complete. Nothing is pinned, and the error tells them
// from files that are gone.
func TestMergedFilesThatAreNotThereYet(t *testing.T) {
	for _, c := range []struct {
		recording recording
		empty     bool // as in Azure
		unclosed  bool
	}{{merged, false, true}, {merged, true, true}, {rocksdb, false, false}, {rocksdb, true, false}} {
		job := newJob(t, c.recording)
		job.completes(7)
		u := job.chk(7).Join(MetadataName)
		unwritten := filesOf(t, job.store, u)[0].URI
		if c.empty {
			put(t, job.store, unwritten.String(), nil)
		} else {
			remove(t, job.store, unwritten)
		}

		_, err := Pin(t.Context(), job.store, app, job, PinOptions{Sleep: noSleep})
		damaged, ok := errors.AsType[*DamagedError](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, []string{unwritten.String()}, append(damaged.Missing, damaged.WrongSize...))
		require.Equal(t, c.unclosed, damaged.Unclosed)
		require.False(t, exists(t, job.store, LayoutOf(app).Metadata))

		report, err := Verify(t.Context(), job.store, loaded(t, job.store, u))
		require.NoError(t, err)
		require.ErrorAs(t, report.Err(u), &damaged)
		require.Equal(t, c.unclosed, damaged.Unclosed)
	}
}

// On a volume a file is there as soon as it is written to, and what a pin holds was
// there once: such files are gone.
func TestMergedFilesThatAreGone(t *testing.T) {
	job := newJob(t, merged)
	job.completes(7)
	job.pins(app, PinOptions{})
	onVolume, volumeApp := newVolume(t, merged, false)
	onVolume.completes(7)
	onVolume.pins(volumeApp, PinOptions{})
	for _, c := range []struct {
		store blobstore.Store
		u     blobstore.URI
	}{
		{job.store, LayoutOf(app).Metadata},
		{onVolume.store, onVolume.chk(7).Join(MetadataName)},
	} {
		remove(t, c.store, filesOf(t, c.store, c.u)[0].URI)
		report, err := Verify(t.Context(), c.store, loaded(t, c.store, c.u))
		require.NoError(t, err)
		damaged, ok := errors.AsType[*DamagedError](report.Err(c.u))
		require.True(t, ok)
		require.Len(t, damaged.Missing, 1)
		require.False(t, damaged.Unclosed, c.u.String())
	}
}
