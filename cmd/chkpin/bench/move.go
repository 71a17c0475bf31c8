package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/chkpin/chkpin/blobstore/storetest/servers"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/cmd/chkpin/sample"
)

// transfers is how many files both programs have under way at once.
const transfers = 16

// remote is a service that is copied to and from, by chkpin and by rclone, with
// nothing in it.
type remote struct {
	name           string
	env            []string                 // how programs reach it, beside what all have
	chkpin, rclone func(name string) string // a folder, as each program spells it
	stop           func() error             // forgets what was copied
}

// s3Remote is the server of the site.
func (b *benchmark) s3Remote() (remote, error) {
	return remote{
		name:   "S3",
		chkpin: func(name string) string { return "s3://bucket/copies/" + name },
		rclone: func(name string) string { return "s3:bucket/copies/" + name },
		stop:   func() error { return b.remove("s3://bucket/copies") },
	}, nil
}

// azureRemote is an emulator of its own, which keeps in memory all that it was
// ever sent.
func (b *benchmark) azureRemote() (remote, error) {
	dir, err := os.MkdirTemp(b.dir, "azurite-")
	if err != nil {
		return remote{}, err
	}
	server, stop, err := servers.StartAzurite(dir, bucket)
	if err != nil {
		return remote{}, err
	}
	return remote{
		name: "Azure",
		env: []string{
			"CHKPIN_AZURE_ENDPOINT=" + server.URL, "RCLONE_CONFIG_AZURE_TYPE=azureblob", "RCLONE_CONFIG_AZURE_ENDPOINT=" + server.URL + "/" + server.Account,
			"RCLONE_CONFIG_AZURE_ACCOUNT=" + server.Account, "RCLONE_CONFIG_AZURE_KEY=" + server.Key,
		},
		chkpin: func(name string) string {
			return fmt.Sprintf("wasbs://%s@%s.blob.core.windows.net/copies/%s", bucket, server.Account, name)
		},
		rclone: func(name string) string { return "azure:bucket/copies/" + name },
		stop: func() error {
			stop()
			return os.RemoveAll(dir)
		},
	}, nil
}

// movesS3 measures copies between a volume and S3, of many small files and of some
// large ones, beside rclone.
func (b *benchmark) movesS3(ctx context.Context) error {
	return b.moves(ctx, b.s3Remote, b.files)
}

// movesAzure does so with Azure, with fewer small files: the emulator is what takes
// the time. These are copied within the account, too; of larger ones rclone asks for
// blocks from URLs, which the emulator does not know.
func (b *benchmark) movesAzure(ctx context.Context) error {
	n := max(1, b.files/10)
	if err := b.moves(ctx, b.azureRemote, n, "within"); err != nil {
		return err
	}
	return b.countWithinAzure(ctx, n)
}

// moves measures the copies of many small files and of some large ones; of the
// small ones also the further ways.
func (b *benchmark) moves(ctx context.Context, start func() (remote, error), small int, further ...string) error {
	for _, m := range []struct {
		files int
		each  int64
		ways  []string
	}{
		{small, fileSize, append([]string{"to", "from"}, further...)},
		{12, 64 << 20, []string{"to", "from"}}, // as large as RocksDB's files become
		{1, 1 << 30, []string{"to", "from"}},
	} {
		if err := b.move(ctx, start, m.files, m.each, m.ways); err != nil {
			return err
		}
	}
	return nil
}

