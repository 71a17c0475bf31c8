package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/flinkjob"
	"github.com/chkpin/chkpin/flinkrest"
)

// pinAll pins every live job of a session cluster below a folder of its name.
// Jobs fail independently; the error is that of the worst.
func (c *pinCommand) pinAll(ctx context.Context, env *environment, client *flinkrest.Client, tell tell) error {
	jobs, err := client.Jobs(ctx)
	if err != nil {
		return c.summary(ctx, env, tell, checkpoint.Pinned{}, err)
	}
	live := liveByName(jobs)
	if len(live) == 0 {
		return c.summary(ctx, env, tell, checkpoint.Pinned{}, &flinkjob.NoJobError{URL: client.URL(), Choice: c.choice(), Jobs: jobs})
	}
	var failures []error
	for _, job := range live {
		p, err := c.pinNamed(ctx, env, client, job, live)
		p.JobID = job.ID
		if err := c.summary(ctx, env, tell, p, err, job.Name); err != nil {
			failures = append(failures, fmt.Errorf("job %q: %w", job.Name, err))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return worst(ctx, failures)
}

// liveByName are the live jobs in the order of their names.
func liveByName(jobs []flinkrest.Job) []flinkrest.Job {
	live := slices.DeleteFunc(slices.Clone(jobs), func(j flinkrest.Job) bool { return !j.State.Live() })
	slices.SortFunc(live, func(a, b flinkrest.Job) int { return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID) })
	return live
}

// pinnable is why one job of many cannot have a folder of its name, nil if it
// can.
func pinnable(url string, job flinkrest.Job, live []flinkrest.Job) error {
	if job.Name == "" || strings.ContainsAny(job.Name, `/\`) || slices.Contains([]string{".", "..", "last-state", "chkpin.json"}, job.Name) {
		return usagef("give the job another name (pipeline.name), or pin it alone with --job-id", "the name %q cannot be a folder's", job.Name)
	}
	var namesakes []flinkrest.Job
	for _, j := range live {
		if j.Name == job.Name {
			namesakes = append(namesakes, j)
		}
	}
	if len(namesakes) > 1 {
		return &hintedError{&flinkjob.AmbiguousError{URL: url, Jobs: namesakes}, "give each job a name of its own (pipeline.name)"}
	}
	return nil
}

// pinNamed pins one job of many to <app>/<job name>.
func (c *pinCommand) pinNamed(ctx context.Context, env *environment, client *flinkrest.Client, job flinkrest.Job, live []flinkrest.Job) (checkpoint.Pinned, error) {
	if err := pinnable(client.URL(), job, live); err != nil {
		return checkpoint.Pinned{}, err
	}
	opts := c.options(env)
	opts.Siblings, opts.Replicas = c.App.URI, c.replicas(job.Name)
	one := flinkjob.Job{Client: client, Choice: flinkjob.Choice{ID: job.ID}, IncludeSavepoints: c.IncludeSavepoints}
	return checkpoint.Pin(ctx, env.store, c.App.Join(job.Name), one, opts)
}

// allError is what became of several jobs. It is like the worst of them.
type allError struct {
	failures []error
	worst    error
}

func (e *allError) Error() string {
	var lines []string
	for _, err := range e.failures {
		lines = append(lines, err.Error())
	}
	return strings.Join(lines, "\nchkpin: ")
}

func (e *allError) Unwrap() error { return e.worst }

// worst joins failures. What is wrong with the pins counts more than what is
// wrong with the way to them, and that more than what holds or is not there.
func worst(ctx context.Context, failures []error) error {
	if len(failures) == 0 {
		return nil
	}
	ranks := []int{damaged.code, failed.code, denied.code, unreachable.code, misused.code, ambiguous.code, held.code, refused.code, nothing.code}
	rank := func(err error) int { return slices.Index(ranks, verdictOf(ctx, err).code) }
	return &allError{failures, slices.MinFunc(failures, func(a, b error) int { return rank(a) - rank(b) })}
}

// summary tells what became of one job and returns the error, unless it is
// tolerated.
func (c *pinCommand) summary(ctx context.Context, env *environment, tell tell, p checkpoint.Pinned, err error, name ...string) error {
	env.alarm(p)
	late := behind(ctx, p.Replicas)
	if err != nil {
		p.Result = verdictOf(ctx, err).result
		if c.tolerates(err) {
			p.Warnings = append(p.Warnings, "tolerated: "+err.Error())
			err = nil
		} else {
			err = c.explain(p, err)
		}
	}
	p.Warnings = append(p.Warnings, env.clusterWarnings()...)
	result := resultOf(p)
	if len(name) > 0 {
		result.JobName = name[0]
	}
	err = tell(result, err)
	return both(err, late)
}

// printPinned prints what became of one job.
func (e *environment) printPinned(r pinResult, err error) error {
	return errors.Join(err, e.print(r, func(w io.Writer) {
		if r.quiet() {
			return
		}
		if label := r.label(); label != "" {
			fmt.Fprintf(w, "%s: ", label)
			if err != nil {
				fmt.Fprintln(w, r.Result)
			}
		}
		r.describe(w, err)
	}))
}

// label says which of several jobs a result is about.
func (r pinResult) label() string {
	return strings.Trim(r.Target+"/"+r.JobName, "/")
}
