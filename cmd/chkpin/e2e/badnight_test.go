//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/job"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/lab"
)

// theBadNight: a deployment forgot what to start from, and the job starts empty. The tick holds and raises the alarm. Who
// was woken looks at what there is, goes back to a state that is known to be good, and starts the job from that; the
// tick recognises it and goes on.
func theBadNight(s *story) {
	var good, last, held pinned
	var heldGood job.Tally
	var empty *lab.Cluster
	generation := func(p pinned) string { return s.app.Join("last-state", "generations", p.Generation).String() }

	s.step("run, pin twice", func(ctx context.Context) string {
		cluster := s.start()
		s.waitFilled(ctx, cluster)
		good = s.pin(ctx, exitDone, cluster)
		heldGood = s.heldAt(cluster, good.CheckpointID)
		_, err := cluster.WaitCheckpoints(ctx, 2)
		require.NoError(s, err)
		last = s.pin(ctx, exitDone, cluster)
		require.Equal(s, "pinned", last.Result)
		s.cancelAndDelete(ctx, cluster)
		return fmt.Sprintf("pinned chk-%d and chk-%d", good.CheckpointID, last.CheckpointID)
	})
	s.step("start empty", func(ctx context.Context) string {
		pinBefore := s.lastState(ctx)
		empty = s.start()
		s.waitFilled(ctx, empty)
		require.Zero(s, s.report(empty).Restored, "restored subtasks")

		for range 2 { // the next tick has to hold as well
			stdout, log := s.chkpinLogged(ctx, exitHeld, "pin", s.app.String(), empty.URL, "--output", "json")
			held = s.pinned(stdout)
			require.Equal(s, "held", held.Result)
			require.Equal(s, "nothing", held.RestoredFrom)
			require.True(s, held.StartedEmpty)
			require.Contains(s, log, "level=ERROR", "the alarm")
			require.Contains(s, log, "hint:")
			_, err := empty.WaitCheckpoints(ctx, 1)
			require.NoError(s, err)
		}
		pinAfter := s.lastState(ctx)
		// The description of the pin, unlike the pin, notes the run that was refused.
		delete(pinBefore, "pin.json")
		delete(pinAfter, "pin.json")
		require.Equal(s, pinBefore, pinAfter, "the pin is not to change")
		return "held, an alarm"
	})
	s.step("look: list, inspect, diff", func(ctx context.Context) string {
		// Flink deletes the empty job's checkpoints every second, so only the pin can be looked at in peace.
		table := s.chkpin(ctx, exitDone, "list", s.app.Join("last-state").String())
		require.Contains(s, table, generation(last)+"  (published)")
		require.Contains(s, table, generation(good)+"\n")

		text := s.chkpin(ctx, exitDone, "inspect", generation(good))
		require.Contains(s, text, fmt.Sprintf("checkpoint %d, format", good.CheckpointID))
		if strings.HasPrefix(s.cell.release, "2.") { // before, metadata holds no names
			require.Contains(s, text, "  ledger  ")
		}
		require.Contains(s, s.chkpin(ctx, exitDone, "diff", generation(good), s.app.String()), "the operators are the same")
		return "2 generations, the same operators"
	})
	s.step("roll back", func(ctx context.Context) string {
		var back struct{ Result, Generation, From string }
		stdout := s.chkpin(ctx, exitDone, "rollback", s.app.String(), "--reason", "a bad night", "--output", "json")
		require.NoError(s, json.Unmarshal([]byte(stdout), &back), stdout)
		require.Equal(s, "rolled-back", back.Result)
		require.Equal(s, last.Generation, back.From)
		require.Equal(s, good.Generation, back.Generation)

		// Nobody may put the empty state over it now, not even on purpose.
		_, log := s.chkpinLogged(ctx, exitHeld, "pin", s.app.String(), empty.URL, "--accept-lineage")
		require.Contains(s, log, "a bad night")

		kept := s.keptCheckpoint(ctx, s.cancel(ctx, empty))
		require.ElementsMatch(s, []found{
			{Kind: "generation", JobID: good.JobID, CheckpointID: good.CheckpointID, Published: true, Restorable: true},
			{Kind: "generation", JobID: last.JobID, CheckpointID: last.CheckpointID, Restorable: true},
			{Kind: "checkpoint", JobID: held.JobID, CheckpointID: kept.ID, Restorable: true},
		}, s.list(ctx, s.app))
		s.delete(ctx, s.filesOf(ctx, held.JobID))
		s.verify(ctx)
		return fmt.Sprintf("from chk-%d to chk-%d, on hold", last.CheckpointID, good.CheckpointID)
	})
	s.step("restart through exec, pin", func(ctx context.Context) string {
		cluster := s.startAs(s.throughExec)
		s.requireRestored(ctx, cluster, good.CheckpointID, heldGood)
		_, err := cluster.WaitCheckpoints(ctx, 2)
		require.NoError(s, err)
		next := s.pin(ctx, exitDone, cluster)
		require.Equal(s, "pinned", next.Result)
		assert.Equal(s, "pin", next.RestoredFrom)
		assert.Equal(s, good.CheckpointID, next.RestoredID)
		assert.False(s, next.StartedEmpty)

		require.Contains(s, s.chkpin(ctx, exitDone, "rollback", "--release", s.app.String()), "not on hold", "the hold has ended")
		_, err = cluster.WaitCheckpoints(ctx, 2)
		require.NoError(s, err)
		require.Equal(s, "pinned", s.pin(ctx, exitDone, cluster).Result)
		s.cancelAndDelete(ctx, cluster)
		s.verify(ctx)
		return fmt.Sprintf("state of chk-%d; pinned chk-%d as %s", good.CheckpointID, next.CheckpointID, next.Generation)
	})
}

// throughExec has chkpin exec start the JobManager.
func (s *story) throughExec(o *lab.Options) {
	flags, env := s.access(s.latest.ConfDir)
	o.Launcher = slices.Concat([]string{s.binary, "exec", s.app.String()}, flags, []string{"--"})
	o.Env = env
}

// found is the part of a line of chkpin list's JSON that the stories look at.
type found struct {
	Kind         string `json:"kind"`
	JobID        string `json:"jobId"`
	CheckpointID int64  `json:"checkpointId"`
	Published    bool   `json:"published"`
	Restorable   bool   `json:"restorable"`
}

// list runs chkpin list on a folder, for what restores: on S3 an emptied folder may still be listed.
func (s *story) list(ctx context.Context, folder blobstore.URI) (all []found) {
	s.Helper()
	for line := range strings.Lines(s.chkpin(ctx, exitDone, "list", folder.String(), "--restorable", "--output", "json")) {
		var one found
		require.NoError(s, json.Unmarshal([]byte(line), &one), line)
		all = append(all, one)
	}
	return all
}
