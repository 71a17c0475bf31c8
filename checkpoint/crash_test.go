package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// A tick or a collection comes to grief at its k-th storage call, for every k
// and in every way a call can fail. At every instant the pin restores. After it
// a fresh tick pins, resolve gives a path that restores, and once the grace is
// over a collection leaves nothing that nobody knows.

var (
	errKilled = errors.New("killed")
	errRefuse = errors.New("503 slow down")
)

// grief is a way in which the k-th call fails.
type grief struct {
	name  string
	fault func(k int) func(n int, do func() error) error
}

var griefs = []grief{
	{"killed before the call", func(k int) func(int, func() error) error {
		return func(n int, do func() error) error {
			if n >= k {
				return errKilled
			}
			return do()
		}
	}},
	{"killed after the call", func(k int) func(int, func() error) error {
		return func(n int, do func() error) error {
			if n <= k {
				if err := do(); n < k {
					return err
				}
			}
			return errKilled
		}
	}},
	{"the call is refused", func(k int) func(int, func() error) error {
		return func(n int, do func() error) error {
			if n == k {
				return errRefuse
			}
			return do()
		}
	}},
	{"the answer is lost", func(k int) func(int, func() error) error {
		return func(n int, do func() error) error {
			err := do()
			if n == k {
				return errRefuse
			}
			return err
		}
	}},
	{"the answer is lost and the client tries again", func(k int) func(int, func() error) error {
		return func(n int, do func() error) error {
			if n == k {
				_ = do()
			}
			return do()
		}
	}},
}

// story is a pin and something that happens to it. It adds the actor and
// returns the job that has the pin in the end.
type story struct {
	name    string
	prepare func(x *lab) *flink
	after   func(x *lab, job *flink) // what must hold then; nil means that the job goes on being pinned
}

var stories = []story{
	{name: "the first pin", prepare: func(x *lab) *flink {
		x.job.completes(4)
		x.ticks(x.job, PinOptions{Sleep: noSleep})
		return x.job
	}},
	{name: "the next pin", prepare: func(x *lab) *flink {
		x.pinned(4)
		x.job.completes(5)
		x.ticks(x.job, PinOptions{})
		return x.job
	}},
	{name: "_metadata vanished", prepare: func(x *lab) *flink {
		x.pinned(4, 5)
		remove(x.t, x.store, LayoutOf(x.app).Metadata)
		x.ticks(x.job, PinOptions{})
		return x.job
	}},
	{name: "pin.json vanished", prepare: func(x *lab) *flink {
		x.pinned(4, 5)
		remove(x.t, x.store, LayoutOf(x.app).Record)
		x.job.completes(6)
		x.ticks(x.job, PinOptions{})
		return x.job
	}},
	{name: "a successor has nothing to pin yet", prepare: func(x *lab) *flink {
		x.pinned(4)
		green := x.green(LayoutOf(x.app).Root, 4)
		x.ticks(green, PinOptions{})
		green.completes(5)
		return green
	}},
	{name: "a successor pins", prepare: func(x *lab) *flink {
		x.pinned(4)
		green := x.green(LayoutOf(x.app).Root, 4)
		green.completes(5)
		x.ticks(green, PinOptions{})
		return green
	}},
	{name: "the pin was rolled back and held, and a job restored what is held", prepare: func(x *lab) *flink {
		x.pinned(4, 5)
		l := LayoutOf(x.app)
		put(x.t, x.store, l.Hold.String(), []byte(`{"layout": 1, "generation": "00000001-chk-4", "checkpointId": 4}`))
		put(x.t, x.store, l.Metadata.String(), get(x.t, x.store, l.generation("00000001-chk-4").Join(MetadataName)))
		green := x.green(l.Root, 4)
		green.completes(5)
		x.ticks(green, PinOptions{})
		return green
	}},
	{name: "a collection", prepare: func(x *lab) *flink {
		x.pinned(4, 5, 6)
		x.job.completes(7)
		x.killed(x.job, recordName)
		x.job.completes(8)
		x.ageOut()
		x.collects(GCOptions{Delete: true, Keep: 2, Now: x.clock.Now(), ID: "one"})
		return x.job
	}},
	{name: "a tick that collects", prepare: func(x *lab) *flink {
		x.pinned(4, 5, 6)
		rec := readRecord(x.t, x.store, LayoutOf(x.app))
		rec.Generations = 40
		put(x.t, x.store, LayoutOf(x.app).Record.String(), rec.encode())
		x.ageOut()
		x.job.completes(7)
		x.ticks(x.job, PinOptions{})
		return x.job
	}},
	{name: "a job claimed the pin", prepare: func(x *lab) *flink {
		x.pinned(4, 5)
		green := x.green(LayoutOf(x.app).Root, 5)
		x.claimed()
		green.completes(6)
		x.ticks(green, PinOptions{})
		return green
	}},
}

