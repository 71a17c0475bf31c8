package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
)

type listCommand struct {
	Root       blobstore.URI `arg:"" placeholder:"URI" help:"A bucket or volume, or any folder in it: checkpoints of all jobs, of one, an application, one checkpoint."`
	Job        string        `placeholder:"JOB" env:"CHKPIN_LIST_JOB" help:"Only this job: its id, or the first digits of it, or the name of a pinned job."`
	Restorable bool          `env:"CHKPIN_LIST_RESTORABLE" help:"Only what restores."`
	Tree       bool          `env:"CHKPIN_LIST_TREE" help:"Print folders as a tree (text only)."`
}

// Help is shown below the usage line.
func (c *listCommand) Help() string {
	return `Finds every checkpoint, savepoint and generation of a pin below a folder, and proves each as "chkpin verify" does.
Lines are printed as they are found.

  chkpin list s3://bucket/checkpoints
  chkpin list s3://bucket --job 1624fd77 --restorable
  chkpin list s3://bucket/app --output json | jq -r 'select(.restorable).uri'

AGE is since the checkpoint was triggered where a pin says so, else since its _metadata was written.

The exit code is 4 when something that is listed is damaged (in progress is not damaged), 9 when something could
not be read, and 3 when nothing is listed.`
}

// listResult is one line of the JSON of list, documented in the README.
type listResult struct {
	URI           string    `json:"uri"`
	Kind          string    `json:"kind"`
	JobID         string    `json:"jobId"`
	JobName       string    `json:"jobName,omitempty"`
	CheckpointID  int64     `json:"checkpointId"`
	FormatVersion int32     `json:"formatVersion"`
	Triggered     time.Time `json:"triggered,omitzero"`
	Modified      time.Time `json:"modified,omitzero"`
	Bytes         int64     `json:"bytes"`
	Files         int       `json:"files"`
	Published     bool      `json:"published"`
	Restorable    bool      `json:"restorable"`
	Why           string    `json:"why"`
}

// softLimit has the runtime collect garbage more often before it takes more
// memory: the metadata of a checkpoint with a hundred thousand files is 15 MB, and
// going through it makes many times as much garbage.
const softLimit = 48 << 20

// Run prints what is found, one line each. What is wrong with one of them is in
// its line, and once more in the exit code.
func (c *listCommand) Run(ctx context.Context, env *environment) error {
	if os.Getenv("GOMEMLIMIT") == "" {
		lowerMemoryLimit(softLimit)
	}
	l := &listing{env: env, root: c.Root, tree: c.Tree}
	for f, err := range checkpoint.List(ctx, env.store, c.Root, checkpoint.ListOptions{Job: c.Job, Relocations: env.relocations}) {
		switch {
		case errors.Is(err, blobstore.ErrNotExist) && f.URI.Same(c.Root):
			return &hintedError{fmt.Errorf("%w: %s is empty, or not there", errNothingListed, c.Root), "is the URI right, and the volume mounted?"}
		case err != nil && (f.URI.IsZero() || f.URI.Same(c.Root)):
			return err
		case err != nil:
			env.log.Warn("a folder could not be listed", "folder", f.URI.String(), "error", err)
			l.unread = cmp.Or(l.unread, err)
		case c.Restorable && errors.Is(f.Err, checkpoint.ErrIncomplete):
		case c.Restorable && as[*checkpoint.DamagedError](f.Err):
		default:
			if err := l.print(f); err != nil {
				return err
			}
		}
	}
	return l.end()
}

// listing is what was printed so far.
type listing struct {
	env     *environment
	root    blobstore.URI
	tree    bool
	folders []string // of the line before, below the root

	lines   int
	damaged int
	unread  error // the first of the store
}

// errNothingListed and damagedListing end a listing that could be made.
var errNothingListed = errors.New("nothing to list")

type damagedListing struct{ damaged, lines int }

