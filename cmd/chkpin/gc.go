package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/chkpin/chkpin/checkpoint"
)

type gcCommand struct {
	App   appURI        `arg:"" placeholder:"URI" env:"CHKPIN_APP" help:"The application's folder."`
	Keep  int           `default:"3" env:"CHKPIN_KEEP" help:"Generations to keep, at least 2."`
	Grace time.Duration `default:"1h" env:"CHKPIN_GRACE" help:"Keep what is younger, by the store's clock."`
	Yes   bool          `help:"Delete; without it, only say what would go."`
}

// gcResult is the JSON of gc, documented in the README.
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

func (c *gcCommand) Run(ctx context.Context, env *environment) error {
	report, err := checkpoint.GC(ctx, env.store, c.App.URI, checkpoint.GCOptions{
		Keep: c.Keep, Grace: c.Grace, Delete: c.Yes, Relocations: env.relocations,
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

// describe names every generation, and of the files only those that go.
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
	verb := "deleted"
	if r.DryRun {
		verb = "would delete (run with --yes)"
	}
	fmt.Fprintf(w, "%s %d objects, %s\n", verb, r.Deleted, humanize.IBytes(uint64(r.Bytes)))
}

func keepOrDelete(g gcGarbage) string {
	if g.Delete {
		return "delete"
	}
	return "keep"
}
