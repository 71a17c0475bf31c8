package checkpoint

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint/metadata"
)

// newLab is a job with a pin of each of these checkpoints, all of them long ago.
func newLab(t *testing.T, ids ...int64) *lab {
	store, clock := memory()
	x := &lab{t: t, store: store, clock: clock, app: app, job: startFlink(t, store, hashmap, "s3://lake/flink")}
	x.pinned(ids...)
	x.ageOut()
	return x
}

// gc collects by the store's clock and returns the generations that are left,
// newest first.
func (x *lab) gc(opts GCOptions) (generations []string, report GCReport) {
	x.t.Helper()
	opts.Delete, opts.Now = true, x.clock.Now()
	report, err := GC(x.t.Context(), x.store, x.app, opts)
	require.NoError(x.t, err)
	for _, u := range below(x.t, x.store, LayoutOf(x.app).Generations) {
		if u.Base() == MetadataName && sequenceOf(u.Dir().Base()) > 0 {
			generations = append(generations, u.Dir().Base())
		}
	}
	sortGenerations(generations)
	require.Len(x.t, generations, report.Kept)
	return generations, report
}

func TestGCKeepsTheNewest(t *testing.T) {
	for _, c := range []struct {
		keep int
		want []string
	}{
		{0, []string{"00000005-chk-8", "00000004-chk-7", "00000003-chk-6"}}, // the default
		{1, []string{"00000005-chk-8", "00000004-chk-7"}},                   // at least
		{4, []string{"00000005-chk-8", "00000004-chk-7", "00000003-chk-6", "00000002-chk-5"}},
	} {
		x := newLab(t, 4, 5, 6, 7, 8)
		before := len(below(t, x.store, LayoutOf(app).Root))
		got, report := x.gc(GCOptions{Keep: c.keep})
		require.Equal(t, c.want, got)
		require.Equal(t, report.Deleted, before-len(below(t, x.store, LayoutOf(app).Root)))
		require.Empty(t, unknownTo(t, x.store, app))
		x.job.deletes()
		x.job.requireRestores(app, 8)
		for _, name := range got {
			_, err := prove(t.Context(), x.store, LayoutOf(app).generation(name).Join(MetadataName), nil)
			require.NoError(t, err)
		}

		again, report := x.gc(GCOptions{Keep: c.keep})
		require.Equal(t, got, again)
		require.Zero(t, report.Deleted)
	}
}

func TestGCReportsWithoutDeleting(t *testing.T) {
	x := newLab(t, 4, 5, 6, 7, 8)
	before := contents(t, x.store, app)
	would, err := GC(t.Context(), x.store, app, GCOptions{Now: x.clock.Now()})
	require.NoError(t, err)
	require.Equal(t, before, contents(t, x.store, app))
	_, did := x.gc(GCOptions{})
	require.Equal(t, would, did)
	require.Positive(t, did.Deleted)
	require.Positive(t, did.Bytes)
	whys := map[string]bool{}
	for _, g := range slices.Concat(did.Generations, did.Files) {
		require.NotEmpty(t, g.Why, g.URI)
		whys[g.Why] = true
	}
	require.Contains(t, whys, "published")
	require.Contains(t, whys, "newer generations are enough")
	require.Contains(t, whys, "nobody names it")
}

// Without chkpin.json the loss of the pin would pass for a first start.
func TestGCPutsTheNoteBack(t *testing.T) {
	x := newLab(t, 4, 5)
	l := LayoutOf(app)
	remove(t, x.store, l.Existed)
	_, err := GC(t.Context(), x.store, app, GCOptions{})
	require.NoError(t, err)
	require.False(t, exists(t, x.store, l.Existed))
	x.gc(GCOptions{})
	deleteBelow(t, x.store, l.Root)
	_, err = Resolve(t.Context(), x.store, app, ResolveOptions{})
	require.ErrorIs(t, err, ErrPinGone)
}

// Generations that do not prove do not count, and what is left proves.
func TestGCCountsOnlyWhatProves(t *testing.T) {
	x := newLab(t, 4, 5, 6, 7, 8)
	l := LayoutOf(app)
	for _, name := range []string{"00000003-chk-6", "00000004-chk-7"} {
		remove(t, x.store, filesOf(t, x.store, l.generation(name).Join(MetadataName))[0].URI)
	}
	got, _ := x.gc(GCOptions{Keep: 2})
	require.Equal(t, []string{"00000005-chk-8", "00000002-chk-5"}, got)
}