// move measures one checkpoint's ways, in this order: from and within read what to
// has brought.
func (b *benchmark) move(ctx context.Context, start func() (remote, error), n int, each int64, ways []string) error {
	b.progress("writing %d files of %v", n, size(each))
	volume := filepath.Join(b.dir, "volume")
	defer os.RemoveAll(volume)
	from, back, backByRclone := filepath.Join(volume, "checkpoint"), filepath.Join(volume, "back"), filepath.Join(volume, "rclone")
	if err := writeVolume(from, n, each); err != nil {
		return err
	}
	ours, byRclone := map[string]usages{}, map[string]usages{}
	name := ""
	run := func() (err error) {
		r, err := start()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.stop(), removeAll([]string{back, backByRclone})) }()
		name = r.name
		places := map[string]struct{ chkpin, rclone [2]string }{
			"to":     {[2]string{"file://" + from, r.chkpin("moved")}, [2]string{from, r.rclone("rclone")}},
			"from":   {[2]string{r.chkpin("moved"), "file://" + back}, [2]string{r.rclone("moved"), backByRclone}},
			"within": {[2]string{r.chkpin("moved"), r.chkpin("again")}, [2]string{r.rclone("moved"), r.rclone("rclone-again")}},
		}
		for _, way := range ways {
			u, err := b.copyByChkpin(r, places[way].chkpin).run(ctx)
			if err != nil {
				return err
			}
			v, err := b.copyByRclone(r, places[way].rclone).run(ctx)
			if err != nil {
				return err
			}
			ours[way], byRclone[way] = append(ours[way], u), append(byRclone[way], v)
			b.progress("%s %s: chkpin %v wall, %v CPU, %v; rclone %v wall, %v CPU, %v", way, name,
				milliseconds(u.Wall), milliseconds(u.CPU), size(u.RSS), milliseconds(v.Wall), milliseconds(v.CPU), size(v.RSS))
		}
		return nil
	}
	b.progress("copying them, %d times", b.fileRuns)
	for range b.fileRuns {
		if err := run(); err != nil {
			return err
		}
	}
	for _, way := range ways {
		what := fmt.Sprintf("%d files of %v %s %s", n, size(each), way, name)
		us, beside := ours[way].median(), byRclone[way].median()
		b.times(what+", wall", us.Wall, beside.Wall, 1.25, "at most 1.25 of rclone copy's")
		b.times(what+", CPU", us.CPU, beside.CPU, 0, "")
		b.memory(what+", RSS", us.RSS, beside.RSS, 64<<20)
	}
	return nil
}

func (b *benchmark) copyByChkpin(r remote, places [2]string) program {
	p := b.program(b.server.URL, b.chkpin, "copy", "--parallel", strconv.Itoa(transfers), places[0], places[1])
	p.env = append(p.env, r.env...)
	return p
}

func (b *benchmark) copyByRclone(r remote, places [2]string) program {
	p := b.program(b.server.URL, "rclone", "copy", "--quiet",
		"--transfers", strconv.Itoa(transfers), "--checkers", strconv.Itoa(transfers), places[0], places[1])
	p.env = append(p.env, r.env...)
	return p
}

// countWithinAzure counts what the service is asked for by a copy of small files
// within an account.
func (b *benchmark) countWithinAzure(ctx context.Context, n int) (err error) {
	r, err := b.azureRemote()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	volume := filepath.Join(b.dir, "volume")
	defer os.RemoveAll(volume)
	if err := writeVolume(volume, n, fileSize); err != nil {
		return err
	}
	if _, err := b.copyByChkpin(r, [2]string{"file://" + volume, r.chkpin("moved")}).run(ctx); err != nil {
		return err
	}
	b.progress("counting requests within Azure")
	asked := b.copyByChkpin(r, [2]string{r.chkpin("moved"), r.chkpin("again")})
	_, target, _ := strings.Cut(r.env[0], "=")
	proxy, err := b.proxy(target)
	if err != nil {
		return err
	}
	asked.env = append(asked.env, "CHKPIN_AZURE_ENDPOINT="+proxy.URL)
	if _, err := asked.run(ctx); err != nil {
		return err
	}
	copies, others := 0, 0
	for _, q := range proxy.Requests() {
		if q.Header.Get("X-Ms-Copy-Source") != "" {
			copies++
		} else {
			others++
		}
	}
	pages := 3 * (1 + n/1000) // looking at the source, before and after
	b.fact(fmt.Sprintf("%d files of %v within Azure, requests", n, size(fileSize)), fmt.Sprintf("%d copies, %d others", copies, others), "",
		"one for each file, and listings", copies == n && others <= 10+pages)
	return nil
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
