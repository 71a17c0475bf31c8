package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/chkpin/chkpin/checkpoint"
)

type rollbackCommand struct {
	App        appURI        `arg:"" placeholder:"URI" env:"CHKPIN_APP" help:"The application's folder."`
	Generation generation    `arg:"" optional:"" help:"What to publish: 00000042-chk-1337, 42 or chk-1337; by default what was published before."`
	Reason     string        `placeholder:"TEXT" env:"CHKPIN_REASON" help:"Why; every tick that is held says it."`
	DryRun     bool          `env:"CHKPIN_DRY_RUN" help:"Choose and prove, and write nothing."`
	Timeout    time.Duration `default:"5m" env:"CHKPIN_TIMEOUT" help:"Nothing is published later than this."`
	Release    bool          `help:"End the hold instead: the running job may be pinned again."`
}

// generation is what to roll back to. That of a variable which is not set is not
// "the one before".
type generation string

func (g *generation) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return usagef("name one, or leave the argument out for the one that was published before", "the generation is empty")
	}
	*g = generation(text)
	return nil
}

// Help is what kong prints after the summary.
func (c *rollbackCommand) Help() string {
	return `Publishes an earlier generation at last-state/_metadata, and puts the pin on hold: "chkpin pin" exits 7 until a
run that restored it has a checkpoint of its own. The job that runs now is left alone; stop it, and start it from the
pin.

    chkpin gc s3://bucket/app                  # which generations there are
    chkpin rollback s3://bucket/app --reason "orders are lost since 1.8"
    chkpin rollback s3://bucket/app 00000042-chk-1337
    chkpin exec s3://bucket/app -- docker-entrypoint.sh standalone-job ...

    chkpin rollback --release s3://bucket/app  # or give the pin back to the job that runs

--release leaves what is published until the next tick. If the job whose checkpoint that is still runs, that tick
pins its newest one: where that is the bad state, stop the job first.`
}

// Validate refuses what would otherwise silently be ignored.
func (c *rollbackCommand) Validate() error {
	if c.Timeout <= 0 {
		return errTimeout
	}
	if c.Release && (c.Generation != "" || c.Reason != "") {
		return errors.New("--release ends the hold and takes neither a generation nor a --reason")
	}
	return nil
}

// rollbackResult is the JSON of rollback, documented in docs/json.md.
type rollbackResult struct {
	Result       string   `json:"result"`
	Generation   string   `json:"generation"`
	From         string   `json:"from"`
	JobID        string   `json:"jobId"`
	CheckpointID int64    `json:"checkpointId"`
	Files        int      `json:"files"`
	Bytes        int64    `json:"bytes"`
	OnHold       bool     `json:"onHold"`
	Warnings     []string `json:"warnings"`
}

// Run rolls back or releases. The result is printed whatever comes out, as by
// pin.
func (c *rollbackCommand) Run(ctx context.Context, env *environment) error {
	do := c.rollBack
	if c.Release {
		do = c.release
	}
	result, err := do(ctx, env)
	if err != nil {
		result.Result = verdictOf(ctx, err).result
	}
	return errors.Join(err, env.print(result, func(w io.Writer) { result.describe(w, err) }))
}

func (c *rollbackCommand) options(env *environment) checkpoint.RollbackOptions {
	return checkpoint.RollbackOptions{
		Generation: string(c.Generation), Reason: c.Reason, DryRun: c.DryRun, Timeout: c.Timeout, Relocations: env.relocations, Logger: env.log,
	}
}

func (c *rollbackCommand) rollBack(ctx context.Context, env *environment) (rollbackResult, error) {
	r, err := checkpoint.Rollback(ctx, env.store, c.App.URI, c.options(env))
	result := rollbackResult{
		Result: r.Result, Generation: r.Generation, From: r.From, JobID: r.Run.JobID, CheckpointID: r.Published.ID,
		Files: r.Files, Bytes: r.Bytes, OnHold: r.OnHold, Warnings: r.Warnings,
	}
	if err != nil {
		return result, c.explain(r, err)
	}
	if r.OnHold {
		env.note("on hold: no tick pins anything until a run restored this from the pin; chkpin rollback --release %s ends that, too", c.App)
	}
	return result, nil
}

// explain adds the way out where it depends on how far the rollback came.
func (c *rollbackCommand) explain(r checkpoint.RolledBack, err error) error {
	damagedPin := isDamageOf(err, c.App.String())
	switch {
	case r.OnHold && damagedPin:
		return &hintedError{err, fmt.Sprintf("the pin was left alone and is on hold; name another generation (chkpin gc %s lists them), or end the hold: chkpin rollback --release %[1]s", c.App)}
	case r.OnHold:
		return &hintedError{err, fmt.Sprintf("the pin is on hold; the same command again finishes the rollback, chkpin rollback --release %s gives it up", c.App)}
	case damagedPin:
		return &hintedError{err, fmt.Sprintf("nothing was changed; name another generation, chkpin gc %s lists them", c.App)}
	}
	return err
}

func (c *rollbackCommand) release(ctx context.Context, env *environment) (rollbackResult, error) {
	hold, err := checkpoint.Release(ctx, env.store, c.App.URI, c.options(env))
	if err != nil {
		return rollbackResult{}, err
	}
	if hold == nil {
		return rollbackResult{Result: checkpoint.ResultUnchanged}, nil
	}
	result := rollbackResult{Result: checkpoint.ResultReleased, Generation: hold.Generation, CheckpointID: hold.CheckpointID}
	if c.DryRun {
		result.Result, result.OnHold = checkpoint.ResultWouldRelease, true
	}
	return result, nil
}

func (r rollbackResult) describe(w io.Writer, err error) {
	what := fmt.Sprintf("%s: checkpoint %d of job %s, %d files (%s)", r.Generation, r.CheckpointID, r.JobID, r.Files, humanize.IBytes(uint64(r.Bytes)))
	from := ""
	if r.From != "" {
		from = " from " + r.From
	}
	switch {
	case err != nil:
	case r.Result == checkpoint.ResultRolledBack && r.From == r.Generation:
		fmt.Fprintf(w, "put on hold as it was: %s\n", what)
	case r.Result == checkpoint.ResultRolledBack:
		fmt.Fprintf(w, "rolled back%s to %s\n", from, what)
	case r.Result == checkpoint.ResultWouldRollBack:
		fmt.Fprintf(w, "would roll back%s to %s\n", from, what)
	case r.Result == checkpoint.ResultReleased:
		fmt.Fprintln(w, "released: the next tick pins again")
	case r.Result == checkpoint.ResultWouldRelease:
		fmt.Fprintln(w, "would release the hold")
	case r.Generation != "":
		fmt.Fprintf(w, "unchanged: published and on hold is %s\n", what)
	default:
		fmt.Fprintln(w, "unchanged: the pin is not on hold")
	}
	printWarnings(w, r.Warnings)
}
