package checkpoint

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// onceDuring runs do before the first file arrives at a place.
func onceDuring(store blobstore.Store, place blobstore.URI, do func()) blobstore.Store {
	done := false
	return hook(store, func(op string, u blobstore.URI, call func() error) error {
		if op == "copy" && u.Within(place) && !done {
			done = true
			do()
		}
		return call()
	})
}

// While a copy is brought up to date a job that restored from it is pinned there,
// as generation of the same name: both runs have come as far. That pin is no copy,
// and nothing of it gives way.
func TestAJobIsPinnedWhereACopyIsBrought(t *testing.T) {
	job := startFlink(t, twoClouds(), rocksdb, "s3://lake/flink")
	job.completes(6)
	job.pins(primary, PinOptions{})
	job.copies(primary.String(), backup.String())
	green := job.successor("aaaaaaaa99507e464787c646439a53ff", LayoutOf(backup).Root.String(), 6)
	green.completes(7)
	job.completes(7)
	job.pins(primary, PinOptions{})

	store := onceDuring(job.store, backup, func() { green.pins(backup, PinOptions{}) })
	_, err := Copy(t.Context(), store, primary, backup, CopyOptions{Sleep: noSleep})
	require.ErrorIs(t, err, ErrOccupied)
	green.requireRestores(backup, 7)
	there := LayoutOf(backup)
	assert.Equal(t, digestOf(get(t, job.store, there.Metadata)), digestOf(get(t, job.store, there.generation("00000002-chk-7").Join(MetadataName))))
	assert.Equal(t, readRecord(t, job.store, there).Run.JobID, green.run.JobID)
	manifest, ok, err := readManifest(t.Context(), job.store, there.generation("00000002-chk-7"))
	require.NoError(t, err)
	require.True(t, ok)
	assert.Equal(t, green.run.JobID, manifest.Run.JobID)
}

// A generation that does not parse, or is not there, is left out like one whose
// files are missing: it must not keep the others where they are.
func TestCopyLeavesOutDamagedGenerations(t *testing.T) {
	job := startFlink(t, twoClouds(), rocksdb, "s3://lake/flink")
	for id := int64(6); id < 10; id++ {
		job.completes(id)
		job.pins(primary, PinOptions{})
	}
	from := LayoutOf(primary)
	put(t, job.store, from.generation("00000001-chk-6").Join(MetadataName).String(), []byte("{}"))
	remove(t, job.store, from.generation("00000002-chk-7").Join(MetadataName))
	c := job.copies(primary.String(), backup.String())
	assert.Equal(t, []string{"00000004-chk-9", "00000003-chk-8"}, c.Generations)
	require.Len(t, c.Warnings, 2)
	assert.Contains(t, c.Warnings[0], "generation 00000002-chk-7 is left out")
	assert.Contains(t, c.Warnings[1], "generation 00000001-chk-6 is left out")
	job.requireRestores(backup, 9)
}

// Flink deletes the folder of a job with all that is in it.
func TestCopyIntoTheJobsFolder(t *testing.T) {
	job := startFlink(t, twoClouds(), rocksdb, "s3://lake/flink")
	job.completes(6)
	_, err := Copy(t.Context(), job.store, job.chk(6), job.folder.Join("backup"), CopyOptions{})
	require.ErrorIs(t, err, ErrInsideJob)
	assert.Empty(t, below(t, job.store, job.folder.Join("backup")))
}

func TestReplicasLieBesideEachOther(t *testing.T) {
	job := startFlink(t, twoClouds(), rocksdb, "s3://lake/flink")
	job.completes(6)
	for _, other := range []blobstore.URI{backup, backup.Join("twice")} {
		_, err := Pin(t.Context(), job.store, primary, job, PinOptions{Replicas: []blobstore.URI{backup, other}})
		require.ErrorIs(t, err, ErrNested)
		assert.Empty(t, below(t, job.store, primary))
	}
}
