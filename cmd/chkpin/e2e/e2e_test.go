//go:build e2e

// Package e2e tests chkpin against real Flink: what it pins has to start a job after everything that the
// checkpoint was made of is gone.
//
//	go test -tags e2e -count=1 -timeout 30m -v ./cmd/chkpin/e2e/
//
// CHKPIN_E2E chooses the cells, a release and a state backend each: a regular expression such as 1\.20, or "all".
// The default is the newest release. CHKPIN_E2E_REPORT names a file for the table of outcomes. The tests
// need a JDK, Python 3 for the download of Flink (see package lab), and 1.2 GB of memory.
package e2e

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/cmd/chkpin/e2e/job"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/lab"
)

// A cell is one combination that the stories are told for.
type cell struct {
	release string
	backend string
}

func (c cell) String() string { return c.release + "/" + c.backend }

var cells = []cell{
	{"1.20.5", "hashmap"},
	{"1.20.5", "rocksdb"},
	{"2.3.0", "hashmap"},
	{"2.3.0", "rocksdb"},
}

// chosenCells are those that CHKPIN_E2E asks for.
func chosenCells(t *testing.T) []cell {
	pattern := cmp.Or(os.Getenv("CHKPIN_E2E"), `^2\.3\.0/`)
	if pattern == "all" {
		return cells
	}
	matching, err := regexp.Compile(pattern)
	require.NoError(t, err, "CHKPIN_E2E")
	var chosen []cell
	for _, c := range cells {
		if matching.MatchString(c.String()) {
			chosen = append(chosen, c)
		}
	}
	require.NotEmpty(t, chosen, "CHKPIN_E2E=%s chooses none of %v", pattern, cells)
	return chosen
}

// TestRealFlink tells every story in every chosen cell.
func TestRealFlink(t *testing.T) {
	chosen := chosenCells(t)
	l, err := lab.Find()
	require.NoError(t, err)
	chkpin := buildChkpin(t)
	outcomes := new(table)
	t.Cleanup(func() { outcomes.publish(t, chosen) })

	// A story runs one cluster at a time, and a cluster takes a core and 600 MB.
	clusters := make(chan struct{}, 2)
	for _, c := range chosen {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			clusters <- struct{}{}
			t.Cleanup(func() { <-clusters })
			t.Run("FlinkRestoresItsOwnCheckpoint", func(t *testing.T) {
				flinkRestoresItsOwnCheckpoint(newStory(t, l, c, chkpin, outcomes))
			})
			t.Run("PinOutlivesItsCheckpoint", func(t *testing.T) {
				pinOutlivesItsCheckpoint(newStory(t, l, c, chkpin, outcomes))
			})
		})
	}
}

// flinkRestoresItsOwnCheckpoint is the ground the other stories stand on: Flink restores the checkpoint that it
// kept, and the job recognises its state. If it does not, the fault is not chkpin's.
func flinkRestoresItsOwnCheckpoint(s *story) {
	var folder string
	var last lab.Checkpoint
	var held job.Tally
	s.step("run, cancel", func(ctx context.Context) string {
		cluster := s.start()
		s.waitFilled(ctx, cluster)
		folder = s.cancel(ctx, cluster)
		last = s.lastCheckpoint(folder)
		held = s.heldAt(cluster, last.ID)
		return fmt.Sprintf("kept chk-%d", last.ID)
	})
	s.step("restore", func(ctx context.Context) string {
		cluster := s.start("--fromSavepoint", last.Path)
		s.requireRestored(ctx, cluster, last.ID, held)
		require.NoError(s, cluster.Cancel(ctx))
		return fmt.Sprintf("state of chk-%d, %d numbers", last.ID, held.Numbers)
	})
}

