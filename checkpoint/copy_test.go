package checkpoint

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// twoClouds is a store of S3 and Azure addresses: a copy from one to the other
// goes through this process.
func twoClouds() blobstore.Mux {
	s3, _ := memory()
	azure, _ := memory()
	return blobstore.Mux{blobstore.FamilyS3: s3, blobstore.FamilyAzure: azure}
}

const (
	inS3    = "s3://backup/orders"
	inAzure = "wasbs://backup@account.blob.core.windows.net/orders"
)

// copies runs a copy that must succeed.
func (f *flink) copies(from, to string) Copied {
	f.t.Helper()
	c, err := Copy(f.t.Context(), f.store, blobstore.MustParse(from), blobstore.MustParse(to), CopyOptions{Sleep: noSleep})
	require.NoError(f.t, err)
	return c
}

// requireCopy proves that a copy restores, and holds checkpoint id to the last
// byte in files of its own that are named absolutely.
func (f *flink) requireCopy(of Copied, id int64) {
	f.t.Helper()
	s, err := prove(f.t.Context(), f.store, of.Path, nil)
	require.NoError(f.t, err)
	require.Equal(f.t, id, s.CheckpointID)
	refs, err := s.References()
	require.NoError(f.t, err)
	for _, r := range refs {
		require.True(f.t, r.URI.Within(of.Path.Dir().Join(stateFolder)), "%s lies outside the copy", r.URI)
	}
	require.Equal(f.t, f.state[id], stateOf(f.t, f.store, of.Path))
}

func TestCopyOfACheckpoint(t *testing.T) {
	for _, r := range recordings {
		for _, to := range []string{inS3, inAzure} {
			t.Run(r.name+" to "+to, func(t *testing.T) {
				job := startFlink(t, twoClouds(), r, "s3://lake/flink")
				job.completes(r.id)
				c := job.copies(job.chk(r.id).String(), to)
				assert.Equal(t, ResultCopied, c.Result)
				assert.Equal(t, KindCheckpoint, c.Kind)
				assert.Equal(t, to+"/_metadata", c.Path.String())
				job.deletes()
				job.requireCopy(c, r.id)
			})
		}
	}
}

// A disposable copy is for CLAIM: Flink may delete it, and the pin stays whole.
func TestCopyOfWhatAGenerationHolds(t *testing.T) {
	job := startFlink(t, twoClouds(), rocksdb, "s3://lake/flink")
	app := blobstore.MustParse("s3://pins/orders")
	job.completes(6)
	job.pins(app, PinOptions{})
	job.completes(7)
	job.pins(app, PinOptions{})
	job.deletes()
	for i, from := range []blobstore.URI{LayoutOf(app).Root, LayoutOf(app).Metadata, LayoutOf(app).generation("00000002-chk-7")} {
		c := job.copies(from.String(), fmt.Sprintf("s3://pins/claim/savepoint-1624fd-%d", i))
		job.requireCopy(c, 7)
	}
	c := job.copies(LayoutOf(app).generation("00000001-chk-6").String(), "s3://pins/claim/older")
	job.requireCopy(c, 6)
	deleteBelow(t, job.store, blobstore.MustParse("s3://pins/claim"))
	job.requireRestores(app, 7)

	// The name of a savepoint of the pinned job says whose state it was.
	next := job.successor("aaaaaaaa99507e464787c646439a53ff", "s3://pins/claim/savepoint-1624fd-0", 7)
	next.completes(8)
	next.pins(app, PinOptions{})
	next.requireRestores(app, 8)
}

func TestCopyOfASavepoint(t *testing.T) {
	job := startFlink(t, twoClouds(), hashmap113, "s3://lake/flink")
	job.savepoint(9, "s3://lake/savepoints")
	c := job.copies(job.latest.Path.String(), inAzure)
	assert.Equal(t, ResultCopied, c.Result)
	job.deletes()
	job.requireCopy(c, 9)
}

