package checkpoint

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

func resolve(t *testing.T, store blobstore.Store, opts ResolveOptions) (Resolved, error) {
	t.Helper()
	return Resolve(t.Context(), store, app, opts)
}

func TestResolve(t *testing.T) {
	x := newLab(t, 4, 5)
	r, err := resolve(t, x.store, ResolveOptions{})
	require.NoError(t, err)
	require.Equal(t, "s3://lake/pins/orders/last-state/_metadata", r.Path.String())
	require.Equal(t, []string{"--fromSavepoint", r.Path.String()}, r.Args())
	require.Equal(t, "00000002-chk-5", r.Generation)
	require.Equal(t, x.job.run.JobID, r.JobID)
	require.EqualValues(t, 5, r.CheckpointID)
	require.Equal(t, epoch.Add(5*time.Minute), r.Triggered)
	require.Empty(t, r.Warnings)
}

// Starting without state is right in one case only.
func TestResolveNothingWasEverPinned(t *testing.T) {
	store, _ := memory()
	for _, strict := range []bool{false, true} {
		_, err := resolve(t, store, ResolveOptions{Strict: strict})
		require.ErrorIs(t, err, ErrNoPin)
	}
}

// Whatever is left of a pin, if it is only the note that there was one, keeps a
// job from starting without state.
func TestResolveAPinThatIsGone(t *testing.T) {
	l := LayoutOf(app)
	for name, harm := range map[string]func(t *testing.T, x *lab){
		"last-state was deleted":     func(t *testing.T, x *lab) { deleteBelow(t, x.store, l.Root) },
		"and the note is unreadable": func(t *testing.T, x *lab) { deleteBelow(t, x.store, l.Root); put(t, x.store, l.Existed.String(), nil) },
		"only pin.json is left": func(t *testing.T, x *lab) {
			rec := get(t, x.store, l.Record)
			deleteBelow(t, x.store, l.App)
			put(t, x.store, l.Record.String(), rec)
		},
		"only generations, broken": func(t *testing.T, x *lab) {
			remove(t, x.store, l.Metadata)
			remove(t, x.store, l.Existed)
			remove(t, x.store, l.Record)
			deleteBelow(t, x.store, l.State)
		},
		"the first tick was killed": func(t *testing.T, x *lab) { deleteBelow(t, x.store, app); x.killed(x.job, recordName) },
		"generations without manifest": func(t *testing.T, x *lab) {
			remove(t, x.store, l.Metadata)
			remove(t, x.store, l.generation("00000001-chk-4").Join(recordName))
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := newLab(t, 4)
			harm(t, x)
			for _, strict := range []bool{false, true} {
				_, err := resolve(t, x.store, ResolveOptions{Strict: strict})
				require.ErrorIs(t, err, ErrPinGone)
				require.NotErrorIs(t, err, ErrNoPin)
			}
		})
	}
}

// A pin that does not prove: the published generation if that does (its own copy
// of the same file), then the newest that does.
func TestResolveFallsBack(t *testing.T) {
	l := LayoutOf(app)
	for name, c := range map[string]struct {
		harm func(t *testing.T, x *lab)
		want string
	}{
		"_metadata vanished":  {func(t *testing.T, x *lab) { remove(t, x.store, l.Metadata) }, "00000003-chk-6"},
		"_metadata is broken": {func(t *testing.T, x *lab) { put(t, x.store, l.Metadata.String(), []byte("?")) }, "00000003-chk-6"},
		"pin.json too": {func(t *testing.T, x *lab) {
			remove(t, x.store, l.Metadata)
			put(t, x.store, l.Record.String(), []byte("?"))
		}, "00000003-chk-6"},
		"state is missing":   {func(t *testing.T, x *lab) { remove(t, x.store, filesOf(t, x.store, l.Metadata)[0].URI) }, "00000002-chk-5"},
		"state is too short": {func(t *testing.T, x *lab) { put(t, x.store, filesOf(t, x.store, l.Metadata)[0].URI.String(), nil) }, "00000002-chk-5"},
		"two generations of state are": {func(t *testing.T, x *lab) {
			for _, name := range []string{"00000003-chk-6", "00000002-chk-5"} {
				remove(t, x.store, filesOf(t, x.store, l.generation(name).Join(MetadataName))[0].URI)
			}
		}, "00000001-chk-4"},
	} {
		t.Run(name, func(t *testing.T) {
			x := newLab(t, 4, 5, 6)
			c.harm(t, x)
			r, err := resolve(t, x.store, ResolveOptions{})
			require.NoError(t, err)
			require.Equal(t, c.want, r.Generation)
			require.Equal(t, l.generation(c.want).Join(MetadataName).String(), r.Path.String())
			require.Contains(t, strings.Join(r.Warnings, "\n"), "falling back to generation "+c.want)
			require.Equal(t, x.job.state[r.CheckpointID], stateOf(t, x.store, r.Path))
			require.Equal(t, epoch.Add(time.Duration(r.CheckpointID)*time.Minute), r.Triggered)

			_, err = resolve(t, x.store, ResolveOptions{Strict: true})
			var damaged *DamagedError
			if !errors.As(err, &damaged) {
				require.ErrorIs(t, err, ErrPinGone)
			}
		})
	}
}

