package main

import (
	"context"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/checkpoint"
)

// fleetFlags make one tick of many applications.
type fleetFlags struct {
	Targets  string `type:"path" placeholder:"FILE" env:"CHKPIN_TARGETS" help:"Pin every target of this YAML file in place of <app> and <jobmanager>. Each has name, app and jobmanager; where it needs them job, jobId or all, and replicas."`
	Parallel int    `default:"16" env:"CHKPIN_PARALLEL" help:"Targets at once."`
	Shard    int    `default:"0" placeholder:"I" env:"CHKPIN_SHARD" help:"Pin only the targets of this shard, from 0: an Indexed Job's $$JOB_COMPLETION_INDEX."`
	Shards   int    `default:"1" placeholder:"N" env:"CHKPIN_SHARDS" help:"How many shards there are. The name of a target decides which is its own."`
}

// checkTargets refuses what cannot go together with --targets, or without it.
func (c *pinCommand) checkTargets() error {
	switch {
	case c.Shards < 1 || c.Shard < 0 || c.Shard >= c.Shards:
		return usagef("with --shards N they are 0 to N-1", "--shard %d of --shards %d", c.Shard, c.Shards)
	case c.Parallel < 1:
		return usagef("such as --parallel 16", "--parallel must be at least 1")
	case c.Targets == "" && c.Shards > 1:
		return usagef("--targets names the file with what is to be divided", "--shards without --targets")
	case c.Targets == "" && c.App.IsZero():
		return usagef("such as chkpin pin s3://bucket/app http://app-jobmanager:8081; --targets pins many", `expected "<app>"`)
	case c.Targets == "":
		return nil
	case !c.App.IsZero() || c.JobManager != "" || c.Job != "" || c.JobID != "" || c.All || len(c.Replica) > 0:
		return usagef("say it for each target in the file; look at the CHKPIN_… variables, too",
			"<app>, <jobmanager>, --job, --job-id, --all and --replica can't be used together with --targets")
	case c.AcceptLineage:
		return usagef("accept a run where you know it: chkpin pin APP JOBMANAGER --accept-lineage", "--accept-lineage can't be used together with --targets")
	}
	return nil
}

// fleetSummary is the last line of JSON with --targets, documented in the
// README.
type fleetSummary struct {
	Targets int   `json:"targets"`
	Results tally `json:"results"`
}

// pinTargets pins every target of this shard, some at a time. They fail
// independently; the error is that of the worst.
func (c *pinCommand) pinTargets(ctx context.Context, env *environment) error {
	all, err := readTargets(c.Targets)
	if err != nil {
		return err
	}
	var mine []target
	for _, t := range all {
		if t.in(c.Shard, c.Shards) {
			mine = append(mine, t)
		}
	}
	var (
		printing sync.Mutex
		results  = tally{}
		errs     = make([]error, len(mine))
		group    errgroup.Group
	)
	group.SetLimit(c.Parallel)
	for i, t := range mine {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			errs[i] = c.of(t).pin(ctx, env, func(r pinResult, err error) error {
				printing.Lock()
				defer printing.Unlock()
				r.Target = t.Name
				results[r.Result]++
				return env.printPinned(r, err)
			})
			return nil
		})
	}
	_ = group.Wait() // the errors are in errs
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var failures []error
	for i, err := range errs {
		if err != nil {
			failures = append(failures, fmt.Errorf("target %q: %w", mine[i].Name, err))
		}
	}
	if err := env.print(fleetSummary{len(mine), results}, func(w io.Writer) {
		fmt.Fprintf(w, "%d targets: %s\n", len(mine), results)
	}); err != nil {
		failures = append(failures, err)
	}
	return worst(ctx, failures)
}

// of is the command for one target alone.
func (c *pinCommand) of(t target) *pinCommand {
	one := *c
	one.Targets, one.App.URI, one.JobManager = "", t.App, t.JobManager
	one.Job, one.JobID, one.All = t.Job, t.JobID, t.All
	for _, u := range t.Replicas {
		one.Replica = append(one.Replica, appURI{u})
	}
	return &one
}

// quiet reports whether the text for people says nothing of a result: most of
// many targets are unchanged, every minute.
func (r pinResult) quiet() bool {
	return r.Target != "" && r.Result == checkpoint.ResultUnchanged && len(r.Warnings) == 0 && len(r.Replicas) == 0
}
