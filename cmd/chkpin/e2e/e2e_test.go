//go:build e2e

// Package e2e tests chkpin against real Flink: what it pins has to start a job after everything that the
// checkpoint was made of is gone.
//
//	go test -tags e2e -count=1 -timeout 30m -v ./cmd/chkpin/e2e/
//
// CHKPIN_E2E chooses the cells, a release, a state backend and a storage each: a regular expression such as 1\.20 or
// s3, or "all"; doctor chooses the clusters of TestDoctor. The default, for CI, is the newest release on files, and once on
// S3, without the longer stories; the pattern . is the same as "all". CHKPIN_E2E_REPORT names a file for the table of
// outcomes. The tests need a JDK, Python 3 and Maven for the downloads (see package lab), versitygw as S3
// and Azurite as Azure ("make tools"), and 1.5 GB of memory. Flink knows one address of an Azure emulator, so the cells
// of Azure take turns.
package e2e

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"regexp"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/job"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/lab"
)

// A cell is one combination that the stories are told for.
type cell struct {
	release string
	backend string
	storage storage
}

func (c cell) String() string { return c.release + "/" + c.backend + "/" + c.storage.name }

// pluginVersion is the version of a filesystem plugin for the cell: that of the release, or its neighbour where not all
// repositories have that.
func (c cell) pluginVersion(kind storage) string {
	if neighbour, differs := map[string]string{
		"1.20.5 flink-s3-fs-hadoop":    "1.20.1",
		"1.20.5 flink-s3-fs-presto":    "1.20.0",
		"1.20.5 flink-azure-fs-hadoop": "1.20.0",
	}[c.release+" "+kind.plugin]; differs {
		return neighbour
	}
	return c.release
}

// sqlClientVersion is the version of the SQL client for the cell, likewise.
func (c cell) sqlClientVersion() string {
	if c.release == "1.20.5" {
		return "1.20.0"
	}
	return c.release
}

var cells = []cell{
	{"1.14.6", "rocksdb", volume},
	{"1.15.4", "rocksdb", volume},
	{"1.20.5", "hashmap", volume},
	{"1.20.5", "rocksdb", volume},
	{"1.20.5", "rocksdb", s3Hadoop},
	{"1.20.5", "hashmap", s3Entropy},
	{"1.20.5", "rocksdb", azure},
	{"2.3.0", "hashmap", volume},
	{"2.3.0", "rocksdb", volume},
	{"2.3.0", "rocksdb", s3Hadoop},
	{"2.3.0", "hashmap", s3Presto},
	{"2.3.0", "rocksdb", azure},
}

// everyday are the cells of CI, which tells only some of their stories.
const everyday = `^2\.3\.0/(.*/file|rocksdb/s3-hadoop)$`

// chosenCells are those that CHKPIN_E2E asks for.
func chosenCells(t *testing.T) []cell {
	pattern := cmp.Or(os.Getenv("CHKPIN_E2E"), everyday)
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
	if len(chosen) == 0 {
		require.NotEmpty(t, chosenFaults(t), "CHKPIN_E2E=%s chooses none of %v and %v", pattern, cells, faults)
	}
	return chosen
}

// The stories, the cells each is told in, and those among them that CI has the time for.
var stories = []struct {
	name     string
	tell     func(*story)
	of       func(cell) bool
	everyday func(cell) bool
}{
	{"FlinkRestoresItsOwnCheckpoint", flinkRestoresItsOwnCheckpoint, anywhere, nowhere},
	{"PinOutlivesItsCheckpoint", pinOutlivesItsCheckpoint, anywhere, anywhere},
	{"TheBadNight", theBadNight, anywhere, on("rocksdb", volume)},
	{"StopPinsItsSavepoint", stopPinsItsSavepoint, on("rocksdb", volume), anywhere},
	{"ResolvedFormsRestore", resolvedFormsRestore, on("rocksdb", volume), nowhere},
	{"PinMovesToS3", pinMovesTo(s3Hadoop), on("rocksdb", volume), nowhere},
	{"PinMovesToAzure", pinMovesTo(azure), on("rocksdb", s3Hadoop), nowhere},
	{"ReplicaTakesOver", replicaTakesOver(s3Hadoop), on("rocksdb", volume), nowhere},
	{"TicksBearStaleStatistics", ticksBearStaleStatistics, on("hashmap", volume), anywhere},
	{"TransitionMakesWay", transitionMakesWay, on("hashmap", volume), nowhere},
	{"DeployWalksTheGraph", deployWalksTheGraph, on("hashmap", volume), nowhere},
	{"DeployOfSQL", deployOfSQL, on("hashmap", volume), nowhere},
}

