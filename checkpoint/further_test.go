package checkpoint

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

var (
	flinkFolder     = blobstore.MustParse("s3://lake/flink")
	savepointFolder = blobstore.MustParse("s3://lake/savepoints")
)

// everywhere looks for newer state where Flink writes.
func everywhere(change func(*ResolveOptions)) ResolveOptions {
	opts := ResolveOptions{Checkpoints: []blobstore.URI{flinkFolder}, Savepoints: []blobstore.URI{savepointFolder}}
	if change != nil {
		change(&opts)
	}
	return opts
}

// A job was pinned at checkpoint 4 and 5. What does it start from, when there is
// more than the pin?
func TestResolveFurther(t *testing.T) {
	const pin = "s3://lake/pins/orders/last-state/_metadata"
	const blue = "s3://lake/flink/1a92be4974f033e7ce84d74a3acb0743"
	const green = "s3://lake/flink/aaaaaaaa99507e464787c646439a53ff"
	any := func(o *ResolveOptions) { o.AnyLineage = true }
	for _, c := range []struct {
		name    string
		happens func(t *testing.T, x *lab)
		change  func(*ResolveOptions)
		want    string
		why     string // of something that was refused
		warning string
	}{
		{name: "nothing else", want: pin, why: "not newer than the pin, which is checkpoint 5"},
		{name: "the pinned run went on", happens: func(t *testing.T, x *lab) { x.job.completes(6) }, want: blue + "/chk-6/_metadata"},
		{name: "by number", happens: func(t *testing.T, x *lab) { x.job.completes(10); x.job.completes(9) }, want: blue + "/chk-10/_metadata"},
		{name: "the folder named is the job's", happens: func(t *testing.T, x *lab) { x.job.completes(6) },
			change: func(o *ResolveOptions) { o.Checkpoints = []blobstore.URI{blobstore.MustParse(blue)} }, want: blue + "/chk-6/_metadata"},
		{name: "a savepoint of it", happens: func(t *testing.T, x *lab) { x.job.savepoint(7, savepointFolder.String()) },
			want: "s3://lake/savepoints/savepoint-1a92be-000000000007/_metadata"},
		{name: "a savepoint, and a checkpoint after it", happens: func(t *testing.T, x *lab) { x.job.savepoint(7, savepointFolder.String()); x.job.completes(8) },
			want: blue + "/chk-8/_metadata"},
		{name: "an older savepoint", happens: func(t *testing.T, x *lab) { x.job.savepoint(3, savepointFolder.String()) },
			want: pin, why: "not newer than the pin"},

		// What does not prove is refused, and the next one is looked at.
		{name: "the newest lost a file", happens: func(t *testing.T, x *lab) {
			x.job.completes(6)
			x.job.completes(7)
			remove(t, x.store, filesOf(t, x.store, x.job.chk(7))[0].URI)
		}, want: blue + "/chk-6/_metadata", why: "1 file missing"},
		{name: "the newest is cut off", happens: func(t *testing.T, x *lab) {
			x.job.completes(6)
			put(t, x.store, x.job.chk(6).Join(MetadataName).String(), get(t, x.store, x.job.chk(6).Join(MetadataName))[:100])
		}, want: pin, why: "does not restore"},
		{name: "the newest was never complete", happens: func(t *testing.T, x *lab) { put(t, x.store, x.job.chk(6).Join("3ba7c6cb").String(), nil) },
			want: pin, why: "not complete: it has no _metadata"},

		// Whose it is decides.
		{name: "of another job", happens: func(t *testing.T, x *lab) { x.green(app, 5).completes(50) },
			want: pin, why: "1 job folder not of job 1a92be4974f033e7ce84d74a3acb0743, which the pinned history goes on with: aaaaaaaa99507e464787c646439a53ff"},
		{name: "of another job, and any will do", happens: func(t *testing.T, x *lab) { x.green(app, 5).completes(3) },
			change: any, want: green + "/chk-3/_metadata"},
		{name: "any will do, but all is older", change: any, want: pin, why: "written before the pin"},
		{name: "another job's savepoint", happens: func(t *testing.T, x *lab) { x.green(app, 5).savepoint(50, savepointFolder.String()) },
			want: pin, why: "1 savepoint not of job"},
		{name: "of the run that restored from the pin", happens: func(t *testing.T, x *lab) {
			x.job.completes(8)
			g := x.green(LayoutOf(app).Root, 5)
			_, err := Pin(t.Context(), x.store, app, g, PinOptions{})
			require.ErrorIs(t, err, ErrNoCheckpoint)
			g.completes(6)
		}, want: green + "/chk-6/_metadata", why: "1 job folder not of job aaaaaaaa"},
		{name: "of the run that claimed the pin, of which an older one was put back", happens: func(t *testing.T, x *lab) {
			g := x.green(LayoutOf(app).Root, 5)
			x.claimed()
			_, err := Pin(t.Context(), x.store, app, g, PinOptions{})
			require.ErrorIs(t, err, ErrNoCheckpoint)
			x.job.requireRestores(app, 4)
			g.completes(6)
		}, want: green + "/chk-6/_metadata", why: "1 job folder not of job aaaaaaaa"},
		{name: "of the run that restored from the pin, which then went on without it", happens: func(t *testing.T, x *lab) {
			g := x.green(LayoutOf(app).Root, 5)
			_, err := Pin(t.Context(), x.store, app, g, PinOptions{})
			require.ErrorIs(t, err, ErrNoCheckpoint)
			g.completes(9)
			x.pinned(6)
		}, want: pin, why: "1 job folder not of job 1a92be"},
		{name: "of a run that was replaced", happens: func(t *testing.T, x *lab) {
			x.job.completes(9)
			g := x.green(LayoutOf(app).Root, 5)
			g.completes(6)
			g.pins(app, PinOptions{})
		}, want: pin, why: "1 job folder not of job aaaaaaaa"},

		// What an operator decided counts more than numbers.
		{name: "on hold", happens: func(t *testing.T, x *lab) {
			x.job.completes(6)
			put(t, x.store, LayoutOf(app).Hold.String(), []byte(`{"layout":1}`))
		}, want: pin, warning: "while the pin is on hold, nothing else counts"},
		{name: "rolled back", happens: func(t *testing.T, x *lab) {
			x.job.completes(6)
			x.rolledBackAndReleased(x.store, "chk-4")
		}, want: pin, why: "the pin was rolled back from it"},
		{name: "rolled back, and killed before pin.json", happens: func(t *testing.T, x *lab) {
			x.job.completes(6)
			x.rolledBackAndReleased(killedAt(x.store, LayoutOf(app).Record), "chk-4")
		}, want: pin, why: "the pin was rolled back from it"},
		{name: "rolled back, for all that is known without pin.json", happens: func(t *testing.T, x *lab) {
			x.job.completes(6)
			x.rolledBackAndReleased(x.store, "chk-4")
			remove(t, x.store, LayoutOf(app).Record)
		}, want: pin, why: "the pin was rolled back from it"},
		{name: "the tick was killed before it published", happens: func(t *testing.T, x *lab) {
			x.job.completes(6)
			_, err := Pin(t.Context(), killedAt(x.store, LayoutOf(app).Metadata), app, x.job, PinOptions{})
			require.ErrorIs(t, err, errKilled)
		}, want: blue + "/chk-6/_metadata"},

		{name: "rolled back over the run that restored this, and released", happens: func(t *testing.T, x *lab) {
			g := x.green(LayoutOf(app).Root, 5)
			g.completes(6)
			g.pins(app, PinOptions{})
			g.completes(7)
			x.rolledBackAndReleased(x.store, "chk-5")
		}, want: pin, why: "1 job folder not of job 1a92be"},

		// A constant job id: one folder for all runs.
		{name: "constant id, an earlier run had come further", happens: func(t *testing.T, x *lab) {
			x.job.completes(9)
			again := x.restarts(5)
			again.completes(6)
			again.pins(app, PinOptions{})
		}, want: pin, why: "written before the pin: it is of an earlier run with job id 1a92be"},
		{name: "constant id, and the run went on", happens: func(t *testing.T, x *lab) {
			x.job.completes(9)
			again := x.restarts(5)
			again.completes(6)
			again.pins(app, PinOptions{})
			x.ageOut()
			again.completes(7)
		}, want: blue + "/chk-7/_metadata", warning: "numbers there are not in the order of time"},
		{name: "constant id, of a run that started empty", happens: func(t *testing.T, x *lab) {
			empty := x.restarts(5)
			empty.restored = nil
			empty.completes(9)
			empty.isHeld("started empty")
		}, want: pin, why: "also that of a run that was held"},

		// The pin is lost; its source is not.
		{name: "the pin is lost", happens: func(t *testing.T, x *lab) { deleteBelow(t, x.store, LayoutOf(app).State) },
			want: blue + "/chk-5/_metadata", warning: "the pin is no fallback any more: s3://lake/pins/orders/last-state/_metadata does not restore"},
		{name: "the pin and its record are lost", happens: func(t *testing.T, x *lab) {
			deleteBelow(t, x.store, LayoutOf(app).State)
			remove(t, x.store, LayoutOf(app).Record)
		}, want: blue + "/chk-5/_metadata"},
		{name: "the record is lost, and all that is left of the pin is an older generation", happens: func(t *testing.T, x *lab) {
			l := LayoutOf(app)
			for _, u := range []blobstore.URI{l.Record, l.Metadata, l.generation("00000002-chk-5").Join(MetadataName)} {
				remove(t, x.store, u)
			}
		}, want: blue + "/chk-5/_metadata", warning: "the pin is no fallback any more: "},

		{name: "a folder where nothing is", change: func(o *ResolveOptions) { o.Checkpoints[0] = flinkFolder.Join("nowhere") },
			want: pin, warning: "nothing is at s3://lake/flink/nowhere"},
		{name: "a folder of another job", change: func(o *ResolveOptions) { o.Checkpoints = []blobstore.URI{blobstore.MustParse(green)} },
			happens: func(t *testing.T, x *lab) { x.green(app, 5).completes(50) }, want: pin, why: "1 job folder not of job 1a92be"},
		{name: "checkpoints of nobody, and any will do", happens: func(t *testing.T, x *lab) { x.job.write(9, flinkFolder.Join("chk-9")) },
			change: any, want: "s3://lake/flink/chk-9/_metadata"},
		{name: "checkpoints of nobody", happens: func(t *testing.T, x *lab) { x.job.write(9, flinkFolder.Join("chk-9")) },
			want: pin, why: "no job folder that would say whose they are"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newLab(t, 4, 5)
			if c.happens != nil {
				c.happens(t, x)
			}
			r, err := resolve(t, x.store, everywhere(c.change))
			require.NoError(t, err)
			require.Equal(t, c.want, r.Path.String())
			require.Contains(t, whys(r), c.why)
			require.Contains(t, strings.Join(r.Warnings, "\n"), c.warning)
			if r.Path != LayoutOf(app).Metadata {
				require.Empty(t, r.Generation)
				require.Equal(t, loaded(t, x.store, r.Path).CheckpointID, r.CheckpointID)
			}
		})
	}
}

