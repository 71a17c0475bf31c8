package checkpoint_test

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
)

// testdataURI is a folder below testdata.
func testdataURI(path string) blobstore.URI {
	abs, err := filepath.Abs(filepath.Join("testdata", path))
	if err != nil {
		panic(err)
	}
	return blobstore.MustParse("file:" + filepath.ToSlash(abs))
}

func ExampleList() {
	root := testdataURI("")
	// The checkpoints were taken elsewhere: what they name is found below root.
	opts := checkpoint.ListOptions{Relocations: checkpoint.Relocations{{From: blobstore.MustParse("file:/tmp/flink-pin/ckpt"), To: root}}}
	for found, err := range checkpoint.List(context.Background(), blobstore.NewFile(), root, opts) {
		if err != nil {
			fmt.Println(err) // this folder could not be listed; the next one may be
			continue
		}
		path, _ := found.URI.Rel(root)
		fmt.Println(found.Kind, found.CheckpointID, found.Restorable(), path)
	}
	// Output:
	// checkpoint 3 true 1.13.6-hashmap-basic/311c74ddcfd1ac9760695f37e08fe41f/chk-3
	// checkpoint 5 true 1.20.5-rocksdb-filemerging/db9768a9ba627918b657cb2a82ff9e89/chk-5
	// checkpoint 4 true 2.3.0-hashmap-basic/1a92be4974f033e7ce84d74a3acb0743/chk-4
	// checkpoint 6 true 2.3.0-rocksdb-incremental/1624fd774f99507e464787c646439a53/chk-6
}

func ExampleDiff() {
	ctx, store := context.Background(), blobstore.NewFile()
	load := func(path string) *checkpoint.Snapshot {
		s, err := checkpoint.Load(ctx, store, testdataURI(path), checkpoint.LoadOptions{})
		if err != nil {
			panic(err)
		}
		return s
	}
	pinned := load("2.3.0-rocksdb-incremental/1624fd774f99507e464787c646439a53/chk-6")
	next := load("2.3.0-hashmap-basic/1a92be4974f033e7ce84d74a3acb0743/chk-4")
	d, err := checkpoint.Diff(pinned, next)
	if err != nil {
		panic(err)
	}
	for _, op := range d.Operators {
		fmt.Println(op.Change, op.UID, op.A.Bytes, op.B.Bytes)
	}
	fmt.Println("starts from the same state:", d.Equal(false))
	for _, note := range d.Notes {
		fmt.Println(note)
	}
	// Output:
	// resized counter 739277 227126
	// starts from the same state: true
}
