package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
)

// restoreChoice says what may be started from.
type restoreChoice struct {
	AllowFirstStart bool          `env:"CHKPIN_ALLOW_FIRST_START" help:"Start without state when nothing was ever pinned: print nothing and exit 0."`
	Strict          bool          `env:"CHKPIN_STRICT" help:"Refuse a damaged pin instead of falling back to an older generation."`
	MaxAge          time.Duration `placeholder:"DURATION" env:"CHKPIN_MAX_AGE" help:"Refuse a checkpoint that was triggered longer ago."`
}

func (c restoreChoice) options(env *environment) checkpoint.ResolveOptions {
	return checkpoint.ResolveOptions{Strict: c.Strict, MaxAge: c.MaxAge, Relocations: env.relocations}
}

type resolveCommand struct {
	App        appURI `arg:"" placeholder:"URI" env:"CHKPIN_APP" help:"The application's folder."`
	Format     string `enum:"args,path,json" default:"args" env:"CHKPIN_FORMAT" help:"What to print: args (for Flink's entry point), path or json."`
	OutputFile string `type:"path" placeholder:"FILE" env:"CHKPIN_OUTPUT_FILE" help:"Write to this file instead of stdout; on a first start it is empty."`
	restoreChoice
}

// sayFirstStart leaves a trace of a wrong URI or an empty volume. What is mounted
// at "/" in a container is no volume.
func (e *environment) sayFirstStart(ctx context.Context, app blobstore.URI) {
	attrs := []any{"app", app.String()}
	if mounts, ok := e.store.(blobstore.Mounter); ok {
		if point, err := mounts.Mount(ctx, e.relocations.Apply(app)); err == nil && point != "" {
			attrs = append(attrs, "mount", point)
		}
	}
	e.log.Warn("first start: nothing was ever pinned, so nothing is restored", attrs...)
}

// resolveResult is the JSON of resolve, documented in the README.
type resolveResult struct {
	Path         string    `json:"path"`
	Generation   string    `json:"generation"`
	JobID        string    `json:"jobId"`
	CheckpointID int64     `json:"checkpointId"`
	Triggered    time.Time `json:"triggered,omitzero"`
	Args         []string  `json:"args"`
	Warnings     []string  `json:"warnings"`
	FirstStart   bool      `json:"firstStart"`
}

// clusterWarnings says what of the cluster's configuration keeps a pin from being
// used.
func (e *environment) clusterWarnings() []string {
	if e.flinkConf.HighAvailability() {
		// DefaultExecutionGraphFactory, 2.2.0.
		return []string{"high availability is on: while its store holds a checkpoint of the job, Flink restores that and ignores the restore path"}
	}
	return nil
}

// Run prints what to start from. Warnings go to the log, because stdout ends up
// in a command line.
func (c *resolveCommand) Run(ctx context.Context, env *environment) error {
	env.json = env.json || c.Format == "json"
	if c.OutputFile == "" {
		return c.resolve(ctx, env)
	}
	var out bytes.Buffer
	aside := *env
	aside.stdout = &out
	if err := c.resolve(ctx, &aside); err != nil {
		return err
	}
	return writeFile(c.OutputFile, 0o644, func(w io.Writer) error { _, err := out.WriteTo(w); return err })
}

func (c *resolveCommand) resolve(ctx context.Context, env *environment) error {
	r, err := checkpoint.Resolve(ctx, env.store, c.App.URI, c.options(env))
	if errors.Is(err, checkpoint.ErrNoPin) && c.AllowFirstStart {
		env.sayFirstStart(ctx, c.App.URI)
		return env.print(resolveResult{FirstStart: true}, func(io.Writer) {})
	}
	if err != nil {
		return c.explain(err)
	}
	r.Warnings = append(r.Warnings, env.clusterWarnings()...)
	for _, text := range r.Warnings {
		env.log.Warn(text)
	}
	result := resolveResult{
		Path: r.Path.String(), Generation: r.Generation, JobID: r.JobID, CheckpointID: r.CheckpointID,
		Triggered: r.Triggered, Args: r.Args(), Warnings: r.Warnings,
	}
	return env.print(result, func(w io.Writer) {
		if c.Format == "path" {
			fmt.Fprintln(w, result.Path)
			return
		}
		fmt.Fprintln(w, strings.Join(result.Args, " "))
	})
}

// explain adds the way out. What is damaged here has no generation left that
// restores, or --strict keeps from looking for one.
func (c restoreChoice) explain(err error) error {
	lost := errors.Is(err, checkpoint.ErrPinGone) || as[*checkpoint.DamagedError](err)
	switch {
	case errors.Is(err, checkpoint.ErrNoPin):
		return &hintedError{err, "is the URI right, and the volume mounted? If this is the very first start, --allow-first-start prints nothing and exits 0"}
	case lost && c.Strict:
		return &hintedError{err, "without --strict, resolve falls back to the newest generation that restores"}
	case lost:
		return &hintedError{err, "no generation restores; find a checkpoint or savepoint that chkpin verify calls restorable, and do not start without state by accident"}
	}
	return err
}
