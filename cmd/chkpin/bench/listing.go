package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/cmd/chkpin/sample"
)

const (
	manyObjects = 100_000
	manyJobs    = 1000
)

// listings measures list where there are many objects, of one job and of many,
// beside a plain listing of all names, which proves nothing.
func (b *benchmark) listings(ctx context.Context) error {
	for _, place := range []struct {
		what  string
		root  string
		write func(root string) error
		most  int // requests
	}{
		{fmt.Sprintf("list, 1 job with %d files", manyObjects), "s3://bucket/one", b.writeOneJob, 150},
		{fmt.Sprintf("list, %d jobs with %d files", manyJobs, manyObjects), "s3://bucket/many", b.writeManyJobs, 5*manyJobs + 20},
	} {
		b.progress("writing %s", place.what)
		if err := place.write(place.root); err != nil {
			return err
		}
		list := b.program(b.s3.URL, b.chkpin, "list", place.root)
		b.forget()
		u, err := list.run(ctx)
		if err != nil {
			return err
		}
		requests := len(b.s3.Requests())
		v, err := b.program(b.s3.URL, "s5cmd", "--log", "error", "ls", place.root+"/*").run(ctx)
		if err != nil {
			return err
		}
		names := len(b.s3.Requests())
		b.fact(place.what+", requests", fmt.Sprint(requests), fmt.Sprint(names), fmt.Sprintf("at most %d", place.most), requests <= place.most)
		b.times(place.what+", wall", u.Wall, v.Wall, 0, "")
		b.memory(place.what+", RSS", u.RSS, v.RSS, 64<<20)
		if err := b.remove(place.root); err != nil {
			return err
		}
	}
	return nil
}

// writeOneJob makes three checkpoints of incremental state, each of which names
// a fifth of what lies in shared/.
func (b *benchmark) writeOneJob(root string) error {
	folder := root + "/" + jobID(0)
	files, err := b.lay(folder+"/shared", manyObjects)
	if err != nil {
		return err
	}
	for i := range 3 {
		if err := b.layCheckpoint(folder, int64(i+1), files[i*1000:][:manyObjects/5]); err != nil {
			return err
		}
	}
	return nil
}

// writeManyJobs makes a checkpoint of each job, which names a fifth of what lies
// in the job's shared/.
func (b *benchmark) writeManyJobs(root string) error {
	for i := range manyJobs {
		folder := root + "/" + jobID(i)
		files, err := b.lay(folder+"/shared", manyObjects/manyJobs)
		if err != nil {
			return err
		}
		if err := b.layCheckpoint(folder, 7, files[:len(files)/5]); err != nil {
			return err
		}
	}
	return nil
}

func jobID(n int) string { return fmt.Sprintf("%032x", n) }

// lay makes n state files below a folder behind the server's back, and returns
// their names.
func (b *benchmark) lay(folder string, n int) ([]string, error) {
	dir, err := b.behind(folder)
	if err != nil {
		return nil, err
	}
	files := make([]string, n)
	for i := range files {
		name := fmt.Sprintf("%08x-4a1b-4c2d-8e3f-%012x", uint32(i)*2654435761, i) // evenly spread, as UUIDs are
		files[i] = folder + "/" + name
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return nil, err
		}
		if err := os.Truncate(path, fileSize); err != nil { // it takes no space
			return nil, err
		}
	}
	return files, nil
}

func (b *benchmark) layCheckpoint(folder string, id int64, files []string) error {
	dir, err := b.behind(fmt.Sprintf("%s/chk-%d", folder, id))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, checkpoint.MetadataName), sample.Incremental(id, files, fileSize), 0o644)
}

// behind is where the server keeps a folder, which it makes.
func (b *benchmark) behind(folder string) (string, error) {
	u, err := blobstore.Parse(folder)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(b.server.Dir, bucket, filepath.FromSlash(u.Key()))
	return dir, os.MkdirAll(dir, 0o755)
}
