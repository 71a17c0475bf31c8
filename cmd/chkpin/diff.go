package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/dustin/go-humanize"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
)

type diffCommand struct {
	A     blobstore.URI `arg:"" placeholder:"URI" help:"What would be restored: the folder of a checkpoint, savepoint or pin, its _metadata, or an application."`
	B     blobstore.URI `arg:"" placeholder:"URI" help:"A checkpoint of the job that would restore it."`
	Sizes bool          `env:"CHKPIN_DIFF_SIZES" help:"State of another size is a difference, too; it is shown in any case."`
}

// Help is shown below the usage line.
func (c *diffCommand) Help() string {
	return `Says before a deployment whether it starts from the state there is: which operators were added or removed, and
whether parallelism or maximum parallelism changed. Take a savepoint of the new version in a test for the second argument.

  chkpin diff s3://bucket/app s3://staging/savepoints/savepoint-1624fd-0123456789ab
  chkpin diff s3://bucket/app/last-state/generations/00000041-chk-1330 s3://bucket/app

The exit code is 0 when the operators are the same, and 10 when they differ. State of another size is shown and counts
only with --sizes: it differs between any two checkpoints of a job.`
}

// diffResult is the JSON of diff, documented in docs/json.md.
type diffResult struct {
	Equal     bool           `json:"equal"`
	A         diffSide       `json:"a"`
	B         diffSide       `json:"b"`
	Operators []diffOperator `json:"operators"`
	Notes     []string       `json:"notes"`
}

type diffSide struct {
	URI           string `json:"uri"`
	Kind          string `json:"kind"`
	CheckpointID  int64  `json:"checkpointId"`
	FormatVersion int32  `json:"formatVersion"`
	Operators     int    `json:"operators"`
}

type diffOperator struct {
	ID     string     `json:"id"`
	Name   string     `json:"name"`
	UID    string     `json:"uid"`
	Change string     `json:"change"`
	A      *diffState `json:"a"`
	B      *diffState `json:"b"`
}

type diffState struct {
	Parallelism    int32 `json:"parallelism"`
	MaxParallelism int32 `json:"maxParallelism"`
	StateBytes     int64 `json:"stateBytes"`
}

func (c *diffCommand) Run(ctx context.Context, env *environment) error {
	a, err := loadState(ctx, env, c.A)
	if err != nil {
		return err
	}
	b, err := loadState(ctx, env, c.B)
	if err != nil {
		return err
	}
	d, err := checkpoint.Diff(a, b)
	if err != nil {
		return err
	}
	result := diffResult{Equal: d.Equal(c.Sizes), A: sideOf(a), B: sideOf(b), Notes: d.Notes}
	for _, op := range d.Operators {
		result.Operators = append(result.Operators, diffOperator{
			ID: op.ID.String(), Name: op.Name, UID: op.UID, Change: op.Change, A: stateOf(op.A), B: stateOf(op.B),
		})
	}
	if err := env.print(result, result.describe); err != nil || result.Equal {
		return err
	}
	return &answered{different}
}

// loadState reads a checkpoint, savepoint or generation, or the pin of an
// application. A folder with a _metadata of its own is that, whatever else is in
// it.
func loadState(ctx context.Context, env *environment, u blobstore.URI) (*checkpoint.Snapshot, error) {
	opts := checkpoint.LoadOptions{Relocations: env.relocations}
	s, err := checkpoint.Load(ctx, env.store, u, opts)
	if !errors.Is(err, blobstore.ErrNotExist) {
		return s, err
	}
	app := checkpoint.LayoutOf(u)
	pin, pinErr := checkpoint.Load(ctx, env.store, app.Root, opts)
	if !errors.Is(pinErr, blobstore.ErrNotExist) {
		return pin, pinErr
	}
	if _, existed := env.store.Stat(ctx, env.relocations.Apply(app.Existed)); existed == nil {
		gone := &checkpoint.DamagedError{URI: app.Root.String(), Missing: []string{app.Metadata.String()}}
		return nil, &hintedError{gone, "state was pinned here once; chkpin resolve " + u.String() + " falls back to the newest generation that restores"}
	}
	return nil, &hintedError{err, hintNoState}
}

// hintNoState helps who named something else.
const hintNoState = "name the folder of a checkpoint, savepoint or pin, its _metadata, or an application; chkpin list finds them"

func sideOf(s *checkpoint.Snapshot) diffSide {
	return diffSide{URI: s.URI.String(), Kind: s.Kind(), CheckpointID: s.CheckpointID, FormatVersion: s.Version, Operators: len(s.Operators)}
}

func stateOf(op *checkpoint.OperatorState) *diffState {
	if op == nil {
		return nil
	}
	return &diffState{op.Parallelism, op.MaxParallelism, op.Bytes}
}

func (r diffResult) describe(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, side := range []struct {
		name string
		diffSide
	}{{"a", r.A}, {"b", r.B}} {
		fmt.Fprintf(t, "%s\t%s %d, format %d, %d operators\t%s\n", side.name, side.Kind, side.CheckpointID, side.FormatVersion, side.Operators, side.URI)
	}
	t.Flush()
	if len(r.Operators) > 0 {
		fmt.Fprintf(t, "\nCHANGE\tOPERATOR\tUID\tNAME\tPARALLELISM\tMAX\tSTATE\n")
	}
	for _, op := range r.Operators {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", op.Change, op.ID, orDash(op.UID), orDash(op.Name),
			op.column(func(s diffState) string { return fmt.Sprint(s.Parallelism) }),
			op.column(func(s diffState) string { return fmt.Sprint(s.MaxParallelism) }),
			op.column(func(s diffState) string { return humanize.IBytes(uint64(s.StateBytes)) }))
	}
	t.Flush()
	fmt.Fprintln(w)
	for _, text := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", text)
	}
	if r.Equal {
		fmt.Fprintln(w, "the operators are the same")
	} else {
		fmt.Fprintln(w, "the two differ")
	}
}

// column is a figure of both sides, once if it is the same.
func (op diffOperator) column(figure func(diffState) string) string {
	switch {
	case op.A == nil:
		return figure(*op.B)
	case op.B == nil:
		return figure(*op.A)
	}
	a, b := figure(*op.A), figure(*op.B)
	if a == b {
		return a
	}
	return a + " -> " + b
}