// rolledBackAndReleased is an operator who decides for a generation, through a
// store of his own.
func (x *lab) rolledBackAndReleased(store blobstore.Store, generation string) {
	x.t.Helper()
	_, err := Rollback(x.t.Context(), store, x.app, RollbackOptions{Generation: generation})
	require.NoError(x.t, err)
	_, err = Release(x.t.Context(), x.store, x.app, RollbackOptions{})
	require.NoError(x.t, err)
}

// restarts is another run under the same job id, which restored checkpoint id
// from the pin.
func (x *lab) restarts(id int64) *flink {
	again := *x.job
	again.run.Started += 3_600_000
	again.latest, again.restored = nil, &Restored{ID: id, Path: LayoutOf(app).Root}
	x.ageOut()
	return &again
}

func whys(r Resolved) string {
	var all []string
	for _, c := range r.Candidates {
		all = append(all, c.Why)
	}
	return strings.Join(all, "\n")
}

// In application mode with high availability all jobs have the same id, so the
// name of a savepoint tells nothing.
func TestResolveFurtherAnonymousSavepoint(t *testing.T) {
	x := newLab(t)
	x.job.run.JobID = strings.Repeat("0", 32)
	x.pinned(4)
	x.job.savepoint(7, savepointFolder.String())
	r, err := resolve(t, x.store, everywhere(nil))
	require.NoError(t, err)
	require.Equal(t, LayoutOf(app).Metadata, r.Path)
	require.Contains(t, whys(r), "1 savepoint not of job 000000")
}

