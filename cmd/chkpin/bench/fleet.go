package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
)

// fleet is many applications, each with a JobManager at an address of its own.
// They all answer for the same job.
type fleet struct {
	file  string // of --targets
	asked atomic.Int64
}

func (b *benchmark) newFleet(targets int) (*fleet, error) {
	f := &fleet{file: filepath.Join(b.dir, "targets.yaml")}
	var text strings.Builder
	text.WriteString("targets:\n")
	for i := range targets {
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f.asked.Add(1)
			b.jm.ServeHTTP(w, r)
		}))
		b.stops = append(b.stops, web.Close)
		fmt.Fprintf(&text, "- {name: app-%d, app: s3://%s/fleet/app-%d, jobmanager: %q}\n", i, bucket, i, web.URL)
	}
	return f, os.WriteFile(f.file, []byte(text.String()), 0o600)
}

// fleetTicks measures ticks of one process for many applications.
func (b *benchmark) fleetTicks(ctx context.Context) error {
	b.progress("measuring %d targets, %d times", b.targets, b.fileRuns)
	f, err := b.newFleet(b.targets)
	if err != nil {
		return err
	}
	direct := b.program(b.server.URL, b.chkpin, "pin", "--targets", f.file)
	var changed, unchanged usages
	for range b.fileRuns {
		if err := b.change(ctx, newFiles); err != nil {
			return err
		}
		for _, of := range []*usages{&changed, &unchanged} {
			u, err := direct.run(ctx)
			if err != nil {
				return err
			}
			*of = append(*of, u)
		}
	}
	f.asked.Store(0)
	b.forget()
	if _, err := b.program(b.s3.URL, b.chkpin, "pin", "--targets", f.file).run(ctx); err != nil {
		return err
	}
	s3, rest := len(b.s3.Requests()), int(f.asked.Load())

	what := fmt.Sprintf("%d targets", b.targets)
	for _, m := range []struct {
		what string
		usage
	}{{what + ", unchanged", unchanged.median()}, {what + ", changed", changed.median()}} {
		b.fact(m.what+", wall", milliseconds(m.Wall).String(), "", "", true)
		b.fact(m.what+", CPU", milliseconds(m.CPU).String(), "", "", true)
		b.fact(m.what+", RSS", size(m.RSS).String(), "", "at most 128 MiB", m.RSS <= 128<<20)
	}
	b.fact(what+", unchanged, requests", fmt.Sprintf("%d S3, %d REST", s3, rest), "", "2 S3 and 2 REST each",
		s3 == 2*b.targets && rest == 2*b.targets)
	return nil
}
