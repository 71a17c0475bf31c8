package checkpoint_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
)

// What to start a job from: the pin, or newer savepoints of the job, or what the
// replica holds. Nothing at all only if nothing was ever pinned.
func ExampleResolveFirst() {
	store := blobstore.Mux{blobstore.FamilyS3: blobstore.NewMemory()} // s3store.New in a program
	apps := []blobstore.URI{blobstore.MustParse("s3://bucket/orders"), blobstore.MustParse("s3://elsewhere/orders")}
	flink := checkpoint.FlinkVersion{Major: 1, Minor: 20}

	r, err := checkpoint.ResolveFirst(context.Background(), store, apps, checkpoint.ResolveOptions{
		Savepoints: []blobstore.URI{blobstore.MustParse("s3://bucket/savepoints")},
		Flink:      flink,
	})
	switch {
	case errors.Is(err, checkpoint.ErrNoPin):
		fmt.Println("first start")
	case err != nil:
		fmt.Println("do not start:", err)
	default:
		fmt.Println("flink run", r.RunArgs(flink), r.Warnings)
	}
	// Output: first start
}
