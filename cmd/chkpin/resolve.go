package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/chkpin/chkpin/checkpoint"
)

type resolveCommand struct {
	App             appURI        `arg:"" placeholder:"URI" env:"CHKPIN_APP" help:"The application's folder."`
	Format          string        `enum:"args,path,json" default:"args" env:"CHKPIN_FORMAT" help:"What to print: args (for Flink's entry point), path or json."`
	AllowFirstStart bool          `env:"CHKPIN_ALLOW_FIRST_START" help:"Print nothing and exit 0 when nothing was ever pinned."`
	Strict          bool          `env:"CHKPIN_STRICT" help:"Refuse a damaged pin instead of falling back to an older generation."`
	MaxAge          time.Duration `placeholder:"DURATION" env:"CHKPIN_MAX_AGE" help:"Refuse a checkpoint that was triggered longer ago."`
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

// Run prints what to start from. Warnings go to the log, because stdout ends up
// in a command line.
func (c *resolveCommand) Run(ctx context.Context, env *environment) error {
	env.json = env.json || c.Format == "json"
	r, err := checkpoint.Resolve(ctx, env.store, c.App.URI, checkpoint.ResolveOptions{
		Strict:      c.Strict,
		MaxAge:      c.MaxAge,
		Relocations: env.relocations,
	})
	if errors.Is(err, checkpoint.ErrNoPin) && c.AllowFirstStart {
		return env.print(resolveResult{FirstStart: true}, func(io.Writer) {})
	}
	if err != nil {
		return err
	}
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
