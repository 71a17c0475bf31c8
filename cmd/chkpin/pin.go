package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/flinkrest"
)

type pinCommand struct {
	App appURI `arg:"" placeholder:"URI" env:"CHKPIN_APP" help:"The application's folder."`
	jobManager
	jobChoice

	AcceptLineage     bool          `env:"CHKPIN_ACCEPT_LINEAGE" help:"Pin a run that does not descend from what is pinned."`
	IncludeSavepoints bool          `env:"CHKPIN_INCLUDE_SAVEPOINTS" help:"Pin a savepoint too, when it is the newest."`
	Checkpoints       blobstore.URI `placeholder:"URI" env:"CHKPIN_CHECKPOINTS" help:"Folder of the job's checkpoint folders, to look in when the JobManager remembers none."`
	DryRun            bool          `env:"CHKPIN_DRY_RUN" help:"Say what would be copied and write nothing."`
	Keep              int           `default:"3" env:"CHKPIN_KEEP" help:"Generations to keep, at least 2."`
	Timeout           time.Duration `default:"5m" env:"CHKPIN_TIMEOUT" help:"Nothing is published later than this."`
	MinInterval       time.Duration `default:"0s" env:"CHKPIN_MIN_INTERVAL" help:"Between two pinned checkpoints of one run."`
	MaxBytes          byteSize      `default:"0" placeholder:"SIZE" env:"CHKPIN_MAX_BYTES" help:"Refuse to copy more at once, such as 50GB; 0 is no limit."`
	Tolerate          []string      `enum:"no-job,no-checkpoint,jobmanager-down" placeholder:"WHAT" env:"CHKPIN_TOLERATE" help:"Everyday absences that exit 0 with a warning: no-job, no-checkpoint, jobmanager-down."`
}

// pinResult is the JSON of pin, documented in the README.
type pinResult struct {
	Result       string   `json:"result"`
	Generation   string   `json:"generation"`
	JobID        string   `json:"jobId"`
	CheckpointID int64    `json:"checkpointId"`
	Source       string   `json:"source"`
	Copied       int      `json:"copied"`
	Reused       int      `json:"reused"`
	BytesCopied  int64    `json:"bytesCopied"`
	Restorable   bool     `json:"restorable"`
	Warnings     []string `json:"warnings"`
}

// Run pins once. The result is printed whatever comes out, so that a reader of
// the JSON need not parse the error.
func (c *pinCommand) Run(ctx context.Context, env *environment) error {
	client, err := c.client(env)
	if err != nil {
		return err
	}
	job := restJob{client, c.jobChoice, c.IncludeSavepoints}
	p, err := checkpoint.Pin(ctx, env.store, c.App.URI, job, checkpoint.PinOptions{
		AcceptLineage: c.AcceptLineage,
		Keep:          c.Keep,
		Timeout:       c.Timeout,
		MinInterval:   c.MinInterval,
		MaxBytes:      int64(c.MaxBytes),
		Checkpoints:   c.Checkpoints,
		DryRun:        c.DryRun,
		Relocations:   env.relocations,
		Logger:        env.log,
	})
	if err != nil {
		p.Result = verdictOf(ctx, err).result
		if c.tolerates(err) {
			p.Warnings = append(p.Warnings, "tolerated: "+err.Error())
			err = nil
		}
	}
	result := pinResult{
		Result: p.Result, Generation: p.Generation, JobID: p.JobID, CheckpointID: p.CheckpointID, Source: p.Source,
		Copied: p.Copied, Reused: p.Reused, BytesCopied: p.BytesCopied, Restorable: p.Restorable, Warnings: p.Warnings,
	}
	return errors.Join(err, env.print(result, func(w io.Writer) { result.describe(w, err) }))
}

// tolerates reports whether --tolerate covers an error.
func (c *pinCommand) tolerates(err error) bool {
	for what, covers := range map[string]bool{
		"no-job":          as[*noJobError](err),
		"no-checkpoint":   errors.Is(err, checkpoint.ErrNoCheckpoint),
		"jobmanager-down": errors.Is(err, flinkrest.ErrUnavailable),
	} {
		if covers && slices.Contains(c.Tolerate, what) {
			return true
		}
	}
	return false
}

func (r pinResult) describe(w io.Writer, err error) {
	switch {
	case r.Result == checkpoint.ResultPinned:
		fmt.Fprintf(w, "pinned checkpoint %d of job %s as %s: %d files copied (%s), %d reused\n",
			r.CheckpointID, r.JobID, r.Generation, r.Copied, humanize.IBytes(uint64(r.BytesCopied)), r.Reused)
	case r.Result == checkpoint.ResultWouldPin:
		fmt.Fprintf(w, "would pin checkpoint %d of job %s: %d files to copy (%s), %d to reuse\n",
			r.CheckpointID, r.JobID, r.Copied, humanize.IBytes(uint64(r.BytesCopied)), r.Reused)
	case err == nil && r.CheckpointID > 0:
		fmt.Fprintf(w, "%s: checkpoint %d of job %s; pinned is %s\n", r.Result, r.CheckpointID, r.JobID, r.Generation)
	case err == nil:
		fmt.Fprintln(w, r.Result)
	}
	printWarnings(w, r.Warnings)
}
