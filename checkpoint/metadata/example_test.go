package metadata_test

import (
	"fmt"
	"os"

	"github.com/chkpin/chkpin/checkpoint/metadata"
)

func ExampleParse() {
	data, err := os.ReadFile("testdata/1.15.4-hashmap-unaligned/_metadata")
	if err != nil {
		panic(err)
	}
	file, err := metadata.Parse(data)
	if err != nil {
		panic(err)
	}
	fmt.Printf("checkpoint %d, format version %d\n", file.CheckpointID, file.Version)
	for h := range file.Handles() {
		if h.Kind == metadata.Inline {
			continue // the state is inside the file
		}
		path, err := h.Path()
		if err != nil {
			panic(err)
		}
		fmt.Println(h.Role, h.Size(), path)
	}
	// Output:
	// checkpoint 4, format version 3
	// managed-keyed 109179 2443a896-6856-472c-915d-da127e7b445a
	// input-channel 4020 5c692cd3-df16-452d-9666-d077a5e1906d
	// managed-keyed 117947 91d0acb6-22fc-4b7d-b651-266f2da41a98
	// input-channel 3354 621613a8-aaaa-4cdf-bc3d-d56e2050a262
	// input-channel 3354 621613a8-aaaa-4cdf-bc3d-d56e2050a262
	// managed-operator 21962 64389244-1ef0-468a-a650-b3ae78f59a54
	// output-channel 17582 8d138265-a2e1-42fc-9838-a289d52d0fb0
	// output-channel 17582 8d138265-a2e1-42fc-9838-a289d52d0fb0
	// managed-operator 21962 3965fb5a-1766-4208-ad3c-6a48370d9f2c
	// output-channel 22420 894c124e-a51a-42f9-bba3-d4ef48ebe6d0
	// output-channel 22420 894c124e-a51a-42f9-bba3-d4ef48ebe6d0
}

func ExampleFile_Rewrite() {
	data, err := os.ReadFile("testdata/1.20.5-hashmap/_metadata")
	if err != nil {
		panic(err)
	}
	file, err := metadata.Parse(data)
	if err != nil {
		panic(err)
	}
	// A file that names its state by absolute paths restores from wherever it lies.
	moved, err := file.Rewrite(func(h metadata.Handle) (metadata.Path, error) {
		name, err := h.Path()
		return metadata.Path{Text: "s3://bucket/app/last-state/state/" + name}, err
	})
	if err != nil {
		panic(err)
	}
	file, err = metadata.Parse(moved)
	if err != nil {
		panic(err)
	}
	for h := range file.Handles() {
		if path, err := h.Path(); err == nil {
			fmt.Println(h.Kind, path)
		}
	}
	// Output:
	// file s3://bucket/app/last-state/state/f16ffb7e-d8c4-403a-9dfd-4c82e942074a
	// file s3://bucket/app/last-state/state/2909436b-18f3-41cc-a4cb-bb100b7afc5b
	// file s3://bucket/app/last-state/state/36b118d1-684b-428d-843b-9d12f109e754
	// file s3://bucket/app/last-state/state/02cb9cf6-3aa9-4e42-adc5-18a22e3709fa
}