func TestResolveNothingProves(t *testing.T) {
	x := newLab(t, 4, 5)
	deleteBelow(t, x.store, LayoutOf(app).State)
	_, err := resolve(t, x.store, ResolveOptions{})
	var damaged *DamagedError
	require.ErrorAs(t, err, &damaged)
	require.Len(t, damaged.Missing, 4)
	require.Contains(t, err.Error(), "last-state/_metadata does not restore: 4 files missing: ")
}

// A store that does not answer is no reason to start from something older, let
// alone from nothing.
func TestResolveTellsUnreachableFromGone(t *testing.T) {
	for _, harm := range []func(x *lab){
		func(x *lab) {},
		func(x *lab) { remove(x.t, x.store, LayoutOf(app).Metadata) },
		func(x *lab) { deleteBelow(x.t, x.store, app) },
	} {
		calls := 1
		for k := 1; k <= calls; k++ {
			x := newLab(t, 4, 5)
			harm(x)
			n := 0
			store := hook(x.store, func(op string, u blobstore.URI, do func() error) error {
				if n++; n == k {
					return &blobstore.Error{Op: op, URI: u, Err: fs.ErrPermission}
				}
				return do()
			})
			_, err := resolve(t, store, ResolveOptions{})
			require.ErrorIs(t, err, fs.ErrPermission, "call %d", k)
			if k == 1 {
				n = -1000
				_, _ = resolve(t, store, ResolveOptions{})
				calls = n + 1000
			}
		}
		require.Greater(t, calls, 2)
	}
}

func TestResolveMaxAge(t *testing.T) {
	x := newLab(t, 4, 5) // the last one was triggered at minute 5
	at := func(minute int) ResolveOptions {
		return ResolveOptions{MaxAge: 10 * time.Minute, Now: func() time.Time { return epoch.Add(time.Duration(minute) * time.Minute) }}
	}
	_, err := resolve(t, x.store, at(15))
	require.NoError(t, err)
	r, err := resolve(t, x.store, at(16))
	require.ErrorIs(t, err, ErrTooOld)
	require.ErrorContains(t, err, "checkpoint 5 was triggered 2026-11-20T12:05:00Z")
	require.EqualValues(t, 5, r.CheckpointID)

	// It holds for what resolve falls back to as well,
	remove(t, x.store, filesOf(t, x.store, LayoutOf(app).Metadata)[0].URI)
	_, err = resolve(t, x.store, at(14))
	require.NoError(t, err)
	_, err = resolve(t, x.store, at(15))
	require.ErrorIs(t, err, ErrTooOld)

	// and what nobody knows the age of is too old.
	x.job.completes(6)
	x.job.latest.Triggered = time.Time{}
	x.job.pins(app, PinOptions{})
	_, err = resolve(t, x.store, at(6))
	require.ErrorIs(t, err, ErrTooOld)
	require.ErrorContains(t, err, "nobody knows when")
}

// A tick was killed between _metadata and pin.json: the pin is the new one, and
// its generation tells what it is.
func TestResolveBeforeThePinIsDescribed(t *testing.T) {
	x := newLab(t, 4)
	before := get(t, x.store, LayoutOf(app).Record)
	x.pinned(5)
	put(t, x.store, LayoutOf(app).Record.String(), before)
	r, err := resolve(t, x.store, ResolveOptions{MaxAge: time.Hour, Now: func() time.Time { return epoch }})
	require.NoError(t, err)
	require.Equal(t, LayoutOf(app).Metadata.String(), r.Path.String())
	require.Equal(t, "00000002-chk-5", r.Generation)
	require.Equal(t, epoch.Add(5*time.Minute), r.Triggered)
	require.Len(t, r.Warnings, 1)
	require.Contains(t, r.Warnings[0], "the next tick mends it")
}

// What a script left restores too, if it proves, though nothing is known of it.
func TestResolveAForeignPin(t *testing.T) {
	job := newJob(t, rocksdb)
	job.completes(6)
	l := LayoutOf(app)
	for _, u := range below(t, job.store, job.chk(6)) {
		put(t, job.store, l.Root.Join(u.Base()).String(), get(t, job.store, u))
	}
	r, err := resolve(t, job.store, ResolveOptions{})
	require.NoError(t, err)
	require.Equal(t, l.Metadata.String(), r.Path.String())
	require.Empty(t, r.Generation)
	require.Empty(t, r.JobID)
	require.EqualValues(t, 6, r.CheckpointID)
	require.NotEmpty(t, r.Warnings)

	job.deletes() // which the copy depends on
	_, err = resolve(t, job.store, ResolveOptions{})
	var damaged *DamagedError
	require.ErrorAs(t, err, &damaged)
}

// It proves with one listing of the state, and reads none.
func TestResolveIsCheap(t *testing.T) {
	x := newLab(t, 4)
	job := startFlink(t, x.store, rocksdb, "s3://lake/flink")
	job.completes(6)
	job.pins(app.Dir().Join("many"), PinOptions{})
	calls := map[string]int{}
	store := hook(x.store, func(op string, u blobstore.URI, do func() error) error {
		require.False(t, op == "open" && u.Dir().Base() == "state")
		calls[op]++
		return do()
	})
	_, err := Resolve(context.Background(), store, app.Dir().Join("many"), ResolveOptions{})
	require.NoError(t, err)
	require.Equal(t, map[string]int{"open": 2, "list": 2}, calls, "ten files are two pages")
}
