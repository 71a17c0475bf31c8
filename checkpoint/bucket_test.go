package checkpoint

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/memblob"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/cdkstore"
)

// A job whose state is in a bucket that only the Go CDK knows.
func TestPinInABucketOfTheGoCDK(t *testing.T) {
	bucket := memblob.OpenBucket(nil)
	defer bucket.Close()
	root, app := blobstore.MustParse("gs://bucket"), blobstore.MustParse("gs://bucket/orders")
	job := startFlink(t, cdkstore.New(bucket, root, cdkstore.Options{AllowLastWriterWins: true}), rocksdb, "gs://bucket/flink")
	for id := rocksdb.id; id < rocksdb.id+3; id++ {
		job.completes(id)
		require.Equal(t, ResultPinned, job.pins(app, PinOptions{}).Result)
		job.subsumes(id - 1)
		require.Equal(t, ResultUnchanged, job.pins(app, PinOptions{}).Result)
	}
	job.deletes()
	job.requireRestores(app, rocksdb.id+2)

	// Who may not publish with less than the contract asks for publishes once.
	job = startFlink(t, cdkstore.New(bucket, root, cdkstore.Options{}), rocksdb, "gs://bucket/strict")
	strict := root.Join("strict-orders")
	job.completes(rocksdb.id)
	require.Equal(t, ResultPinned, job.pins(strict, PinOptions{}).Result)
	job.completes(rocksdb.id + 1)
	_, err := Pin(t.Context(), job.store, strict, job, PinOptions{})
	require.ErrorIs(t, err, cdkstore.ErrNoIfTag)
	job.requireRestores(strict, rocksdb.id)
}