// What was never pinned has no lineage: what is there is refused unless any will
// do, and nothing there is a first start.
func TestResolveFurtherWithoutAPin(t *testing.T) {
	job := newJob(t, hashmap)
	_, err := resolve(t, job.store, everywhere(nil))
	require.ErrorIs(t, err, ErrNoPin)
	job.completes(4)
	r, err := resolve(t, job.store, everywhere(nil))
	require.ErrorIs(t, err, ErrNoPin)
	require.Contains(t, whys(r), "nothing is known of the lineage, so 1 job folder cannot be told to be of it")
	require.True(t, r.Candidates[0].Preferred)
	r, err = resolve(t, job.store, everywhere(func(o *ResolveOptions) { o.AnyLineage = true }))
	require.NoError(t, err)
	require.Equal(t, job.chk(4).Join(MetadataName), r.Path)
}

// A job is stopped with a savepoint right after a checkpoint: object stores give
// both the same second.
func TestResolveFurtherSavepointInTheSameSecond(t *testing.T) {
	x := newLab(t)
	x.job.savepoint(7, savepointFolder.String())
	x.job.completes(5)
	x.job.completes(6)
	anyOf := everywhere(func(o *ResolveOptions) { o.AnyLineage = true })
	r, err := resolve(t, x.store, anyOf)
	require.NoError(t, err)
	require.EqualValues(t, 7, r.CheckpointID)
	deleteBelow(t, x.store, savepointFolder)
	r, err = resolve(t, x.store, anyOf)
	require.NoError(t, err)
	require.EqualValues(t, 6, r.CheckpointID)
}