func anywhere(cell) bool { return true }
func nowhere(cell) bool  { return false }

func on(backend string, kind storage) func(cell) bool {
	return func(c cell) bool { return c.backend == backend && c.storage == kind }
}

// TestRealFlink tells the stories in the chosen cells.
func TestRealFlink(t *testing.T) {
	chosen, ci := chosenCells(t), os.Getenv("CHKPIN_E2E") == ""
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
			for _, story := range stories {
				if story.of(c) && (!ci || story.everyday(c)) {
					t.Run(story.name, func(t *testing.T) { story.tell(newStory(t, l, c, chkpin, outcomes)) })
				}
			}
		})
	}
}

// flinkRestoresItsOwnCheckpoint is the ground the other stories stand on: Flink restores the checkpoint that it
// kept, and the job recognises its state. If it does not, the fault is not chkpin's.
func flinkRestoresItsOwnCheckpoint(s *story) {
	var last lab.Checkpoint
	var held job.Tally
	s.step("run, cancel", func(ctx context.Context) string {
		cluster := s.start()
		s.waitFilled(ctx, cluster)
		last = s.keptCheckpoint(ctx, s.cancel(ctx, cluster))
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
// does not.
func pinOutlivesItsCheckpoint(s *story) {
	var first, second pinned
	var heldFirst, heldSecond job.Tally
	var metadataAlone blobstore.URI

	s.step("run, pin", func(ctx context.Context) string {
		cluster := s.start()
		s.waitFilled(ctx, cluster)
		first = s.pin(ctx, exitDone, cluster)
		require.Equal(s, "pinned", first.Result)
		require.NotZero(s, first.Copied, "a pin without files proves nothing")
		require.Equal(s, s.entropy, s.scattered(ctx, first.JobID), "state files outside of the job folder")
		heldFirst = s.heldAt(cluster, first.CheckpointID)
		metadataAlone = s.copyMetadataAlone(ctx, cluster)

		_, err := cluster.WaitCheckpoints(ctx, 5)
		require.NoError(s, err)
		s.waitSubsumed(ctx, cluster, first)
		s.cancelAndDelete(ctx, cluster)
		s.verify(ctx)
		return fmt.Sprintf("pinned chk-%d, %d files", first.CheckpointID, first.Copied)
	})
	s.step("control: start from _metadata alone", func(ctx context.Context) string {
		cluster := s.start("--fromSavepoint", metadataAlone.String())
		exitCode, err := cluster.WaitEnd(ctx)
		require.NoError(s, err)
		require.NotZero(s, exitCode, "the JobManager's exit code")
		accepted, err := cluster.Lines("Restoring job ")
		require.NoError(s, err)
		require.NotEmpty(s, accepted, "Flink is to read _metadata and then miss the files it names")
		missing, err := cluster.Lines(s.missing)
		require.NoError(s, err)
		require.NotEmpty(s, missing, "log lines with %s", s.missing)
		return fmt.Sprintf("does not start: exit %d, %s", exitCode, s.missing)
	})
	s.step("restore, pin again", func(ctx context.Context) string {
		pinBefore := s.lastState(ctx)
		cluster := s.start(s.resolve(ctx)...)
		s.requireRestored(ctx, cluster, first.CheckpointID, heldFirst)
		_, err := cluster.WaitCheckpoints(ctx, 2)
		require.NoError(s, err)
		require.Equal(s, pinBefore, s.lastState(ctx), "Flink changed the pin it started from")

		second = s.pin(ctx, exitDone, cluster)
		require.Equal(s, "pinned", second.Result)
		require.Greater(s, second.CheckpointID, first.CheckpointID)
		require.NotEqual(s, first.JobID, second.JobID)
		heldSecond = s.heldAt(cluster, second.CheckpointID)
		s.cancelAndDelete(ctx, cluster)
		s.verify(ctx)
		return fmt.Sprintf("state of chk-%d; pinned chk-%d, %d files", first.CheckpointID, second.CheckpointID, second.Copied)
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

// stopPinsItsSavepoint is a planned stop, which loses nothing: the job ends with a savepoint, and the pin that chkpin
// makes of it starts the job after the savepoint is gone. A stop that fails leaves the job running and the pin alone.
func stopPinsItsSavepoint(s *story) {
	var cluster *lab.Cluster
	var stopped pinned
	var held job.Tally

	s.step("run, pin, stop to where nothing can be", func(ctx context.Context) string {
		cluster = s.start()
		s.waitFilled(ctx, cluster)
		require.Equal(s, "pinned", s.pin(ctx, exitDone, cluster).Result)
		pinBefore := s.lastState(ctx)
		file := s.root.Join("file")
		s.write(ctx, file, []byte("not a folder"))

		target := file.Join("savepoints")
		failed, log := s.stopLogged(ctx, exitFailed, cluster, target)
		require.Equal(s, "failed", failed.Result)
		require.True(s, failed.Restorable)
		require.Contains(s, log, target.Path(), "why it failed")

		_, err := cluster.WaitCheckpoints(ctx, 2)
		require.NoError(s, err, "the job is to go on")
		require.Equal(s, pinBefore, s.lastState(ctx), "the pin is not to change")
		return "job and pin go on"
	})
	s.step("stop", func(ctx context.Context) string {
		savepoints := s.root.Join("savepoints")
		stopped, _ = s.stopLogged(ctx, exitDone, cluster, savepoints)
		require.Equal(s, "pinned", stopped.Result)
		source, err := blobstore.Parse(stopped.Source)
		require.NoError(s, err)
		require.True(s, source.Within(savepoints), "%s is to be below %s", source, savepoints)
		exitCode, err := cluster.WaitEnd(ctx)
		require.NoError(s, err)
		require.Zero(s, exitCode, "the JobManager's exit code")
		held = s.heldAt(cluster, stopped.CheckpointID)

		// Flink itself deletes the checkpoints: it keeps those of a job that is cancelled, not of one that finishes.
		s.delete(ctx, append(s.files(ctx, savepoints), s.filesOf(ctx, stopped.JobID)...))
		s.verify(ctx)
		return fmt.Sprintf("pinned savepoint %d, %d files", stopped.CheckpointID, stopped.Copied)
	})
	s.step("restore", func(ctx context.Context) string {
		cluster := s.start(s.resolve(ctx)...)
		s.requireRestored(ctx, cluster, stopped.CheckpointID, held)
		_, err := cluster.WaitCheckpoints(ctx, 1)
		require.NoError(s, err)
		next := s.pin(ctx, exitDone, cluster)
		require.Equal(s, "pinned", next.Result)
		require.Greater(s, next.CheckpointID, stopped.CheckpointID)
		require.NoError(s, cluster.Cancel(ctx))
		return fmt.Sprintf("state of savepoint %d, %d numbers; pinned chk-%d", stopped.CheckpointID, held.Numbers, next.CheckpointID)
	})
}

// ticksBearStaleStatistics: the JobManager answers from a cache for seconds, also when others ask. With a checkpoint
// every second, of which it keeps one, most of the checkpoints that it names to chkpin are gone by then.
func ticksBearStaleStatistics(s *story) {
	s.step("10 ticks beside another poller", func(ctx context.Context) string {
		const ticks = 10
		cluster := s.start()
		s.waitFilled(ctx, cluster)

		polling, stop := context.WithCancel(ctx)
		var poller sync.WaitGroup
		poller.Go(func() {
			_, err := cluster.WaitCheckpoints(polling, math.MaxInt32)
			assert.ErrorIs(s, err, context.Canceled)
		})
		var last pinned
		for range ticks {
			s.waitStale(ctx, cluster, last.CheckpointID)
			next := s.pin(ctx, exitDone, cluster)
			require.Equal(s, "pinned", next.Result)
			require.Greater(s, next.CheckpointID, last.CheckpointID)
			last = next
		}
		stop()
		poller.Wait()

		s.verify(ctx)
		require.NoError(s, cluster.Cancel(ctx))
		return fmt.Sprintf("%d of %d pinned", ticks, ticks)
	})
}
