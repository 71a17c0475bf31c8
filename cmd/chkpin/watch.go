package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/flinkjob"
)

type watchCommand struct {
	App        appURI `arg:"" placeholder:"URI" env:"CHKPIN_APP" help:"The application's folder."`
	jobManager `group:"Reaching the JobManager:"`
	jobChoice
	sourceFlags
	tickFlags

	Interval time.Duration `default:"1m" env:"CHKPIN_INTERVAL" help:"From the end of a tick to the next, give or take a tenth."`
	Listen   string        `default:":9464" placeholder:"ADDRESS" env:"CHKPIN_LISTEN" help:"Where to serve /metrics, /healthz and /readyz."`
}

// maxDoublings is how often the interval doubles while ticks fail.
const maxDoublings = 3

// Run ticks until it is told to stop. No outcome of a tick ends it: what a
// CronJob says with its exit code, watch says in its log and metrics.
func (c *watchCommand) Run(ctx context.Context, env *environment) error {
	if c.Interval <= 0 {
		return usagef("such as --interval 30s", "--interval must be more than 0s")
	}
	keepHeapSmall()
	client, err := c.client(env)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return usagef("choose a free address with --listen", "%v", err)
	}
	w := &watch{
		tick: func(ctx context.Context) (checkpoint.Pinned, error) {
			opts := c.tickFlags.options(env)
			c.sourceFlags.apply(&opts, env)
			return checkpoint.Pin(ctx, env.store, c.App.URI, flinkjob.Job{Client: client, Choice: c.choice(), IncludeSavepoints: c.IncludeSavepoints}, opts)
		},
		env:      env,
		interval: c.Interval,
		patience: c.Timeout + c.Interval<<(maxDoublings+1),
		metrics:  newMetrics(),
	}
	w.ended(time.Now()) // before anybody asks
	server := &http.Server{Handler: w.handler(), ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener) //nolint:errcheck // it ends with Close below
	defer server.Close()
	fmt.Fprintf(env.stdout, "watching %s, metrics on http://%s/metrics\n", c.App, listener.Addr())
	w.loop(ctx)
	return nil
}

// watch repeats a tick and keeps account of it.
type watch struct {
	tick     func(context.Context) (checkpoint.Pinned, error)
	env      *environment
	interval time.Duration
	patience time.Duration // without a finished tick, the process is not healthy
	metrics  *metrics

	lastEnd atomic.Pointer[time.Time] // of the last tick, or the start; by the clock that nobody sets
	ready   atomic.Bool               // a tick has succeeded
}

func (w *watch) loop(ctx context.Context) {
	for failures := 0; ; {
		started := time.Now()
		p, err := w.tick(ctx)
		if ctx.Err() != nil {
			return // stopped; a tick that is cut short changes nothing
		}
		v := verdictOf(ctx, err)
		w.metrics.observe(p, v, time.Since(started))
		w.log(p, v, err)
		if err == nil {
			w.ready.Store(true)
			failures = 0
		} else {
			failures++
		}
		w.ended(time.Now()) // last: then all else about the tick is told
		timer := time.NewTimer(pause(w.interval, failures))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (w *watch) ended(at time.Time) { w.lastEnd.Store(&at) }

// pause is the interval, twice as long after each failure in a row but the
// first, up to maxDoublings times, give or take a tenth so that many watches spread.
func pause(interval time.Duration, failures int) time.Duration {
	interval *= time.Duration(1 << min(max(failures-1, 0), maxDoublings))
	return interval*9/10 + rand.N(interval/5+1)
}

func (w *watch) log(p checkpoint.Pinned, v verdict, err error) {
	attrs := []any{"job", p.JobID, "checkpoint", p.CheckpointID, "generation", p.Generation}
	switch {
	case as[*flinkjob.NoJobError](err), errors.Is(err, checkpoint.ErrNoCheckpoint):
		w.env.log.Info("nothing to pin", append(attrs, "reason", err)...)
	case err != nil:
		w.env.log.Error("tick failed", append(attrs, "error", err, "hint", hintFor(err, v))...)
	default:
		w.env.log.Info(p.Result, append(attrs, "copied", p.Copied, "reused", p.Reused, "bytes", p.BytesCopied)...)
	}
	w.env.alarm(p)
	for _, r := range p.Replicas {
		if r.Err != nil {
			w.env.log.Error("replica", "app", r.App, "error", r.Err)
		}
	}
	for _, text := range p.Warnings {
		w.env.log.Warn(text)
	}
}

func (w *watch) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(w.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(out http.ResponseWriter, _ *http.Request) {
		if since := time.Since(*w.lastEnd.Load()); since > w.patience {
			http.Error(out, fmt.Sprintf("no tick has ended for %s", since.Round(time.Second)), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(out, "ok")
	})
	mux.HandleFunc("GET /readyz", func(out http.ResponseWriter, _ *http.Request) {
		if !w.ready.Load() {
			http.Error(out, "no tick has succeeded yet", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(out, "ok")
	})
	return mux
}
