package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
)

type copyCommand struct {
	Source      blobstore.URI `arg:"" placeholder:"URI" help:"A checkpoint or savepoint: its folder or its _metadata; or an <app>, for the whole pin."`
	Destination folderURI     `arg:"" placeholder:"URI" help:"The folder it becomes: _metadata and state/, or an <app>."`

	Parallel int  `default:"64" env:"CHKPIN_PARALLEL" help:"Files under way at once."`
	DryRun   bool `env:"CHKPIN_DRY_RUN" help:"Say what would be copied and write nothing."`
}

// Validate refuses what would otherwise silently mean something else.
func (c *copyCommand) Validate() error {
	if c.Parallel < 1 {
		return errors.New("--parallel must be at least 1")
	}
	return nil
}

// copyResult is the JSON of copy, documented in docs/json.md.
type copyResult struct {
	Result       string   `json:"result"`
	Kind         string   `json:"kind"`
	Source       string   `json:"source"`
	Path         string   `json:"path"`
	CheckpointID int64    `json:"checkpointId"`
	Generations  []string `json:"generations"`
	Copied       int      `json:"copied"`
	Reused       int      `json:"reused"`
	BytesCopied  int64    `json:"bytesCopied"`
	Requests     int      `json:"requests"`
	Warnings     []string `json:"warnings"`
}

// Run prints the result whatever comes out, as pin does.
func (c *copyCommand) Run(ctx context.Context, env *environment) error {
	keepHeapSmall()
	p := env.progress()
	copied, err := checkpoint.Copy(ctx, env.store, c.Source, c.Destination.URI, checkpoint.CopyOptions{
		Parallel: c.Parallel, DryRun: c.DryRun, Progress: p.tell, Relocations: env.relocations, Logger: env.log,
	})
	p.end()
	if err != nil {
		copied.Result = verdictOf(ctx, err).result
		err = c.explain(ctx, err)
	}
	result := copyResult{
		Result: copied.Result, Kind: copied.Kind, Source: c.Source.String(), Path: copied.Path.String(),
		CheckpointID: copied.CheckpointID, Generations: copied.Generations,
		Copied: copied.Copied, Reused: copied.Reused, BytesCopied: copied.BytesCopied, Requests: copied.Requests, Warnings: copied.Warnings,
	}
	return errors.Join(err, env.print(result, func(w io.Writer) { result.describe(w, err) }))
}

// explain adds the way out where it depends on what was copied.
func (c *copyCommand) explain(ctx context.Context, err error) error {
	side, ok := errors.AsType[*checkpoint.SideError](err)
	switch {
	case ctx.Err() != nil:
		return &hintedError{err, "run it again: what is there whole is not copied again"}
	case ok && side.Side == "source" && errors.Is(err, blobstore.ErrNotExist) && !as[*checkpoint.DamagedError](err):
		return &hintedError{err, "name the folder of a checkpoint or savepoint, or its _metadata, or an <app> that has a pin"}
	case ok && side.Side == "source" && as[*checkpoint.DamagedError](err):
		return &hintedError{err, "chkpin verify " + c.Source.String() + " shows what is wrong; --relocated helps where a volume is mounted elsewhere"}
	}
	return err
}

func (r copyResult) describe(w io.Writer, err error) {
	what := fmt.Sprintf("%s %d", r.Kind, r.CheckpointID)
	if r.Kind == checkpoint.KindPin {
		what = fmt.Sprintf("pin of checkpoint %d with %s", r.CheckpointID, english.Plural(len(r.Generations), "generation", ""))
	}
	size := humanize.IBytes(uint64(r.BytesCopied))
	switch {
	case err != nil:
	case r.Result == checkpoint.ResultCopied:
		fmt.Fprintf(w, "copied %s to %s: %d files copied (%s), %d there already\n", what, r.Path, r.Copied, size, r.Reused)
	case r.Result == checkpoint.ResultUnchanged:
		fmt.Fprintf(w, "unchanged: %s is at %s, %d files\n", what, r.Path, r.Reused)
	case r.Result == checkpoint.ResultWouldCopy:
		fmt.Fprintf(w, "would copy %s to %s: %d files (%s) in about %d requests, %d there already\n", what, r.Path, r.Copied, size, r.Requests, r.Reused)
	}
	printWarnings(w, r.Warnings)
}
