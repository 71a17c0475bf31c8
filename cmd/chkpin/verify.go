package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dustin/go-humanize"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
)

type verifyCommand struct {
	URI blobstore.URI `arg:"" name:"uri" placeholder:"URI" help:"A checkpoint, savepoint or pin: its folder or its _metadata."`
}

// verifyResult is the JSON of verify, documented in the README.
type verifyResult struct {
	URI        string   `json:"uri"`
	Restorable bool     `json:"restorable"`
	Files      int      `json:"files"`
	Bytes      int64    `json:"bytes"`
	Missing    []string `json:"missing"`
	WrongSize  []string `json:"wrongSize"`
	Warnings   []string `json:"warnings"`
}

// Run prints what was found also when the checkpoint does not restore.
func (c *verifyCommand) Run(ctx context.Context, env *environment) error {
	result := verifyResult{URI: c.URI.String()}
	snap, err := checkpoint.Load(ctx, env.store, c.URI, checkpoint.LoadOptions{Relocations: env.relocations})
	if errors.Is(err, blobstore.ErrNotExist) {
		result.Missing = []string{c.URI.String()}
		err = &checkpoint.DamagedError{URI: c.URI.String(), Missing: result.Missing, Err: err}
	}
	if err == nil {
		err = c.verify(ctx, env, snap, &result)
	}
	if err != nil && !as[*checkpoint.DamagedError](err) {
		return err
	}
	result.Restorable = err == nil
	return errors.Join(err, env.print(result, func(w io.Writer) { result.describe(w) }))
}

func (c *verifyCommand) verify(ctx context.Context, env *environment, snap *checkpoint.Snapshot, result *verifyResult) error {
	result.URI = snap.URI.String()
	result.Warnings = checkpoint.Warnings(snap)
	report, err := checkpoint.Verify(ctx, env.store, snap)
	if err != nil {
		return err
	}
	result.Files, result.Bytes = report.Files, report.Bytes
	result.Missing, result.WrongSize = report.Missing, report.WrongSize
	return report.Err(snap.URI)
}

func (r verifyResult) describe(w io.Writer) {
	if r.Restorable {
		fmt.Fprintf(w, "restorable: %s (%d files, %s)\n", r.URI, r.Files, humanize.IBytes(uint64(r.Bytes)))
	}
	for _, u := range r.Missing {
		fmt.Fprintf(w, "missing: %s\n", u)
	}
	for _, u := range r.WrongSize {
		fmt.Fprintf(w, "wrong size: %s\n", u)
	}
	printWarnings(w, r.Warnings)
}
