package flinkjob_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/flinkjob"
	"github.com/chkpin/chkpin/flinkrest"
)

// The five common uses, each on a real checkpoint of Flink 2.3.0 and a JobManager
// of recorded answers. A program has, in their place, the URL of its JobManager
// and the store of its state: [blobstore.NewFile], or New of package s3store or
// azstore, or several of them in a [blobstore.Mux].

// Pin once: find the running job, and pin its newest checkpoint.
func Example_pin() {
	ctx := context.Background()
	flink := startSample()
	defer flink.stop()

	client, err := flinkrest.New(flinkrest.Config{URL: flink.url, Timeout: 15 * time.Second})
	if err != nil {
		panic(err)
	}
	job := flinkjob.Job{Client: client, Choice: flinkjob.Choice{Name: "pin-job"}}
	pinned, err := checkpoint.Pin(ctx, blobstore.NewFile(), flink.app, job, checkpoint.PinOptions{Timeout: 5 * time.Minute})
	switch {
	case errors.Is(err, checkpoint.ErrNoCheckpoint):
		fmt.Println("nothing to pin yet")
	case err != nil:
		fmt.Println("the pin is as it was:", err)
	default:
		fmt.Println(pinned.Result, pinned.Generation, pinned.Copied, pinned.Warnings)
	}
	// Output: pinned 00000001-chk-6 10 []
}

// At the start: what to start from, which is nothing the first time.
func Example_resolve() {
	ctx, store := context.Background(), blobstore.NewFile()
	flink := startSample()
	defer flink.stop()
	arguments := func() ([]string, error) {
		r, err := checkpoint.Resolve(ctx, store, flink.app, checkpoint.ResolveOptions{})
		if errors.Is(err, checkpoint.ErrNoPin) { // not ErrPinGone: that is state that was lost
			return nil, nil
		}
		return r.Args(), err
	}

	args, err := arguments()
	fmt.Println(len(args), err)
	flink.pin(ctx, store)
	args, err = arguments()
	fmt.Println(args[0], flink.below(args[1]), err)
	// Output:
	// 0 <nil>
	// --fromSavepoint orders/last-state/_metadata <nil>
}

// What is there, and does it restore? List proves each thing that it finds;
// Load and Verify say of one which files are missing.
func Example_listAndVerify() {
	ctx, store := context.Background(), blobstore.NewFile()
	flink := startSample()
	defer flink.stop()
	flink.pin(ctx, store)
	flink.deleted("checkpoints", flink.sample.JobID, "shared")

	for found, err := range checkpoint.List(ctx, store, flink.root, checkpoint.ListOptions{}) {
		if err != nil {
			fmt.Println("not listed:", err)
			continue
		}
		fmt.Println(found.Kind, found.CheckpointID, "restorable:", found.Restorable())
	}

	snap, err := checkpoint.Load(ctx, store, checkpoint.LayoutOf(flink.app).Root, checkpoint.LoadOptions{})
	if err != nil {
		panic(err)
	}
	report, err := checkpoint.Verify(ctx, store, snap)
	fmt.Println(report.OK(), report.Files, len(report.Missing), err)
	// Output:
	// checkpoint 6 restorable: false
	// generation 6 restorable: true
	// true 10 0 <nil>
}

// A copy elsewhere, which restores there when the first place is lost. In a
// program that pins, [checkpoint.PinOptions].Replicas keeps it up to date.
func Example_copy() {
	ctx := context.Background()
	store := blobstore.Mux{
		blobstore.FamilyFile: blobstore.NewFile(),
		blobstore.FamilyS3:   blobstore.NewMemory(), // s3store.New in a program
	}
	flink := startSample()
	defer flink.stop()
	flink.pin(ctx, store)
	replica := blobstore.MustParse("s3://elsewhere/orders")

	copied, err := checkpoint.Copy(ctx, store, flink.app, replica, checkpoint.CopyOptions{})
	fmt.Println(copied.Result, copied.Kind, copied.Generations, err)

	flink.deleted("orders")
	r, err := checkpoint.ResolveFirst(ctx, store, []blobstore.URI{flink.app, replica}, checkpoint.ResolveOptions{})
	fmt.Println(r.Path, err)
	// Output:
	// copied pin [00000001-chk-6] <nil>
	// s3://elsewhere/orders/last-state/_metadata <nil>
}

// Back to the generation before. Ticks are held until a run restored it.
func Example_rollback() {
	ctx, store := context.Background(), blobstore.NewFile()
	flink := startSample()
	defer flink.stop()
	flink.pin(ctx, store)
	flink.completes()
	flink.pin(ctx, store)

	back, err := checkpoint.Rollback(ctx, store, flink.app, checkpoint.RollbackOptions{Reason: "orders are lost"})
	fmt.Println(back.Result, "from", back.From, "to", back.Generation, err)

	flink.completes()
	_, err = checkpoint.Pin(ctx, store, flink.app, flink.job(), checkpoint.PinOptions{})
	if held, ok := errors.AsType[*checkpoint.HeldError](err); ok {
		fmt.Println(held.Reason)
	}

	hold, err := checkpoint.Release(ctx, store, flink.app, checkpoint.RollbackOptions{})
	fmt.Println("released", hold.Generation, err)
	// Output:
	// rolled-back from 00000002-chk-7 to 00000001-chk-6 <nil>
	// the pin is on hold: orders are lost
	// released 00000001-chk-6 <nil>
}