// Without a listing that can be trusted nothing is garbage.
func TestGCDeletesNothingWhenInDoubt(t *testing.T) {
	l := LayoutOf(app)
	for name, c := range map[string]struct {
		harm func(t *testing.T, x *lab)
		says string
	}{
		"the pin is gone":     {func(t *testing.T, x *lab) { remove(t, x.store, l.Metadata) }, "last-state/_metadata"},
		"the pin is broken":   {func(t *testing.T, x *lab) { put(t, x.store, l.Metadata.String(), []byte("?")) }, "last-state/_metadata"},
		"pin.json is broken":  {func(t *testing.T, x *lab) { put(t, x.store, l.Record.String(), []byte("?")) }, "last-state/pin.json"},
		"hold.json is broken": {func(t *testing.T, x *lab) { put(t, x.store, l.Hold.String(), []byte("?")) }, "last-state/hold.json"},
		"a generation is broken": {func(t *testing.T, x *lab) {
			put(t, x.store, l.generation("00000002-chk-5").Join(MetadataName).String(), []byte("?"))
		}, "00000002-chk-5/_metadata"},
		"a manifest is broken": {func(t *testing.T, x *lab) {
			put(t, x.store, l.generation("00000002-chk-5").Join(recordName).String(), []byte("?"))
		}, "00000002-chk-5/pin.json"},
		"the pin does not prove": {func(t *testing.T, x *lab) { remove(t, x.store, filesOf(t, x.store, l.Metadata)[0].URI) }, "00000005-chk-8/_metadata"},
		"no generation proves": {func(t *testing.T, x *lab) {
			put(t, x.store, l.Metadata.String(), get(t, x.store, x.job.chk(8).Join(MetadataName)))
			deleteBelow(t, x.store, l.State)
		}, "no generation proves"},
		"the job's newest checkpoint is broken": {func(t *testing.T, x *lab) {
			put(t, x.store, x.job.chk(9).Join(MetadataName).String(), []byte("?"))
		}, "chk-9/_metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			x := newLab(t, 4, 5, 6, 7, 8)
			c.harm(t, x)
			before := contents(t, x.store, app)
			_, err := GC(t.Context(), x.store, app, GCOptions{Delete: true, Now: x.clock.Now()})
			require.ErrorIs(t, err, ErrNothingCollected)
			require.ErrorContains(t, err, c.says)
			require.Equal(t, before, contents(t, x.store, app))
		})
	}
	_, err := GC(t.Context(), newLab(t).store, app, GCOptions{})
	require.ErrorIs(t, err, ErrNoPin)
}

// chkpin deletes what chkpin made, and nothing beside it.
func TestGCLeavesOthersAlone(t *testing.T) {
	x := newLab(t, 4, 5, 6, 7, 8)
	l := LayoutOf(app)
	strange := []blobstore.URI{
		l.App.Join("README.md"),
		l.Root.Join("notes.txt"),
		l.Root.Join("_metadata.bak"),
		l.Root.Join("tmp", "0000"),
		l.State.Join("README"),
		l.State.Join("0123456789abcdef0123456789abcdef0123456789"), // too long
		l.State.Join("ABCDEF6789abcdef0123456789abcdef01234567"),   // not as we write it
		l.State.Join("sub", "0123456789abcdef0123456789abcdef01234567"),
		l.State.Join("_$folder$"),
		l.Generations.Join("README"),
		l.Generations.Join("latest", "_metadata"),
		l.Generations.Join("7-chk-7", "_metadata"),
		l.generation("00000001-chk-4").Join("notes.txt"), // beside what is collected
		l.generation("00000001-chk-4").Join("merged", "0"),
		l.State.Join(".collecting"),
	}
	for _, u := range strange {
		put(t, x.store, u.String(), []byte("mine"))
	}
	lake := contents(t, x.store, blobstore.MustParse("s3://lake/flink"))
	x.ageOut()
	_, report := x.gc(GCOptions{Keep: 2})
	require.Positive(t, report.Deleted)
	for _, u := range strange {
		require.True(t, exists(t, x.store, u), "%s is gone", u)
	}
	require.Equal(t, lake, contents(t, x.store, blobstore.MustParse("s3://lake/flink")))
	require.False(t, exists(t, x.store, l.generation("00000001-chk-4").Join(MetadataName)))
}