// A pin lands as a pin: a job that restores from it is its next run.
func TestCopyOfAPin(t *testing.T) {
	for _, r := range recordings {
		for _, to := range []string{inS3, inAzure} {
			t.Run(r.name+" to "+to, func(t *testing.T) {
				job := startFlink(t, twoClouds(), r, "s3://lake/flink")
				app, moved := blobstore.MustParse("s3://pins/orders"), blobstore.MustParse(to)
				first := r.id
				for id := first; id < first+3; id++ {
					job.completes(id)
					job.pins(app, PinOptions{})
				}
				c := job.copies(app.String(), to)
				assert.Equal(t, ResultCopied, c.Result)
				assert.Equal(t, KindPin, c.Kind)
				assert.Equal(t, []string{
					nameGeneration(3, first+2), nameGeneration(2, first+1), nameGeneration(1, first),
				}, c.Generations)
				assert.Equal(t, get(t, job.store, LayoutOf(app).Existed), get(t, job.store, LayoutOf(moved).Existed))
				assert.Equal(t, readRecord(t, job.store, LayoutOf(app)).Run, readRecord(t, job.store, LayoutOf(moved)).Run)
				job.deletes()
				deleteBelow(t, job.store, app)
				job.requireRestores(moved, first+2)
				require.Empty(t, unknownTo(t, job.store, moved))

				green := job.successor("aaaaaaaa99507e464787c646439a53ff", LayoutOf(moved).Root.String(), first+2)
				green.completes(first + 3)
				p := green.pins(moved, PinOptions{})
				assert.Equal(t, nameGeneration(4, first+3), p.Generation)
				green.requireRestores(moved, first+3)
				assert.Nil(t, readRecord(t, job.store, LayoutOf(moved)).Origin, "it is no copy any more")
			})
		}
	}
}

// A second copy brings only what is new, and no copy is made anew.
func TestCopyAgain(t *testing.T) {
	job := startFlink(t, twoClouds(), rocksdb, "s3://lake/flink")
	app, moved := blobstore.MustParse("s3://pins/orders"), blobstore.MustParse(inAzure)
	job.completes(6)
	job.pins(app, PinOptions{})
	first := job.copies(app.String(), inAzure)
	assert.Equal(t, 10, first.Copied)
	before := contents(t, job.store, moved)

	again := job.copies(app.String(), inAzure)
	assert.Equal(t, ResultUnchanged, again.Result)
	assert.Equal(t, 0, again.Copied)
	assert.Equal(t, before, contents(t, job.store, moved))

	job.completes(7)
	p := job.pins(app, PinOptions{})
	next := job.copies(app.String(), inAzure)
	assert.Equal(t, ResultCopied, next.Result)
	assert.Equal(t, p.Copied, next.Copied)
	job.requireRestores(moved, 7)
}

func TestCopyOfACheckpointAgain(t *testing.T) {
	job := startFlink(t, twoClouds(), rocksdb, "s3://lake/flink")
	job.completes(6)
	first := job.copies(job.chk(6).String(), inAzure)
	again := job.copies(job.chk(6).String(), inAzure)
	assert.Equal(t, ResultUnchanged, again.Result)
	assert.Equal(t, first.Copied, again.Reused)

	remove(t, job.store, below(t, job.store, blobstore.MustParse(inAzure).Join(stateFolder))[0])
	mended := job.copies(job.chk(6).String(), inAzure)
	assert.Equal(t, ResultCopied, mended.Result)
	assert.Equal(t, 1, mended.Copied)
	job.requireCopy(mended, 6)
}

func TestCopyRefusesPlaces(t *testing.T) {
	job := startFlink(t, twoClouds(), rocksdb, "s3://lake/flink")
	app := blobstore.MustParse("s3://pins/orders")
	job.completes(6)
	job.pins(app, PinOptions{})
	chk := job.chk(6).String()
	job.copies(chk, "s3://pins/taken")
	job.successorPinned("s3://pins/other")
	for _, test := range []struct {
		what, from, to string
		is             error
		says           string
	}{
		{"into itself", app.String(), "s3://pins/orders/backup", ErrNested, "the destination s3://pins/orders/backup lies inside the source"},
		{"onto itself", app.String(), "s3a://pins/orders", ErrNested, "lies inside"},
		{"onto what holds it", chk, job.folder.String(), ErrNested, "lies inside the destination"},
		{"into a pin", chk, "s3://pins/else/last-state/state", ErrNested, "lies inside a pin"},
		{"onto another checkpoint", app.String() + "/last-state", "s3://pins/taken", ErrOccupied, "s3://pins/taken/_metadata is not a copy of"},
		{"a checkpoint onto a pin", chk, "s3://pins/other", ErrOccupied, "s3://pins/other is the folder of an application's pin"},
		{"a pin onto a checkpoint", app.String(), "s3://pins/taken", ErrOccupied, "s3://pins/taken is the folder of a checkpoint"},
		{"a pin onto another", app.String(), "s3://pins/other", ErrOccupied, "the pin at s3://pins/other is not a copy of s3://pins/orders"},
	} {
		t.Run(test.what, func(t *testing.T) {
			before := contents(t, job.store, blobstore.MustParse("s3://pins"))
			_, err := Copy(t.Context(), job.store, blobstore.MustParse(test.from), blobstore.MustParse(test.to), CopyOptions{})
			require.ErrorIs(t, err, test.is)
			assert.ErrorContains(t, err, test.says)
			assert.Equal(t, before, contents(t, job.store, blobstore.MustParse("s3://pins")))
		})
	}
}

