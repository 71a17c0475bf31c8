package cdkstore_test

import (
	"context"
	"fmt"
	"log"

	"gocloud.dev/blob/memblob"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/cdkstore"
	"github.com/chkpin/chkpin/checkpoint"
)

// With a bucket of gocloud.dev/blob/gcsblob this resolves what is pinned in
// Google Cloud Storage. One chkpin publishes there, so the last writer may win.
func Example() {
	ctx := context.Background()
	bucket := memblob.OpenBucket(nil) // or blob.OpenBucket(ctx, "gs://state"), with gcsblob imported
	defer bucket.Close()

	root := blobstore.MustParse("gs://state")
	store := blobstore.Mux{
		blobstore.FamilyFile: blobstore.NewFile(),
		root.Family():        cdkstore.New(bucket, root, cdkstore.Options{AllowLastWriterWins: true}),
	}
	_, err := checkpoint.Resolve(ctx, store, root.Join("orders"), checkpoint.ResolveOptions{})
	if err == nil {
		log.Fatal("something is pinned in an empty bucket")
	}
	fmt.Println(err)
	// Output: nothing was ever pinned here: gs://state/orders
}
