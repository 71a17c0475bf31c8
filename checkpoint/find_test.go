package checkpoint

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// Where the JobManager remembers no checkpoint, the newest is looked for in the
// job's folder.
func TestNewest(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(t *testing.T, job *flink)
		want    int64
	}{
		"by number, not by text": {func(t *testing.T, job *flink) { job.completes(9); job.completes(10); job.completes(8) }, 10},
		"not by time":            {func(t *testing.T, job *flink) { job.completes(10); job.completes(9) }, 10},
		"one that is not complete": {func(t *testing.T, job *flink) {
			job.completes(9)
			put(t, job.store, job.chk(10).Join("3ba7c6cb-6fd1-42eb-94cb-b10e9ba45816").String(), []byte("state"))
		}, 9},
		"markers of folders that Hadoop leaves": {func(t *testing.T, job *flink) {
			job.completes(9)
			for _, marker := range []string{"chk-10_$folder$", "chk-11", "shared_$folder$"} {
				put(t, job.store, job.folder.Join(marker).String(), nil)
			}
		}, 9},
		"one whose metadata is cut off": {func(t *testing.T, job *flink) {
			job.completes(9)
			job.completes(10)
			u := job.chk(10).Join(MetadataName)
			put(t, job.store, u.String(), get(t, job.store, u)[:1000])
		}, 9},
		"one that lost a file": {func(t *testing.T, job *flink) {
			job.completes(9)
			job.completes(10)
			remove(t, job.store, below(t, job.store, job.chk(10))[0])
		}, 9},
		"strange names": {func(t *testing.T, job *flink) {
			job.completes(9)
			for _, name := range []string{"chk-", "chk-x", "chk--12", "chk-12.bak", "chk-99999999999999999999", "last-state", "savepoint-1624fd-0"} {
				put(t, job.store, job.folder.Join(name, MetadataName).String(), get(t, job.store, job.chk(9).Join(MetadataName)))
			}
		}, 9},
	} {
		t.Run(name, func(t *testing.T) {
			job := newJob(t, rocksdb)
			c.prepare(t, job)
			latest, err := Newest(t.Context(), job.store, job.folder, 1<<62, LoadOptions{})
			require.NoError(t, err)
			require.Equal(t, &Latest{ID: c.want, Path: job.chk(c.want)}, latest)

			job.restored, job.latest = &Restored{ID: 12, Path: job.chk(12)}, nil // its JobManager recovered
			p := job.pins(app, PinOptions{Checkpoints: job.folder.Dir()})
			require.EqualValues(t, c.want, p.CheckpointID)
			job.requireRestores(app, c.want)
		})
	}
}

// With a constant job id, an earlier run's higher numbers lie beside those of a
// run that restored something older: they are not what a recovery goes back to.
func TestNewestLeavesOutWhatWasRolledBack(t *testing.T) {
	job := newJob(t, rocksdb)
	job.completes(42)
	job.completes(100)
	latest, err := Newest(t.Context(), job.store, job.folder, 42, LoadOptions{})
	require.NoError(t, err)
	require.Equal(t, &Latest{ID: 42, Path: job.chk(42)}, latest)
	job.restored, job.latest = &Restored{ID: 42, Path: job.chk(42)}, nil
	p := job.pins(app, PinOptions{Checkpoints: job.folder.Dir()})
	require.EqualValues(t, 42, p.CheckpointID)
}

func TestNewestOfNothing(t *testing.T) {
	job := newJob(t, rocksdb)
	_, err := Newest(t.Context(), job.store, job.folder, 1<<62, LoadOptions{})
	require.ErrorIs(t, err, ErrNoCheckpoint)
	put(t, job.store, job.chk(1).Join("x").String(), nil)
	_, err = Newest(t.Context(), job.store, job.folder, 1<<62, LoadOptions{})
	require.ErrorIs(t, err, ErrNoCheckpoint)
}

// A store that does not answer is not an empty folder.
func TestNewestTellsUnreachableFromNone(t *testing.T) {
	job := newJob(t, rocksdb)
	job.completes(9)
	job.completes(10)
	for _, failing := range []string{"list", "open"} {
		store := &hooked{Store: job.store, call: func(op string, u blobstore.URI, do func() error) error {
			if op == failing && strings.Contains(u.String(), job.folder.String()) {
				return &blobstore.Error{Op: op, URI: u, Err: blobstore.ErrPermission}
			}
			return do()
		}}
		_, err := Newest(t.Context(), store, job.folder, 1<<62, LoadOptions{})
		require.ErrorIs(t, err, blobstore.ErrPermission)
	}
}

// The folder of a constant job id is full of other runs' checkpoints. It is
// looked into only when this run restored one of them, and what it holds is
// judged like all else.
func TestTheFolderIsNotTakenForARunThatDidNotWriteIt(t *testing.T) {
	job := newJob(t, rocksdb)
	job.completes(40)
	opts := PinOptions{Checkpoints: job.folder.Dir()}
	again := *job
	again.run.Started++
	again.latest = nil
	for i, restored := range []*Restored{nil, {ID: 39, Path: LayoutOf(app).Root}, {ID: 39, Path: blobstore.MustParse("s3://lake/savepoints/savepoint-1624fd-0")}} {
		again.restored = restored
		_, err := Pin(t.Context(), job.store, app.Join(fmt.Sprint(i)), &again, opts)
		require.ErrorIs(t, err, ErrNoCheckpoint)
	}
}