// What nobody names stays while a tick may be at work on it, by the store's own
// clock.
func TestGCWaitsForTheGrace(t *testing.T) {
	x := newLab(t, 4, 5)
	x.job.completes(6)
	x.killed(x.job, recordName)
	unfinished := "00000003-chk-6"
	x.clock.advance(59 * time.Minute)
	got, report := x.gc(GCOptions{})
	require.Contains(t, got, unfinished)
	require.Zero(t, report.Deleted)
	got, report = x.gc(GCOptions{Grace: 2 * time.Hour})
	require.Contains(t, got, unfinished)
	require.Zero(t, report.Deleted)

	x.clock.advance(time.Minute)
	got, report = x.gc(GCOptions{})
	require.NotContains(t, got, unfinished)
	require.Equal(t, 5, report.Deleted, "_metadata and four state files")
	require.Empty(t, unknownTo(t, x.store, app))
}

// Without a time that is given, the store's youngest object tells it, so that no
// file is thought older than it is.
func TestGCTellsTheTimeByTheStore(t *testing.T) {
	x := newLab(t, 4, 5, 6, 7, 8)
	report, err := GC(t.Context(), x.store, app, GCOptions{})
	require.NoError(t, err)
	for _, g := range report.Files {
		require.False(t, g.Delete, "all were made at once, and nothing since")
	}
	x.job.completes(9)
	x.job.pins(app, PinOptions{})
	report, err = GC(t.Context(), x.store, app, GCOptions{})
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(report.Files, func(g Garbage) bool { return g.Delete }))
}

// The last generation of each of the two runs before stays for a week.
func TestGCKeepsTheLastOfThePreviousRuns(t *testing.T) {
	x := newLab(t, 4, 5)
	id := int64(5)
	for _, jobID := range []string{"11111111", "22222222", "33333333"} {
		x.job = x.job.successor(jobID+"99507e464787c646439a53ff", LayoutOf(app).Root.String(), id)
		x.pinned(id+1, id+2)
		id += 2
	}
	x.pinned(id + 1) // the newest two are of the last run: 11 and 12
	x.ageOut()
	got, _ := x.gc(GCOptions{Keep: 2})
	require.Equal(t, []string{"00000009-chk-12", "00000008-chk-11", "00000006-chk-9", "00000004-chk-7"}, got)
	x.clock.advance(keepRunsFor)
	got, _ = x.gc(GCOptions{Keep: 2})
	require.Equal(t, []string{"00000009-chk-12", "00000008-chk-11"}, got)
}

// A job that restored a generation reads it again at every failure, until it has
// a checkpoint of its own.
func TestGCKeepsWhatARunRestored(t *testing.T) {
	for name, from := range map[string]string{
		"the constant path": LayoutOf(app).Root.String(),
		"a generation":      LayoutOf(app).generation("00000001-chk-4").String(),
	} {
		t.Run(name, func(t *testing.T) {
			x := newLab(t, 4)
			if name == "a generation" {
				x.pinned(5) // then it is held, but alive all the same
			}
			green := x.job.successor("aaaaaaaa99507e464787c646439a53ff", from, 4)
			_, err := Pin(t.Context(), x.store, app, green, PinOptions{})
			require.ErrorIs(t, err, ErrNoCheckpoint)
			x.pinned(6, 7, 8)
			x.ageOut()
			got, _ := x.gc(GCOptions{Keep: 2})
			require.Len(t, got, 3, "the newest two, and")
			require.Equal(t, "00000001-chk-4", got[2])
			_, err = prove(t.Context(), x.store, LayoutOf(app).generation("00000001-chk-4").Join(MetadataName), nil)
			require.NoError(t, err)

			green.completes(9)
			green.pins(app, PinOptions{AcceptLineage: true})
			green.completes(10)
			green.pins(app, PinOptions{})
			x.clock.advance(keepRunsFor)
			got, _ = x.gc(GCOptions{Keep: 2})
			require.Len(t, got, 2)
		})
	}
}

func TestGCKeepsWhatIsHeld(t *testing.T) {
	x := newLab(t, 4, 5, 6, 7, 8)
	l := LayoutOf(app)
	put(t, x.store, l.Hold.String(), []byte(`{"layout": 1, "generation": "00000001-chk-4", "checkpointId": 4}`))
	got, _ := x.gc(GCOptions{Keep: 2})
	require.Equal(t, []string{"00000005-chk-8", "00000004-chk-7", "00000001-chk-4"}, got)
}

