package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"

	"github.com/chkpin/chkpin/checkpoint"
)

type gcCommand struct {
	App     appURI        `arg:"" placeholder:"URI" env:"CHKPIN_APP" help:"The application's folder."`
	Keep    int           `default:"3" env:"CHKPIN_KEEP" help:"Generations to keep, at least 2."`
	Grace   time.Duration `default:"1h" env:"CHKPIN_GRACE" help:"Keep what is younger, by the store's clock; at least three times pin's --timeout."`
	Timeout time.Duration `default:"10m" env:"CHKPIN_TIMEOUT" help:"Nothing is deleted later than this; the next collection goes on."`
	Yes     bool          `help:"Delete; without it, only say what would go."`
}

// safeGrace is three times the default of pin's --timeout.
const safeGrace = 15 * time.Minute

// gcResult is the JSON of gc, documented in docs/json.md.
type gcResult struct {
	DryRun      bool        `json:"dryRun"`
	Deleted     int         `json:"deleted"`
	Bytes       int64       `json:"bytes"`
	Kept        int         `json:"kept"`
	Generations []gcGarbage `json:"generations"`
	Files       []gcGarbage `json:"files"`
}

type gcGarbage struct {
	URI    string `json:"uri"`
	Bytes  int64  `json:"bytes"`
	Delete bool   `json:"delete"`
	Why    string `json:"why"`
}

var errKeep = fmt.Errorf("--keep must be at least %d", checkpoint.MinKeep)

// Validate refuses what would otherwise silently mean something else.
func (c *gcCommand) Validate() error {
	switch {
	case c.Timeout <= 0:
		return errTimeout
	case c.Grace <= 0:
		return errors.New("--grace must be more than 0s")
	case c.Keep < checkpoint.MinKeep:
		return errKeep
	}
	return nil
}

func (c *gcCommand) Run(ctx context.Context, env *environment) error {
	if c.Yes && c.Grace < safeGrace {
		env.log.Warn("with a grace below 15m, be sure that no tick is at work: what it has copied would be deleted under its hands", "grace", c.Grace)
	}
	report, err := checkpoint.GC(ctx, env.store, c.App.URI, checkpoint.GCOptions{
		Keep: c.Keep, Grace: c.Grace, Delete: c.Yes, Timeout: c.Timeout, Relocations: env.relocations,
	})
	if err != nil {
		return err
	}
	result := gcResult{
		DryRun: !c.Yes, Deleted: report.Deleted, Bytes: report.Bytes, Kept: report.Kept,
		Generations: garbage(report.Generations), Files: garbage(report.Files),
	}
	return env.print(result, result.describe)
}

func garbage(list []checkpoint.Garbage) (out []gcGarbage) {
	for _, g := range list {
		out = append(out, gcGarbage{g.URI.String(), g.Bytes, g.Delete, g.Why})
	}
	return out
}

// Help is what kong prints after the summary.
func (c *gcCommand) Help() string {
	return `Says of every generation and state file below last-state/ why it stays or goes. Nothing is deleted without --yes,
and never what chkpin did not make.

    chkpin gc s3://bucket/app             # what would go, and why the rest stays
    chkpin gc s3://bucket/app --yes
    chkpin gc s3://bucket/app --keep 10 --output json`
}

// describe names every generation and every file that goes; the files that stay
// it counts by reason.
func (r gcResult) describe(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, g := range r.Generations {
		fmt.Fprintf(t, "%s\t%s\t%s\n", keepOrDelete(g), g.URI, g.Why)
	}
	for _, f := range r.Files {
		if f.Delete {
			fmt.Fprintf(t, "%s\t%s\t%s\n", keepOrDelete(f), f.URI, f.Why)
		}
	}
	t.Flush()
	for _, why := range r.reasonsToStay() {
		files, bytes := 0, int64(0)
		for _, f := range r.Files {
			if !f.Delete && f.Why == why {
				files, bytes = files+1, bytes+f.Bytes
			}
		}
		fmt.Fprintf(t, "keep\t%s, %s\t%s\n", english.Plural(files, "file", ""), humanize.IBytes(uint64(bytes)), why)
	}
	t.Flush()
	size := humanize.IBytes(uint64(r.Bytes))
	switch {
	case r.Deleted == 0:
		fmt.Fprintln(w, "nothing to delete")
	case r.DryRun:
		fmt.Fprintf(w, "would delete %d objects, %s; --yes deletes them\n", r.Deleted, size)
	default:
		fmt.Fprintf(w, "deleted %d objects, %s\n", r.Deleted, size)
	}
}

// reasonsToStay lists, sorted, why files stay.
func (r gcResult) reasonsToStay() []string {
	var reasons []string
	for _, f := range r.Files {
		if !f.Delete {
			reasons = append(reasons, f.Why)
		}
	}
	slices.Sort(reasons)
	return slices.Compact(reasons)
}

func keepOrDelete(g gcGarbage) string {
	if g.Delete {
		return "delete"
	}
	return "keep"
}