func (e *damagedListing) Error() string {
	return fmt.Sprintf("%d of %d listed do not restore", e.damaged, e.lines)
}

// end is how the listing ends: what could not be read may hide anything, so it
// comes first.
func (l *listing) end() error {
	switch {
	case l.unread != nil:
		return l.unread
	case l.damaged > 0:
		return &damagedListing{l.damaged, l.lines}
	case l.lines == 0:
		return fmt.Errorf("%w below %s", errNothingListed, l.root)
	}
	return nil
}

func (l *listing) print(f checkpoint.Found) error {
	switch {
	case as[*checkpoint.DamagedError](f.Err):
		l.damaged++
	case f.Err != nil && !errors.Is(f.Err, checkpoint.ErrIncomplete):
		l.unread = cmp.Or(l.unread, f.Err)
	}
	r := listResult{
		URI: f.URI.String(), Kind: f.Kind, JobID: f.JobID, JobName: f.JobName, CheckpointID: f.CheckpointID,
		FormatVersion: f.FormatVersion, Triggered: f.Triggered, Modified: f.Modified, Bytes: f.Bytes, Files: f.Files,
		Published: f.Published, Restorable: f.Restorable(), Why: f.Why(),
	}
	l.lines++
	return l.env.print(r, func(w io.Writer) {
		if l.tree {
			l.branch(w, f.URI, r)
			return
		}
		if l.lines == 1 {
			fmt.Fprintf(w, "%-32s  %s  URI\n", "JOB", listHeader)
		}
		fmt.Fprintf(w, "%-32s  %s  %s%s\n", orDash(r.JobID), r.columns(), r.URI, r.note())
	})
}

// branch prints the folders that the line before did not lie in, and then the
// line.
func (l *listing) branch(w io.Writer, u blobstore.URI, r listResult) {
	const width = 44 // of names, as far as they are not deeper
	if l.lines == 1 {
		fmt.Fprintf(w, "%-*s  %s\n", width, l.root, listHeader)
	}
	rel, _ := u.Rel(l.root)
	path := strings.Split(rel, "/")
	if rel == "" {
		path = []string{u.Base()}
	}
	folders, name := path[:len(path)-1], path[len(path)-1]
	same := true
	for i, folder := range folders {
		if same = same && i < len(l.folders) && l.folders[i] == folder; !same {
			fmt.Fprintf(w, "%s%s/\n", indented(i), folder)
		}
	}
	l.folders = folders
	line := fmt.Sprintf("%-*s  %s%s", width, indented(len(folders))+name, r.columns(), r.note())
	fmt.Fprintln(w, strings.TrimRight(line, " "))
}

func indented(depth int) string { return strings.Repeat("  ", depth+1) }

// Columns have fixed widths, since lines are printed as they come.
const listHeader = "KIND        CHECKPOINT  FORMAT       SIZE  AGE             RESTORES"

func (r listResult) columns() string {
	number, format, size, age, restores := "-", "-", "-", "-", "no"
	if r.FormatVersion > 0 {
		format, size = fmt.Sprint(r.FormatVersion), humanize.IBytes(uint64(r.Bytes))
	}
	if r.FormatVersion > 0 || r.CheckpointID > 0 {
		number = fmt.Sprint(r.CheckpointID)
	}
	if t := cmp.Or(r.Triggered, r.Modified); !t.IsZero() {
		age = humanize.RelTime(t, time.Now(), "ago", "ahead")
	}
	if r.Restorable {
		restores = "yes"
	}
	return fmt.Sprintf("%-10s  %10s  %6s  %9s  %-14s  %-8s", r.Kind, number, format, size, age, restores)
}

// note is what there is to say beside the columns.
func (r listResult) note() string {
	switch {
	case r.Published && r.Why != "":
		return "  (published) " + r.Why
	case r.Published:
		return "  (published)"
	case r.Why != "":
		return "  " + r.Why
	}
	return ""
}