// After a rollback the published generation is an old one. A tick that is about
// to publish numbers its generation after those that were left behind, of which
// none is in the way.
func TestGCAfterARollback(t *testing.T) {
	x := newLab(t, 4, 5, 6, 7, 8)
	l := LayoutOf(app)
	put(t, x.store, l.Metadata.String(), get(t, x.store, l.generation("00000001-chk-4").Join(MetadataName)))
	x.ageOut()
	x.job.completes(50)
	store := hook(x.store, func(op string, u blobstore.URI, do func() error) error {
		if op == "put" && u.Same(l.Metadata) {
			got, _ := x.gc(GCOptions{Keep: 2})
			require.Equal(t, []string{"00000006-chk-50", "00000001-chk-4"}, got)
		}
		return do()
	})
	_, err := Pin(t.Context(), store, app, x.job, PinOptions{})
	require.NoError(t, err)
	x.job.requireRestores(app, 50)
	require.Empty(t, unknownTo(t, x.store, app))
}

// Flink up to 1.14, and later in LEGACY mode, goes on naming files of the pin it
// restored in its own checkpoints, for as long as RocksDB does not rewrite them.
func TestGCKeepsWhatJobsGoOnNaming(t *testing.T) {
	pin := LayoutOf(app).Root.String()
	for name, c := range map[string]struct {
		from  string // what the job restored
		id    int64
		alive func(x *lab, green *flink)
	}{
		"the pinned run": {pin, 6, func(x *lab, green *flink) {
			for id := int64(7); id < 12; id++ {
				green.completes(id)
				green.pins(x.app, PinOptions{})
			}
		}},
		"a run that is held": {"s3://lake/flink/" + hashmap.job + "/chk-3", 3, func(x *lab, green *flink) {
			green.completes(7)
			green.isHeld("older than the pin")
			x.pinned(7, 8, 9, 10, 11)
		}},
		"a run that was replaced": {pin, 6, func(x *lab, green *flink) {
			green.completes(7)
			green.pins(x.app, PinOptions{})
			last := green.successor("bbbbbbbb99507e464787c646439a53ff", pin, 7)
			for id := int64(8); id < 12; id++ {
				last.completes(id)
				last.pins(x.app, PinOptions{})
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			x := newLab(t, 6)
			kept := filesOf(t, x.store, LayoutOf(app).Metadata)[0].URI
			green := x.job.successor("aaaaaaaa99507e464787c646439a53ff", c.from, c.id)
			c.alive(x, green)
			u := green.chk(12).Join(MetadataName) // its newest, not pinned yet
			green.completes(12)
			first := true
			data, err := loaded(t, x.store, u).Rewrite(func(h metadata.Handle) (metadata.Path, error) {
				text, err := h.Path()
				if first {
					first, text = false, kept.String()
				}
				return metadata.Path{Text: text, Relative: text != kept.String() && h.Kind == metadata.RelativeFile}, err
			})
			require.NoError(t, err)
			put(t, x.store, u.String(), data)
			remove(t, x.store, green.chk(11).Join(MetadataName))
			put(t, x.store, green.chk(13).Join("not-complete-yet").String(), nil)

			x.clock.advance(2 * keepRunsFor)
			got, _ := x.gc(GCOptions{Keep: 2})
			require.NotContains(t, got, "00000001-chk-6")
			require.True(t, exists(t, x.store, kept), "the job would not survive its next failure")
			deleteBelow(t, x.store, green.folder)
			x.gc(GCOptions{Keep: 2})
			require.False(t, exists(t, x.store, kept))
		})
	}
}

// A tick collects by itself when enough has piled up, and says what went wrong
// without failing: the pin is good.
func TestTicksCollectNowAndThen(t *testing.T) {
	x := newLab(t)
	most := 0
	for id := int64(1); id <= 40; id++ {
		x.pinned(id)
		x.clock.advance(10 * time.Minute)
		names, err := generationNames(t.Context(), x.store, LayoutOf(app))
		require.NoError(t, err)
		most = max(most, len(names))
	}
	require.Equal(t, defaultKeep+slack, most)
	x.job.requireRestores(app, 40)

	put(t, x.store, LayoutOf(app).Generations.Join("00000001-chk-1", recordName).String(), []byte("?"))
	warned := ""
	for id := int64(41); id < 60 && warned == ""; id++ {
		x.job.completes(id)
		if p := x.job.pins(app, PinOptions{}); len(p.Warnings) > 0 {
			warned = p.Warnings[0]
			require.Equal(t, ResultPinned, p.Result)
		}
	}
	require.Contains(t, warned, "00000001-chk-1/pin.json")
}

// A tick that may take long is not collected away.
func TestTheGraceOfATickIsThreeDeadlines(t *testing.T) {
	x := newLab(t, 4, 5)
	x.job.completes(6)
	x.killed(x.job, recordName)
	x.clock.advance(5 * time.Hour)
	rec := readRecord(t, x.store, LayoutOf(app))
	rec.Generations = 40
	put(t, x.store, LayoutOf(app).Record.String(), rec.encode())
	x.job.completes(7)
	x.job.pins(app, PinOptions{Timeout: 2 * time.Hour})
	require.True(t, exists(t, x.store, LayoutOf(app).generation("00000003-chk-6").Join(MetadataName)))
	require.Equal(t, 4, readRecord(t, x.store, LayoutOf(app)).Generations)
	x.clock.advance(time.Hour)
	rec = readRecord(t, x.store, LayoutOf(app))
	rec.Generations = 40
	put(t, x.store, LayoutOf(app).Record.String(), rec.encode())
	x.job.completes(8)
	x.job.pins(app, PinOptions{Timeout: 2 * time.Hour})
	require.False(t, exists(t, x.store, LayoutOf(app).generation("00000003-chk-6").Join(MetadataName)))
}

// The announcement names every file before the first is deleted.
func TestACollectionAnnouncesWhatItDeletes(t *testing.T) {
	x := newLab(t, 4, 5, 6, 7, 8)
	l := LayoutOf(app)
	deleted := map[string]bool{}
	store := hook(x.store, func(op string, u blobstore.URI, do func() error) error {
		if op == "delete" && u.Dir().Same(l.State) && stateFileName(u.Base()) {
			announcements := announced(t, x.store, app)
			require.Len(t, announcements, 1)
			require.Contains(t, announcements[0].Files, u.Base())
			deleted[u.Base()] = true
		}
		return do()
	})
	_, err := GC(t.Context(), store, app, GCOptions{Keep: 2, Delete: true, Now: x.clock.Now()})
	require.NoError(t, err)
	require.Len(t, deleted, 3*4, "three generations of four files: %s", fmt.Sprint(deleted))
	require.Empty(t, announced(t, x.store, app))
}

// announced reads what collections have announced.
func announced(t testing.TB, store blobstore.Store, app blobstore.URI) (found []announcement) {
	for _, u := range below(t, store, LayoutOf(app).State) {
		if strings.HasPrefix(u.Base(), announcementPrefix) {
			var a announcement
			_, ok, err := readJSON(context.Background(), store, u, &a)
			require.NoError(t, err)
			require.True(t, ok)
			found = append(found, a)
		}
	}
	return found
}

// A collection deletes nothing after its deadline, nor when ticks may take it for
// killed. One that has deleted nothing takes its announcement back, so that no
// tick waits for it.
func TestACollectionIsBounded(t *testing.T) {
	for _, c := range []struct {
		slow    string
		timeout time.Duration
	}{{"list", time.Minute}, {"delete", time.Minute}, {"list", time.Hour}, {"delete", time.Hour}} {
		t.Run(fmt.Sprint(c.slow, " ", c.timeout), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				job := newJob(t, hashmap)
				for id := int64(4); id < 9; id++ {
					job.completes(id)
					job.pins(app, PinOptions{})
				}
				before := contents(t, job.store, app)
				var announced atomic.Bool
				store := &hooked{Store: job.store, call: func(op string, u blobstore.URI, do func() error) error {
					if op == "put" {
						announced.Store(true)
					}
					if op == c.slow && announced.Load() && !strings.HasPrefix(u.Base(), announcementPrefix) {
						<-time.After(collectFor + time.Minute) // of the time of synctest
					}
					return do()
				}}
				_, err := GC(t.Context(), store, app, GCOptions{Delete: true, Timeout: c.timeout})
				require.ErrorIs(t, err, ErrCollectTime)
				require.True(t, announced.Load())
				left := contents(t, job.store, app)
				if c.slow == "delete" { // one may be under way still: the announcement stays
					for name := range left {
						if strings.Contains(name, announcementPrefix) {
							delete(left, name)
						}
					}
				}
				require.Equal(t, before, left)
				report, err := GC(t.Context(), job.store, app, GCOptions{Delete: true})
				require.NoError(t, err)
				require.Positive(t, report.Deleted)
			})
		})
	}
}
