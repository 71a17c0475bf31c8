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
	URI blobstore.URI `arg:"" name:"uri" placeholder:"URI" help:"A checkpoint, savepoint or pin: its folder or its _metadata; or an <app>."`
}

// verifyResult is the JSON of verify, documented in docs/json.md.
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
	err := c.verify(ctx, env, &result)
	damaged, ok := errors.AsType[*checkpoint.DamagedError](err)
	switch {
	case ok:
		result.URI, result.Missing, result.WrongSize = damaged.URI, damaged.Missing, damaged.WrongSize
		if damaged.Err != nil {
			result.Warnings = append(result.Warnings, damaged.Err.Error())
		}
		if !as[*hintedError](err) {
			err = &hintedError{err, "if this is a pin, chkpin resolve falls back to its newest generation that restores"}
		}
	case err != nil:
		return err
	}
	result.Restorable = err == nil
	return errors.Join(err, env.print(result, result.describe))
}

func (c *verifyCommand) verify(ctx context.Context, env *environment, result *verifyResult) error {
	snap, err := loadState(ctx, env, c.URI)
	if errors.Is(err, blobstore.ErrNotExist) {
		return &hintedError{&checkpoint.DamagedError{URI: c.URI.String(), Missing: []string{metadataOf(c.URI).String()}}, hintNoState}
	}
	if err != nil {
		return err
	}
	result.URI = snap.URI.String()
	result.Warnings = checkpoint.Warnings(snap)
	report, err := checkpoint.Verify(ctx, env.store, snap)
	if err != nil {
		return err
	}
	result.Files, result.Bytes = report.Files, report.Bytes
	return report.Err(snap.URI)
}

// metadataOf is the metadata file that a folder, or the file itself, stands for.
func metadataOf(u blobstore.URI) blobstore.URI {
	if u.Base() == checkpoint.MetadataName {
		return u
	}
	return u.Join(checkpoint.MetadataName)
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