// claimed deletes the pin as a job in CLAIM mode does at its first checkpoint:
// _metadata and its state files, but for those that the first generation has, too.
func (x *lab) claimed() {
	x.t.Helper()
	l := LayoutOf(x.app)
	older := filesOf(x.t, x.store, l.generation("00000001-chk-4").Join(MetadataName))
	for _, f := range filesOf(x.t, x.store, l.Metadata) {
		if !slices.ContainsFunc(older, func(o stateFile) bool { return o.URI.Same(f.URI) }) {
			remove(x.t, x.store, f.URI)
		}
	}
	remove(x.t, x.store, l.Metadata)
}

// pinned pins checkpoints one after the other.
func (x *lab) pinned(ids ...int64) {
	x.t.Helper()
	for _, id := range ids {
		x.job.completes(id)
		x.job.pins(x.app, PinOptions{})
	}
}

// green is a job that restored checkpoint id from a path, as the next version of
// an application does.
func (x *lab) green(from blobstore.URI, id int64) *flink {
	return x.job.successor("aaaaaaaa99507e464787c646439a53ff", from.String(), id)
}

func TestEveryCallMayFail(t *testing.T) {
	recorded := hashmap.thin(t)
	everyCall(t, stories, griefs, func(t *testing.T, _ int) *lab {
		store, clock := memory()
		x := &lab{t: t, store: store, clock: clock, app: blobstore.MustParse("s3://pins/orders")}
		x.job = startFlinkOf(t, store, hashmap, recorded, "s3://lake/flink")
		return x
	})
}

// The same on a volume, with hard links and without.
func TestEveryCallMayFailOnAVolume(t *testing.T) {
	now := time.Now() // by the volume's clock, which synctest does not set
	recorded := hashmap.thin(t)
	everyCall(t, []story{stories[0], stories[1], stories[7]}, griefs[:1], func(t *testing.T, k int) *lab {
		dir := t.TempDir()
		store := blobstore.NewFile()
		store.NoLinks = k%2 == 0
		x := &lab{t: t, store: store, clock: &clock{now: now}, app: blobstore.MustParse("file://" + dir + "/orders")}
		x.job = startFlinkOf(t, store, hashmap, recorded, "file:"+dir+"/flink")
		return x
	})
}

// everyCall tells every story once for each way and each call to fail.
func everyCall(t *testing.T, stories []story, griefs []grief, build func(t *testing.T, k int) *lab) {
	for _, s := range stories {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			tell := func(g grief, k int) (calls int) {
				synctest.Test(t, func(t *testing.T) { calls = build(t, k).comesToGrief(s, g, k) })
				return calls
			}
			calls := tell(griefs[0], math.MaxInt) // nothing fails
			for _, g := range griefs {
				for k := 1; k <= calls; k++ {
					if tell(g, k); t.Failed() {
						t.Fatalf("%s, call %d of %d: %s", s.name, k, calls, g.name)
					}
				}
			}
		})
	}
}