// successorPinned pins another job.
func (f *flink) successorPinned(app string) *flink {
	f.t.Helper()
	other := f.successor("bbbbbbbb99507e464787c646439a53ff", "", 0)
	other.completes(3)
	other.pins(blobstore.MustParse(app), PinOptions{})
	return other
}

func TestCopyOfWhatIsNotThere(t *testing.T) {
	job := startFlink(t, twoClouds(), rocksdb, "s3://lake/flink")
	app := blobstore.MustParse("s3://pins/orders")
	job.completes(6)
	job.pins(app, PinOptions{})
	copyErr := func(from, to string) error {
		_, err := Copy(t.Context(), job.store, blobstore.MustParse(from), blobstore.MustParse(to), CopyOptions{Sleep: noSleep})
		require.Error(t, err)
		require.False(t, strings.Contains(err.Error(), "meanwhile"), "%v", err)
		var side *SideError
		require.ErrorAs(t, err, &side, "%v", err)
		require.Equal(t, "source", side.Side)
		return err
	}
	require.ErrorIs(t, copyErr("s3://pins/nothing", inS3), blobstore.ErrNotExist)

	sst := below(t, job.store, job.folder.Join("shared"))[0]
	remove(t, job.store, sst)
	var damaged *DamagedError
	require.ErrorAs(t, copyErr(job.chk(6).String(), inS3), &damaged)
	assert.Equal(t, []string{sst.String()}, damaged.Missing)

	remove(t, job.store, below(t, job.store, LayoutOf(app).State)[0])
	require.ErrorAs(t, copyErr(app.String(), inS3), &damaged)
	assert.Len(t, damaged.Missing, 1)
	assert.Empty(t, below(t, job.store, blobstore.MustParse(inS3)), "nothing half-published")
}

// A dry run says what the copy would do, and writes nothing.
func TestDryCopy(t *testing.T) {
	job := startFlink(t, twoClouds(), rocksdb, "s3://lake/flink")
	app := blobstore.MustParse("s3://pins/orders")
	job.completes(6)
	job.pins(app, PinOptions{})
	for _, from := range []string{app.String(), job.chk(6).String()} {
		dry, err := Copy(t.Context(), job.store, blobstore.MustParse(from), blobstore.MustParse(inAzure), CopyOptions{DryRun: true})
		require.NoError(t, err)
		assert.Equal(t, ResultWouldCopy, dry.Result)
		assert.Equal(t, 10, dry.Copied)
		assert.Greater(t, dry.Requests, 20, "a read and a write for each file, and more")
		require.Empty(t, below(t, job.store, blobstore.MustParse(inAzure)))
		real := job.copies(from, inAzure)
		assert.Equal(t, real.BytesCopied, dry.BytesCopied)
		deleteBelow(t, job.store, blobstore.MustParse(inAzure))
	}
}

func TestCopyProgress(t *testing.T) {
	job := startFlink(t, twoClouds(), rocksdb, "s3://lake/flink")
	job.completes(6)
	var told []CopyProgress
	c, err := Copy(t.Context(), job.store, job.chk(6), blobstore.MustParse(inS3), CopyOptions{
		Progress: func(p CopyProgress) { told = append(told, p) },
	})
	require.NoError(t, err)
	require.Len(t, told, c.Copied+1)
	assert.Equal(t, CopyProgress{TotalFiles: c.Copied, TotalBytes: c.BytesCopied}, told[0])
	assert.Equal(t, CopyProgress{c.Copied, c.Copied, c.BytesCopied, c.BytesCopied}, told[len(told)-1])
}

// What a copy says that was cut short is what it has copied, not what it was to.
func TestCopyThatFailsSaysHowFarItCame(t *testing.T) {
	job := startFlink(t, twoClouds(), rocksdb, "s3://lake/flink")
	job.completes(6)
	copies := 0
	store := hook(job.store, func(op string, u blobstore.URI, do func() error) error {
		if op == "copy" {
			if copies++; copies > 3 {
				return &blobstore.Error{Op: op, URI: u, Err: errRefuse}
			}
		}
		return do()
	})
	c, err := Copy(t.Context(), store, job.chk(6), blobstore.MustParse(inS3), CopyOptions{Parallel: 1})
	require.ErrorIs(t, err, errRefuse)
	assert.Equal(t, 3, c.Copied)
	listed := below(t, job.store, blobstore.MustParse(inS3))
	assert.Len(t, listed, 3)
	assert.Positive(t, c.BytesCopied)
}
