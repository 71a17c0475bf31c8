package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/cmd/chkpin/sample"
)

// transfers is how many files both programs have under way at once.
const transfers = 16

// moves measures copies between a volume and S3, of many small files and of
// some large ones, beside rclone.
func (b *benchmark) moves(ctx context.Context) error {
	for _, m := range []struct {
		files int
		each  int64
	}{
		{b.files, fileSize},
		{12, 64 << 20}, // as large as RocksDB's files become
		{1, 1 << 30},
	} {
		if err := b.move(ctx, m.files, m.each); err != nil {
			return err
		}
	}
	return nil
}

func (b *benchmark) move(ctx context.Context, n int, each int64) error {
	b.progress("writing %d files of %v", n, size(each))
	volume := filepath.Join(b.dir, "volume")
	defer os.RemoveAll(volume)
	from, back, backByRclone := filepath.Join(volume, "checkpoint"), filepath.Join(volume, "back"), filepath.Join(volume, "rclone")
	if err := writeVolume(from, n, each); err != nil {
		return err
	}
	buckets := filepath.Join(b.server.Dir, bucket) // where versitygw keeps them
	moved, movedByRclone := filepath.Join(buckets, "moved"), filepath.Join(buckets, "rclone")
	for _, way := range []struct {
		what    string
		chkpin  [2]string
		rclone  [2]string
		targets []string
	}{
		{"to S3", [2]string{"file://" + from, "s3://bucket/moved"}, [2]string{from, "s3:bucket/rclone"}, []string{moved, movedByRclone}},
		{"from S3", [2]string{"s3://bucket/moved", "file://" + back}, [2]string{"s3:bucket/moved", backByRclone}, []string{back, backByRclone}},
	} {
		what := fmt.Sprintf("%d files of %v %s", n, size(each), way.what)
		b.progress("copying %s, %d times", what, b.fileRuns)
		var ours, byRclone usages
		for i := range b.fileRuns {
			if err := removeAll(way.targets); err != nil {
				return err
			}
			u, err := b.program(b.server.URL, b.chkpin, "copy", "--parallel", strconv.Itoa(transfers), way.chkpin[0], way.chkpin[1]).run(ctx)
			if err != nil {
				return err
			}
			v, err := b.program(b.server.URL, "rclone", "copy", "--quiet",
				"--transfers", strconv.Itoa(transfers), "--checkers", strconv.Itoa(transfers), way.rclone[0], way.rclone[1]).run(ctx)
			if err != nil {
				return err
			}
			ours, byRclone = append(ours, u), append(byRclone, v)
			b.progress("run %d: chkpin %v wall, %v CPU, %v; rclone %v wall, %v CPU, %v", i+1,
				milliseconds(u.Wall), milliseconds(u.CPU), size(u.RSS), milliseconds(v.Wall), milliseconds(v.CPU), size(v.RSS))
		}
		us, beside := ours.median(), byRclone.median()
		b.times(what+", wall", us.Wall, beside.Wall, 1.25, "at most 1.25 of rclone copy's")
		b.times(what+", CPU", us.CPU, beside.CPU, 0, "")
		b.memory(what+", RSS", us.RSS, beside.RSS, 64<<20)
	}
	return removeAll([]string{moved, movedByRclone})
}

// writeVolume writes a checkpoint of n files.
func writeVolume(dir string, n int, each int64) error {
	if err := os.MkdirAll(filepath.Join(dir, "shared"), 0o755); err != nil {
		return err
	}
	block := make([]byte, min(each, 1<<20))
	rand.Read(block) // never fails
	files := make([]string, n)
	for i := range files {
		path := filepath.Join(dir, "shared", fmt.Sprintf("%08x-4a1b-4c2d-8e3f-%012x", i, i))
		if err := writeBlocks(path, block, each); err != nil {
			return err
		}
		files[i] = "file:" + path
	}
	return os.WriteFile(filepath.Join(dir, checkpoint.MetadataName), sample.Incremental(1, files, each), 0o644)
}

func writeBlocks(path string, block []byte, n int64) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	for ; n > 0 && err == nil; n -= int64(len(block)) {
		_, err = file.Write(block[:min(n, int64(len(block)))])
	}
	return err
}

func removeAll(dirs []string) (err error) {
	for _, dir := range dirs {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}