// comesToGrief tells a story in which the k-th call fails, and what must hold
// after it. It returns how many calls there were.
func (x *lab) comesToGrief(s story, g grief, k int) (calls int) {
	job := s.prepare(x)
	x.fault = g.fault(k)
	calls = x.run(inOrder{})
	x.fault = nil

	if x.tag != "" { // there is a pin
		r, err := Resolve(x.t.Context(), x.store, x.app, ResolveOptions{})
		require.NoError(x.t, err)
		_, err = prove(x.t.Context(), x.store, r.Path, nil)
		require.NoError(x.t, err)
	}
	if s.after != nil {
		s.after(x, job)
		return calls
	}
	x.settle(job)
	job.completes(job.latest.ID + 1)
	x.settle(job)
	require.Nil(x.t, holdOf(x.t, x.store, x.app), "the hold that was fulfilled stands still")

	_, err := GC(x.t.Context(), x.store, x.app, GCOptions{Delete: true, Now: x.clock.Now().Add(25 * time.Hour)})
	require.NoError(x.t, err)
	require.Empty(x.t, unknownTo(x.t, x.store, x.app))
	job.requireRestores(x.app, job.latest.ID)
	return calls
}

// unknownTo lists what lies in a pin and is no part of it.
func unknownTo(t testing.TB, store blobstore.Store, app blobstore.URI) (unknown []string) {
	t.Helper()
	l := LayoutOf(app)
	known := map[string]bool{l.Metadata.Path(): true, l.Record.Path(): true, l.Hold.Path(): true}
	names, err := generationNames(t.Context(), store, l)
	require.NoError(t, err)
	pins := []blobstore.URI{l.Metadata}
	for _, name := range names {
		dir := l.generation(name)
		known[dir.Join(MetadataName).Path()], known[dir.Join(recordName).Path()] = true, true
		pins = append(pins, dir.Join(MetadataName))
	}
	for _, u := range pins {
		s, err := prove(t.Context(), store, u, nil)
		require.NoError(t, err)
		refs, err := s.References()
		require.NoError(t, err)
		for _, r := range refs {
			known[r.Location.Path()] = true
		}
	}
	for _, u := range below(t, store, l.Root) {
		if !known[u.Path()] {
			unknown = append(unknown, u.String())
		}
	}
	return unknown
}

// A collection that is killed leaves the announcement of what it was about to
// delete. A tick that needs one of these very files waits, but not for
// ever.
func TestAKilledCollectionIsOutlived(t *testing.T) {
	store, clock := memory()
	x := &lab{t: t, store: store, clock: clock, app: blobstore.MustParse("s3://pins/orders")}
	x.job = startFlink(t, store, hashmap, "s3://lake/flink")
	x.pinned(4)
	x.job.completes(5)
	x.killed(x.job, recordName) // its copies are garbage after the grace
	x.ageOut()
	killed := hook(store, func(op string, _ blobstore.URI, do func() error) error {
		if op == "delete" {
			return errKilled
		}
		return do()
	})
	_, err := GC(t.Context(), killed, x.app, GCOptions{Delete: true, Now: clock.Now()})
	require.ErrorIs(t, err, errKilled)
	require.Len(t, announced(t, store, x.app), 1)

	_, err = Pin(t.Context(), store, x.app, x.job, PinOptions{Sleep: noSleep})
	require.ErrorIs(t, err, ErrCollecting, "it needs what the collection may still delete")
	x.job.requireRestores(x.app, 4)
	clock.advance(collectionLife)
	x.settle(x.job)
	x.job.completes(6)
	x.settle(x.job)
	_, err = GC(t.Context(), store, x.app, GCOptions{Delete: true, Now: clock.Now().Add(25 * time.Hour)})
	require.NoError(t, err)
	require.Empty(t, unknownTo(t, store, x.app))
}

