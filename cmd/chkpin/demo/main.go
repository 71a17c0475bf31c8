// Command demo shows in a terminal what chkpin is for: it pins a real checkpoint of Flink 2.3.0, deletes the job's
// folder, and proves that the pin restores all the same.
//
//	go run ./cmd/chkpin/demo build/chkpin
//
// It runs the binary it is given against a JobManager that replays recorded answers, on the loopback and in a
// temporary folder, and fails if a step does not do what it must.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/chkpin/chkpin/cmd/chkpin/sample"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: demo CHKPIN-BINARY")
		os.Exit(80)
	}
	if err := play(ctx, os.Args[1], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

// play runs the demonstration with a binary.
func play(ctx context.Context, binary string, out io.Writer) (err error) {
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "chkpin-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	flink, err := startFlink(filepath.Join(dir, "flink"))
	if err != nil {
		return err
	}
	defer flink.server.Close()
	t := &terminal{ctx: ctx, out: out, binary: binary, variables: []variable{
		{"JOB", flink.JobID}, {"JM", flink.url}, {"DIR", dir},
	}}
	return story(t, flink, dir)
}

// story is what the demonstration shows, step by step.
func story(t *terminal, flink *flink, dir string) error {
	var (
		checkpoint = filepath.Join(dir, "flink", flink.JobID, fmt.Sprintf("chk-%d", flink.Checkpoint))
		app        = filepath.Join(dir, "app")
		copied     = filepath.Join(dir, "copy")
		restorable = "restorable: file://$DIR/app/last-state/_metadata"
	)
	t.print("A real checkpoint of Flink 2.3.0 (RocksDB, incremental), and its JobManager's recorded answers.")
	t.define()

	t.explain("Pin the job's newest checkpoint.")
	if err := t.chkpin(0, "pinned checkpoint 6", "pin", "file://"+app, flink.url); err != nil {
		return err
	}
	t.explain("Prove it: every byte that its _metadata names is in the pin.")
	if err := t.chkpin(0, restorable, "verify", "file://"+app+"/last-state"); err != nil {
		return err
	}
	t.explain("This is all of it. Each generation starts as well as the constant path does.")
	if err := t.find(app); err != nil {
		return err
	}
	t.explain("What to start Flink with, the same for every deployment:")
	if err := t.chkpin(0, "--fromSavepoint file://$DIR/app/last-state/_metadata", "resolve", "file://"+app); err != nil {
		return err
	}

	t.explain("For comparison, the simple copy of the same checkpoint.")
	t.command("cp", filepath.Join(checkpoint, "_metadata"), copied+"/")
	if err := copyFile(filepath.Join(copied, "_metadata"), filepath.Join(checkpoint, "_metadata")); err != nil {
		return err
	}
	t.explain("Now the job's folder goes, as Flink deletes it sooner or later.")
	t.command("rm", "-r", filepath.Join(dir, "flink", flink.JobID))
	if err := os.RemoveAll(filepath.Join(dir, "flink", flink.JobID)); err != nil {
		return err
	}
	t.explain("The pin restores.")
	if err := t.chkpin(0, restorable, "verify", "file://"+app+"/last-state"); err != nil {
		return err
	}
	t.explain("The simple copy does not: what it names is gone.")
	if err := t.chkpin(4, "10 files missing", "verify", "file://"+copied); err != nil {
		return err
	}

	t.explain("The JobManager goes, too. A tick says so, and leaves the pin alone.")
	flink.server.Close()
	if err := t.chkpin(8, "connection refused", "pin", "file://"+app, flink.url, "--jobmanager-timeout", "1s"); err != nil {
		return err
	}
	return t.chkpin(0, restorable, "verify", "file://"+app+"/last-state")
}

// flink is the sample with its JobManager.
type flink struct {
	sample.Sample
	server *http.Server
	url    string
}

func startFlink(dir string) (*flink, error) {
	s, err := sample.Unpack(dir)
	if err != nil {
		return nil, err
	}
	jm, err := s.JobManager()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &flink{Sample: s, server: &http.Server{Handler: jm}, url: "http://" + listener.Addr().String()}
	go f.server.Serve(listener) // until it is closed
	return f, nil
}

func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o666)
}
