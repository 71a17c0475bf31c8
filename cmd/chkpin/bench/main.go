// Command bench measures what chkpin costs, as whole processes beside what it
// replaces, and prints figures, ratios and targets.
//
//	go run ./cmd/chkpin/bench build/chkpin
//
// A tick is measured beside a script around the AWS CLI (script.sh), the first
// pin of many files beside "s5cmd cp" of the same files, copies between a volume
// and S3, between a volume and Azure and within Azure beside "rclone copy", the
// start beside the least program with the same SDK (package bare), and a listing
// of a hundred thousand objects beside "s5cmd ls", which only names them. All speak
// to versitygw or Azurite on the loopback; what is compared runs in turn, and each
// figure is a median, but for listings, which run once. Requests are counted by a
// proxy, and steps with a latency added, so that requests sent at once are seen as
// such. RSS is that of the largest process. -only measures some parts of it:
//
//	go run ./cmd/chkpin/bench -only copies build/chkpin
//
// A missed target is marked in the table and is no failure: other load on the
// machine is part of what is measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
)

func main() {
	b := &benchmark{progress: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }}
	flag.IntVar(&b.runs, "runs", 7, "runs of each tick")
	flag.IntVar(&b.files, "files", 20_000, "files of the first pin")
	flag.IntVar(&b.fileRuns, "file-runs", 3, "runs of the first pin")
	flag.IntVar(&b.targets, "targets", 500, "applications of a fleet")
	b.only = regexp.MustCompile("")
	flag.Func("only", "measure only the parts whose `NAME` matches: requests, ticks, starts, first-pin, copies-s3, copies-azure, listings, fleet", func(pattern string) (err error) {
		b.only, err = regexp.Compile(pattern)
		return err
	})
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: bench [flags] CHKPIN-BINARY")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 || min(b.runs, b.files, b.fileRuns, b.targets) < 1 {
		flag.Usage()
		os.Exit(80)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.start(ctx, flag.Arg(0)); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// start measures a binary and prints the report.
func (b *benchmark) start(ctx context.Context, binary string) (err error) {
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "chkpin-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if b.site, err = newSite(ctx, dir, binary); err != nil {
		return err
	}
	defer b.stop()
	before := load()
	if err := b.run(ctx); err != nil {
		return err
	}
	fmt.Printf("%d CPUs, load %s before and %s after; beside it: %s\n\n", runtime.NumCPU(), before, load(), strings.Join(yardsticks, ", "))
	return b.print(os.Stdout)
}

// load is the load averages of Linux.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}
