//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/cmd/chkpin/e2e/job"
)

// rollbackStartsYesterday: the pin goes back to the generation before while the job runs on. The job is held from then
// on; the next run starts with yesterday's state, is recognised by that, and is pinned again.
func rollbackStartsYesterday(s *story) {
	var yesterday, today pinned
	var held job.Tally

	s.step("run, pin twice, roll back", func(ctx context.Context) string {
		cluster := s.start()
		s.waitFilled(ctx, cluster)
		yesterday = s.pin(ctx, exitDone, cluster)
		held = s.heldAt(cluster, yesterday.CheckpointID)
		_, err := cluster.WaitCheckpoints(ctx, 3)
		require.NoError(s, err)
		today = s.pin(ctx, exitDone, cluster)
		require.Equal(s, "pinned", today.Result)

		var back struct{ Result, Generation, From string }
		require.NoError(s, json.Unmarshal([]byte(s.chkpin(ctx, exitDone, "rollback", s.app.String(), "--reason", "a bad night", "--output", "json")), &back))
		assert.Equal(s, "rolled-back", back.Result)
		assert.Equal(s, today.Generation, back.From)
		assert.Equal(s, yesterday.Generation, back.Generation)
		_, err = cluster.WaitCheckpoints(ctx, 2)
		require.NoError(s, err)
		_, log := s.chkpinLogged(ctx, exitHeld, "pin", s.app.String(), cluster.URL)
		assert.Contains(s, log, "a bad night")
		s.cancelAndDelete(ctx, cluster)
		s.verify(ctx)
		return fmt.Sprintf("from chk-%d to chk-%d, held", today.CheckpointID, yesterday.CheckpointID)
	})
	s.step("restore, pin again", func(ctx context.Context) string {
		cluster := s.start(s.resolve(ctx)...)
		s.requireRestored(ctx, cluster, yesterday.CheckpointID, held)
		_, err := cluster.WaitCheckpoints(ctx, 2)
		require.NoError(s, err)
		next := s.pin(ctx, exitDone, cluster)
		require.Equal(s, "pinned", next.Result)
		assert.Equal(s, "pin", next.RestoredFrom)
		assert.Equal(s, yesterday.CheckpointID, next.RestoredID)
		assert.False(s, next.StartedEmpty)
		_, err = cluster.WaitCheckpoints(ctx, 2)
		require.NoError(s, err)
		require.Equal(s, "pinned", s.pin(ctx, exitDone, cluster).Result, "nothing is on hold any more")
		s.cancelAndDelete(ctx, cluster)
		s.verify(ctx)
		return fmt.Sprintf("state of chk-%d; pinned chk-%d as %s", yesterday.CheckpointID, next.CheckpointID, next.Generation)
	})
	s.step("start empty", func(ctx context.Context) string {
		cluster := s.start()
		s.waitFilled(ctx, cluster)
		stdout, log := s.chkpinLogged(ctx, exitHeld, "pin", s.app.String(), cluster.URL, "--output", "json")
		empty := s.pinned(stdout)
		assert.Equal(s, "nothing", empty.RestoredFrom)
		assert.True(s, empty.StartedEmpty)
		assert.Contains(s, log, "level=ERROR")
		require.NoError(s, cluster.Cancel(ctx))
		return "an alarm"
	})
}
