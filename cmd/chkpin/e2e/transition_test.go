//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/cmd/chkpin/e2e/job"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/lab"
)

// transitioned is the JSON result of chkpin transition.
type transitioned struct {
	Result  string `json:"result"`
	Monitor struct {
		JobID string `json:"jobId"`
		State string `json:"state"`
	} `json:"monitor"`
	Trigger struct {
		JobID string `json:"jobId"`
		State string `json:"state"`
	} `json:"trigger"`
	Savepoint string   `json:"savepoint"`
	Warnings  []string `json:"warnings"`
}

func (s *story) transition(ctx context.Context, cluster *lab.Cluster, args ...string) (result transitioned) {
	s.Helper()
	args = append([]string{"transition", "--flink", cluster.URL, "--interval", "500ms", "--output", "json"}, args...)
	stdout := s.chkpin(ctx, exitDone, args...)
	require.NoError(s, json.Unmarshal([]byte(stdout), &result), "%s", stdout)
	return result
}

// transitionMakesWay is what a scheduler does on JobManagers without a platform: a streaming job makes way for
// another and comes back with its state. Starting clusters is the scheduler's own part.
func transitionMakesWay(s *story) {
	var suspended transitioned
	var held job.Tally

	s.step("wait for RUNNING, stop with a savepoint", func(ctx context.Context) string {
		streaming := s.start()
		s.waitFilled(ctx, streaming)
		suspended = s.transition(ctx, streaming, "--monitor-state", "RUNNING",
			"--action", "stop", "--target", s.root.Join("savepoints").String())
		require.Equal(s, "triggered", suspended.Result)
		require.Equal(s, "RUNNING", suspended.Monitor.State)
		require.Equal(s, suspended.Monitor.JobID, suspended.Trigger.JobID)
		require.Equal(s, "FINISHED", suspended.Trigger.State)
		exitCode, err := streaming.WaitEnd(ctx)
		require.NoError(s, err)
		require.Zero(s, exitCode, "the JobManager's exit code")
		held = s.heldAt(streaming, s.checkpointOf(ctx, suspended.Savepoint))
		return "savepoint taken, cluster ended"
	})
	s.step("the other: wait for RUNNING, cancel", func(ctx context.Context) string {
		other := s.start()
		cancelled := s.transition(ctx, other, "--monitor-state", "running", "--action", "cancel", "--wait")
		require.Equal(s, "triggered", cancelled.Result)
		require.Empty(s, cancelled.Savepoint)
		if len(cancelled.Warnings) == 0 { // the JobManager was asked again before it ended with its job
			require.Equal(s, "CANCELED", cancelled.Trigger.State)
		}
		exitCode, err := other.WaitEnd(ctx)
		require.NoError(s, err)
		require.Zero(s, exitCode, "the JobManager's exit code")
		return fmt.Sprintf("last seen %s, warnings: %q", cancelled.Trigger.State, cancelled.Warnings)
	})
	s.step("the first again, from its savepoint", func(ctx context.Context) string {
		streaming := s.start("--fromSavepoint", suspended.Savepoint)
		waited := s.transition(ctx, streaming, "--monitor-state", "RUNNING", "--action", "none")
		require.Equal(s, "waited", waited.Result)
		s.requireRestored(ctx, streaming, s.checkpointOf(ctx, suspended.Savepoint), held)
		require.NoError(s, streaming.Cancel(ctx))
		return fmt.Sprintf("state of the savepoint, %d numbers", held.Numbers)
	})
}

// checkpointOf returns the id that a savepoint has as a checkpoint.
func (s *story) checkpointOf(ctx context.Context, savepoint string) int64 {
	s.Helper()
	var inspected struct {
		CheckpointID int64 `json:"checkpointId"`
	}
	stdout := s.chkpin(ctx, exitDone, "inspect", savepoint, "--output", "json")
	require.NoError(s, json.Unmarshal([]byte(stdout), &inspected), "%s", stdout)
	return inspected.CheckpointID
}