// Strict is about the pin, whatever else there is.
func TestResolveFurtherStrict(t *testing.T) {
	x := newLab(t, 4, 5)
	x.job.completes(6)
	strict := everywhere(func(o *ResolveOptions) { o.Strict = true })
	r, err := resolve(t, x.store, strict)
	require.NoError(t, err)
	require.EqualValues(t, 6, r.CheckpointID)
	deleteBelow(t, x.store, LayoutOf(app).State)
	_, err = resolve(t, x.store, strict)
	require.True(t, as[*DamagedError](err))
}

// Nobody wrote down when a checkpoint that is not pinned was triggered, so its
// age is that of its file.
func TestResolveFurtherMaxAge(t *testing.T) {
	x := newLab(t, 4, 5)
	x.job.completes(6)
	written := x.clock.Now()
	opts := everywhere(func(o *ResolveOptions) { o.MaxAge = time.Hour })
	opts.Now = func() time.Time { return written.Add(time.Hour) }
	r, err := resolve(t, x.store, opts)
	require.NoError(t, err)
	require.True(t, r.Triggered.IsZero())
	opts.Now = func() time.Time { return written.Add(2 * time.Hour) }
	_, err = resolve(t, x.store, opts)
	require.ErrorIs(t, err, ErrTooOld)
	require.ErrorContains(t, err, "checkpoint 6 was written")
}

// A store that does not answer is no reason to start from something older.
func TestResolveFurtherTellsUnreachableFromNone(t *testing.T) {
	calls := 1
	for k := 1; k <= calls; k++ {
		x := newLab(t, 4, 5)
		x.job.completes(6)
		x.job.savepoint(7, savepointFolder.String())
		n := 0
		store := hook(x.store, func(op string, u blobstore.URI, do func() error) error {
			if n++; n == k {
				return &blobstore.Error{Op: op, URI: u, Err: blobstore.ErrPermission}
			}
			return do()
		})
		_, err := resolve(t, store, everywhere(nil))
		require.ErrorIs(t, err, blobstore.ErrPermission, "call %d", k)
		if k == 1 {
			n = -1000
			_, err := resolve(t, store, everywhere(nil))
			require.NoError(t, err)
			calls = n + 1000
		}
	}
	require.Greater(t, calls, 8)
}