// pinOutlivesItsCheckpoint is the promise of chkpin: a pin starts the job with the state of the pinned checkpoint,
// whatever has become of that checkpoint, and again after the job has been pinned anew. A copy of _metadata alone
// does not, and a job that started without the pin's state does not replace it.
func pinOutlivesItsCheckpoint(s *story) {
	var first, second pinned
	var heldFirst, heldSecond job.Tally
	var metadataAlone string

	s.step("run, pin", func(ctx context.Context) string {
		cluster := s.start()
		s.waitFilled(ctx, cluster)
		first = s.pin(ctx, exitDone, cluster)
		require.Equal(s, "pinned", first.Result)
		require.NotZero(s, first.Copied, "a pin without files proves nothing")
		heldFirst = s.heldAt(cluster, first.CheckpointID)
		metadataAlone = s.copyMetadataAlone(ctx, cluster)

		_, err := cluster.WaitCheckpoints(ctx, 5)
		require.NoError(s, err)
		s.waitGone(ctx, cluster, filepath.Join(s.app, first.JobID, fmt.Sprintf("chk-%d", first.CheckpointID)))
		s.cancelAndDelete(ctx, cluster)
		s.chkpin(ctx, exitDone, "verify", fileURI(s.app)+"/last-state")
		return fmt.Sprintf("pinned chk-%d, %d files", first.CheckpointID, first.Copied)
	})
	s.step("control: start from _metadata alone", func(ctx context.Context) string {
		cluster := s.start("--fromSavepoint", metadataAlone)
		exitCode, err := cluster.WaitEnd(ctx)
		require.NoError(s, err)
		require.NotZero(s, exitCode, "the JobManager's exit code")
		accepted, err := cluster.Lines("Restoring job ")
		require.NoError(s, err)
		require.NotEmpty(s, accepted, "Flink is to read _metadata and then miss the files it names")
		missing, err := cluster.Lines("FileNotFoundException")
		require.NoError(s, err)
		require.NotEmpty(s, missing, "log lines with a FileNotFoundException")
		return fmt.Sprintf("does not start: exit %d, FileNotFoundException", exitCode)
	})
	s.step("restore, pin again", func(ctx context.Context) string {
		pinBefore := s.lastState()
		cluster := s.start(s.resolve(ctx)...)
		s.requireRestored(ctx, cluster, first.CheckpointID, heldFirst)
		_, err := cluster.WaitCheckpoints(ctx, 2)
		require.NoError(s, err)
		require.Equal(s, pinBefore, s.lastState(), "Flink changed the pin it started from")

		second = s.pin(ctx, exitDone, cluster)
		require.Equal(s, "pinned", second.Result)
		require.Greater(s, second.CheckpointID, first.CheckpointID)
		require.NotEqual(s, first.JobID, second.JobID)
		heldSecond = s.heldAt(cluster, second.CheckpointID)
		s.cancelAndDelete(ctx, cluster)
		s.chkpin(ctx, exitDone, "verify", fileURI(s.app)+"/last-state")
		return fmt.Sprintf("state of chk-%d; pinned chk-%d, %d files", first.CheckpointID, second.CheckpointID, second.Copied)
	})
	s.step("start empty, pin", func(ctx context.Context) string {
		pinBefore := s.lastState()
		cluster := s.start()
		s.waitFilled(ctx, cluster)
		require.Zero(s, s.report(cluster).Restored, "restored subtasks")

		for range 2 { // the next tick has to hold as well
			held := s.pin(ctx, exitHeld, cluster)
			require.Equal(s, "held", held.Result)
			_, err := cluster.WaitCheckpoints(ctx, 1)
			require.NoError(s, err)
		}
		pinAfter := s.lastState()
		// The description of the pin, unlike the pin, notes the run that was refused.
		delete(pinBefore, "pin.json")
		delete(pinAfter, "pin.json")
		require.Equal(s, pinBefore, pinAfter, "the pin is not to change")
		s.cancelAndDelete(ctx, cluster)
		return "held"
	})
	s.step("restore again", func(ctx context.Context) string {
		cluster := s.start(s.resolve(ctx)...)
		s.requireRestored(ctx, cluster, second.CheckpointID, heldSecond)
		_, err := cluster.WaitCheckpoints(ctx, 2)
		require.NoError(s, err)
		require.NoError(s, cluster.Cancel(ctx))
		return fmt.Sprintf("state of chk-%d, %d numbers", second.CheckpointID, heldSecond.Numbers)
	})
}
