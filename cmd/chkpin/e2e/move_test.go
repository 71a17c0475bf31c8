//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/cmd/chkpin/e2e/job"
)

// copied is the part of chkpin copy's JSON result that the stories look at.
type copied struct {
	Result      string   `json:"result"`
	Copied      int      `json:"copied"`
	Reused      int      `json:"reused"`
	Generations []string `json:"generations"`
}

// pinMovesTo is the story of an application that moves to another kind of place: its pin is copied there, everything
// where it was is deleted, and it goes on from the copy, pinned there as the next run of the same lineage.
func pinMovesTo(kind storage) func(*story) {
	return func(s *story) {
		var before, after pinned
		var heldBefore, heldAfter job.Tally

		s.step("run, pin twice", func(ctx context.Context) string {
			cluster := s.start()
			s.waitFilled(ctx, cluster)
			require.Equal(s, "pinned", s.pin(ctx, exitDone, cluster).Result)
			_, err := cluster.WaitCheckpoints(ctx, 2)
			require.NoError(s, err)
			before = s.pin(ctx, exitDone, cluster)
			require.Equal(s, "pinned", before.Result)
			heldBefore = s.heldAt(cluster, before.CheckpointID)
			s.cancelAndDelete(ctx, cluster)
			return fmt.Sprintf("pinned chk-%d, %d files", before.CheckpointID, before.Copied)
		})
		s.step("copy to "+kind.name, func(ctx context.Context) string {
			old := s.place
			s.moveTo(ctx, newPlace(s.T, kind, filepath.Join(s.dir, kind.name)))
			s.beside = []place{old}
			move := s.copy(ctx, old.app.String(), s.app.String())
			require.Equal(s, "copied", move.Result)
			require.Len(s, move.Generations, 2)
			require.Equal(s, "unchanged", s.copy(ctx, old.app.String(), s.app.String()).Result)

			s.beside = nil
			s.deleteAll(ctx, old)
			s.verify(ctx)
			return fmt.Sprintf("%d files, %d generations", move.Copied, len(move.Generations))
		})
		s.step("restore there, pin again", func(ctx context.Context) string {
			cluster := s.start(s.resolve(ctx)...)
			s.requireRestored(ctx, cluster, before.CheckpointID, heldBefore)
			_, err := cluster.WaitCheckpoints(ctx, 2)
			require.NoError(s, err)
			after = s.pin(ctx, exitDone, cluster)
			require.Equal(s, "pinned", after.Result)
			require.Greater(s, after.CheckpointID, before.CheckpointID)
			heldAfter = s.heldAt(cluster, after.CheckpointID)
			s.cancelAndDelete(ctx, cluster)
			s.verify(ctx)
			return fmt.Sprintf("state of chk-%d; pinned chk-%d, %d files", before.CheckpointID, after.CheckpointID, after.Copied)
		})
		s.step("restore there again", func(ctx context.Context) string {
			cluster := s.start(s.resolve(ctx)...)
			s.requireRestored(ctx, cluster, after.CheckpointID, heldAfter)
			require.NoError(s, cluster.Cancel(ctx))
			return fmt.Sprintf("state of chk-%d, %d numbers", after.CheckpointID, heldAfter.Numbers)
		})
	}
}

// replicaTakesOver is the story of an application that loses the place where it was pinned, and goes on from a replica
// in another kind of place.
func replicaTakesOver(kind storage) func(*story) {
	return func(s *story) {
		var last pinned
		var held job.Tally

		s.step("run, pin twice with a replica on "+kind.name, func(ctx context.Context) string {
			replica := newPlace(s.T, kind, filepath.Join(s.dir, kind.name))
			s.beside = []place{replica}
			cluster := s.start()
			s.waitFilled(ctx, cluster)
			for range 2 {
				_, err := cluster.WaitCheckpoints(ctx, 1)
				require.NoError(s, err)
				last = s.pin(ctx, exitDone, cluster, "--replica", replica.app.String())
				require.Equal(s, "pinned", last.Result)
				require.Equal(s, []replicated{{App: replica.app.String(), Result: "pinned", Generation: last.Generation}}, last.Replicas)
			}
			held = s.heldAt(cluster, last.CheckpointID)
			require.NoError(s, cluster.Cancel(ctx))
			return fmt.Sprintf("pinned chk-%d as %s, twice", last.CheckpointID, last.Generation)
		})
		s.step("lose the first place, restore from the replica, pin there", func(ctx context.Context) string {
			lost := s.place
			s.deleteAll(ctx, lost)
			s.moveTo(ctx, s.beside[0])
			s.beside = nil
			args := strings.Fields(s.chkpin(ctx, exitDone, "resolve", lost.app.String(), s.app.String()))
			require.Equal(s, []string{"--fromSavepoint", s.pinPath()}, args)

			cluster := s.start(args...)
			s.requireRestored(ctx, cluster, last.CheckpointID, held)
			_, err := cluster.WaitCheckpoints(ctx, 2)
			require.NoError(s, err)
			next := s.pin(ctx, exitDone, cluster)
			require.Equal(s, "pinned", next.Result)
			require.Equal(s, "pin", next.RestoredFrom)
			require.Equal(s, last.CheckpointID, next.RestoredID)
			s.cancelAndDelete(ctx, cluster)
			s.verify(ctx)
			return fmt.Sprintf("state of chk-%d; pinned chk-%d as %s", last.CheckpointID, next.CheckpointID, next.Generation)
		})
	}
}

// moveTo goes on with the story in another place.
func (s *story) moveTo(ctx context.Context, p place) {
	s.Helper()
	s.place = p
	s.fetchPlugin(ctx)
}

// copy runs chkpin copy, set up for the story's places.
func (s *story) copy(ctx context.Context, from, to string) (result copied) {
	s.Helper()
	stdout := s.chkpin(ctx, exitDone, "copy", from, to, "--output", "json")
	require.NoError(s, json.Unmarshal([]byte(stdout), &result), "%s", stdout)
	return result
}