// A volume's clock was ahead for a while and is right again: what was written then is
// no sign that a collection which has just begun was killed long ago.
func TestACollectionAfterTheClockWasSetBackIsNoticed(t *testing.T) {
	const ahead = 3 * time.Hour
	x := newLab(t, 4)
	x.job.completes(5)
	x.killed(x.job, recordName) // its copies are garbage after the grace
	x.ageOut()
	x.clock.advance(ahead)
	x.job.completes(6)
	x.killed(x.job, recordName)
	x.clock.advance(-ahead)
	x.job.completes(5)
	var err error
	met := false
	deleting := hook(x.store, func(op string, _ blobstore.URI, do func() error) error {
		if op == "delete" && !met {
			met = true
			_, err = Pin(t.Context(), x.store, app, x.job, PinOptions{Sleep: noSleep})
		}
		return do()
	})
	_, gcErr := GC(t.Context(), deleting, app, GCOptions{Delete: true})
	require.NoError(t, gcErr)
	require.True(t, met)
	require.ErrorIs(t, err, ErrCollecting)
	x.job.requireRestores(app, 4)
	x.settle(x.job)
}

// A collection may end between a tick's listing, which shows it at work, and the
// tick's look at what it has announced. What it has deleted stands in the listing
// still, so the tick starts again.
func TestACollectionThatEndsMeanwhileIsNoticed(t *testing.T) {
	x := newLab(t, 4)
	x.job.completes(5)
	l := LayoutOf(app)
	before := below(t, x.store, l.State)
	announcement := l.State.Join(announcementPrefix + "0")
	require.NoError(t, announce(t.Context(), x.store, announcement, []string{"a file that nobody names"}))

	ended := false
	store := hook(x.store, func(op string, u blobstore.URI, do func() error) error {
		if op == "open" && u.Same(announcement) && !ended {
			ended = true
			copied := slices.DeleteFunc(below(t, x.store, l.State), func(u blobstore.URI) bool {
				return slices.ContainsFunc(append(before, announcement), u.Same)
			})
			require.NotEmpty(t, copied)
			remove(t, x.store, copied[0])
			remove(t, x.store, announcement)
		}
		return do()
	})
	p, err := Pin(t.Context(), store, app, x.job, PinOptions{Sleep: noSleep})
	require.NoError(t, err)
	require.True(t, ended)
	require.Equal(t, ResultPinned, p.Result)
	x.job.requireRestores(app, 5)
}

// A writer on a volume that is killed in the middle of a file leaves that under
// a temporary name, in whatever folder it was at. A collection removes it.
func TestTemporaryFilesOfKilledWritersAreCollected(t *testing.T) {
	dir := t.TempDir()
	store := blobstore.NewFile()
	app := blobstore.MustParse("file://" + dir + "/orders")
	job := startFlink(t, store, hashmap, "file:"+dir+"/flink")
	job.completes(4)
	job.pins(app, PinOptions{})
	l := LayoutOf(app)
	var left []string
	for i, folder := range []blobstore.URI{l.App, l.Root, l.State, l.generation("00000001-chk-4"), l.generation("00000002-chk-5")} {
		file := filepath.Join(folder.Path(), fmt.Sprintf(".chkpin-KILLED%d.tmp", i))
		require.NoError(t, os.MkdirAll(folder.Path(), 0o777))
		require.NoError(t, os.WriteFile(file, []byte("half of somethi"), 0o666))
		left = append(left, file)
	}

	_, err := GC(t.Context(), store, app, GCOptions{Delete: true})
	require.NoError(t, err)
	for _, file := range left {
		require.FileExists(t, file, "its writer may be at work")
	}
	_, err = GC(t.Context(), store, app, GCOptions{Delete: true, Now: time.Now().Add(25 * time.Hour)})
	require.NoError(t, err)
	for _, file := range left {
		_, err := os.Stat(file)
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
	job.requireRestores(app, 4)
}
