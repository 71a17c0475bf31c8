package checkpoint_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
)

// A release went wrong and its checkpoints were pinned. The pin goes back to the
// generation before, and no tick moves it until a job restored that.
func ExampleRollback() {
	ctx, store := context.Background(), blobstore.NewMemory()
	app := blobstore.MustParse("s3://bucket/orders")
	job := &recordedJob{store: store}
	for _, id := range []int64{5, 6} {
		job.completes(id)
		if _, err := checkpoint.Pin(ctx, store, app, job, checkpoint.PinOptions{}); err != nil {
			panic(err)
		}
	}

	back, err := checkpoint.Rollback(ctx, store, app, checkpoint.RollbackOptions{Reason: "orders are lost"})
	fmt.Println(back.Result, "from", back.From, "to", back.Generation, err)

	job.completes(7)
	_, err = checkpoint.Pin(ctx, store, app, job, checkpoint.PinOptions{})
	if held, ok := errors.AsType[*checkpoint.HeldError](err); ok {
		fmt.Println("held:", held.Reason)
	}

	_, err = checkpoint.Release(ctx, store, app, checkpoint.RollbackOptions{})
	fmt.Println("released", err)
	// Output:
	// rolled-back from 00000002-chk-6 to 00000001-chk-5 <nil>
	// held: the pin is on hold: orders are lost
	// released <nil>
}

// recordedJob answers as a JobManager whose job takes the same small checkpoint
// again and again, one of Flink 1.20.5.
type recordedJob struct {
	store  blobstore.Store
	latest checkpoint.Latest
}

func (j *recordedJob) completes(id int64) {
	data, err := os.ReadFile("metadata/testdata/1.20.5-hashmap-inline/_metadata")
	if err != nil {
		panic(err)
	}
	binary.BigEndian.PutUint64(data[8:], uint64(id)) // after magic number and version
	j.latest = checkpoint.Latest{ID: id, Path: blobstore.MustParse(fmt.Sprintf("s3://flink/a1b2c3/chk-%d", id))}
	if _, err := j.store.Put(context.Background(), j.latest.Path.Join("_metadata"), bytes.NewReader(data), blobstore.PutOptions{}); err != nil {
		panic(err)
	}
}

func (j *recordedJob) Observe(context.Context) (checkpoint.Observation, error) {
	return checkpoint.Observation{Run: checkpoint.Run{JobID: "a1b2c3"}, Latest: &j.latest}, nil
}

func (j *recordedJob) RestorePath(context.Context) (string, error) { return "", nil }
