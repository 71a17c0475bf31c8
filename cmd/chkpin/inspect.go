package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/dustin/go-humanize"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/checkpoint/metadata"
)

type inspectCommand struct {
	URI blobstore.URI `arg:"" name:"uri" placeholder:"URI" help:"A checkpoint, savepoint or pin: its folder or its _metadata; or an <app>."`
}

// inspectResult is the JSON of inspect, documented in docs/json.md.
type inspectResult struct {
	URI           string            `json:"uri"`
	FormatVersion int32             `json:"formatVersion"`
	CheckpointID  int64             `json:"checkpointId"`
	Kind          string            `json:"kind"`
	Operators     []inspectOperator `json:"operators"`
	Files         []inspectFile     `json:"files"`
	InlineBytes   int64             `json:"inlineBytes"`
	StateBytes    int64             `json:"stateBytes"`
	Warnings      []string          `json:"warnings"`
}

type inspectOperator struct {
	ID             string `json:"id"`
	Name           string `json:"name"`
	UID            string `json:"uid"`
	Parallelism    int32  `json:"parallelism"`
	MaxParallelism int32  `json:"maxParallelism"`
	StateBytes     int64  `json:"stateBytes"`
}

type inspectFile struct {
	URI    string `json:"uri"`
	Handle string `json:"handle"`
	Offset int64  `json:"offset"`
	Size   int64  `json:"size"`
	Shared bool   `json:"shared"`
}

func (c *inspectCommand) Run(ctx context.Context, env *environment) error {
	snap, err := loadState(ctx, env, c.URI)
	switch {
	case as[*checkpoint.DamagedError](err) && !as[*hintedError](err):
		return &hintedError{err, "is it the whole _metadata of a checkpoint or savepoint, of Flink up to 2.3?"}
	case err != nil:
		return err
	}
	in, err := snap.Inspect()
	if err != nil {
		return err
	}
	result := inspectResult{
		URI:           snap.URI.String(),
		FormatVersion: snap.Version,
		CheckpointID:  snap.CheckpointID,
		Kind:          snap.Kind(),
		InlineBytes:   in.InlineBytes,
		StateBytes:    in.StateBytes,
		Warnings:      checkpoint.Warnings(snap),
	}
	for _, op := range in.Operators {
		result.Operators = append(result.Operators, inspectOperator{
			ID: op.ID.String(), Name: op.Name, UID: op.UID,
			Parallelism: op.Parallelism, MaxParallelism: op.MaxParallelism, StateBytes: op.Bytes,
		})
	}
	for _, r := range in.Ranges {
		result.Files = append(result.Files, inspectFile{
			URI: r.URI.String(), Handle: handleWord(r.Kind), Offset: r.Offset, Size: r.Size, Shared: r.Shared,
		})
	}
	return env.print(result, result.describe)
}

func handleWord(k metadata.Kind) string {
	switch k {
	case metadata.RelativeFile:
		return "relative"
	case metadata.Segment:
		return "segment"
	}
	return "file"
}

func (r inspectResult) describe(w io.Writer) {
	fmt.Fprintf(w, "%s %d, format %d, %s of state (%s of it inline)\n%s\n", r.Kind, r.CheckpointID, r.FormatVersion,
		humanize.IBytes(uint64(r.StateBytes)), humanize.IBytes(uint64(r.InlineBytes)), r.URI)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\nOPERATOR\tUID\tNAME\tPARALLELISM\tMAX\tSTATE\n")
	for _, op := range r.Operators {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\n", op.ID, orDash(op.UID), orDash(op.Name), op.Parallelism, op.MaxParallelism, humanize.IBytes(uint64(op.StateBytes)))
	}
	if len(r.Files) > 0 {
		fmt.Fprintf(t, "\nHANDLE\tSHARED\tOFFSET\tSIZE\tFILE\n")
	}
	for _, f := range r.Files {
		shared := "no"
		if f.Shared {
			shared = "yes"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\n", f.Handle, shared, f.Offset, f.Size, f.URI)
	}
	t.Flush()
	printWarnings(w, r.Warnings)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
