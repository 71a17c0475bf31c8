//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/job"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/lab"
)

// deployed is the JSON result of chkpin deploy for one job.
type deployed struct {
	Decision string `json:"decision"`
	Reason   string `json:"reason"`
	Restore  string `json:"restore"`
	Version  int    `json:"version"`
	JobID    string `json:"jobId"`
}

// deployment is the job on a session cluster, deployed from a manifest.
type deployment struct {
	*story
	cluster *lab.Cluster
	launch  []string // the command that starts the job
	query   string
	setting int // changed to change the manifest alone

	attempts int  // how often the job has started
	restored bool // whether that was with state, the last time
}

// deployArgs are those of chkpin deploy for the manifest as it is now.
func (d *deployment) deployArgs(more ...string) []string {
	d.Helper()
	file := filepath.Join(d.dir, "pinned-state.yaml")
	text := fmt.Sprintf("name: pinned-state\ntarget-table: counts\nsql: %s\nflinkProperties:\n  execution.checkpointing.tolerable-failed-checkpoints: %d\n", d.query, d.setting)
	require.NoError(d, os.WriteFile(file, []byte(text), 0o666))
	args := []string{"deploy", "--job-config-path", file, "--manifests", d.root.Join("manifests").String(),
		"--state", d.root.String(), "--jobmanager", d.cluster.URL}
	return append(args, more...)
}

func (d *deployment) command() []string { return append([]string{"--"}, d.launch...) }

func (d *deployment) deploy(ctx context.Context, wantExit int) (result deployed) {
	d.Helper()
	stdout := d.chkpin(ctx, wantExit, append(d.deployArgs("--output", "json"), d.command()...)...)
	require.NoError(d, json.Unmarshal([]byte(stdout), &result), "%s", stdout)
	return result
}

// decides deploys, requires the decision and what the operators began with, and lets the job go on for two checkpoints.
func (d *deployment) decides(ctx context.Context, decision string, version int) deployed {
	d.Helper()
	result := d.deploy(ctx, exitDone)
	require.Equal(d, decision, result.Decision, result.Reason)
	require.Equal(d, version, result.Version)
	switch decision {
	case "clean", "savepoint-clean":
		d.started(false)
		require.Empty(d, result.Restore)
	case "restore", "savepoint-restore":
		d.started(true)
		require.NotEmpty(d, result.Restore)
	}
	d.goesOn(ctx)
	return result
}

// started notes that the job is to have started once more, with state or without.
func (d *deployment) started(restored bool) {
	d.attempts++
	d.restored = restored
}

// goesOn requires that the job has started as it was to, has lost no state and counted nothing twice.
func (d *deployment) goesOn(ctx context.Context) {
	d.Helper()
	_, err := d.cluster.WaitRunning(ctx)
	require.NoError(d, err)
	_, err = d.cluster.WaitCheckpoints(ctx, 2)
	require.NoError(d, err)
	report := d.report(d.cluster)
	require.Equal(d, d.attempts, report.Attempts, "starts of the job")
	if d.restored {
		require.Equal(d, 4, report.Restored, "restored operator subtasks")
	} else {
		require.Equal(d, 4, report.Empty, "operator subtasks that started without state")
	}
	latest := report.Latest()
	require.Zero(d, latest.Missing+latest.BadBlobs+latest.BadOrigins+latest.BadMaps+latest.BadLists+latest.BadSums+latest.Gaps, "%+v", latest)
}

// isKilled deploys, and kills chkpin as soon as it says something. What it has started lives on.
func (d *deployment) isKilled(ctx context.Context, said string) {
	d.Helper()
	cmd := exec.CommandContext(ctx, d.binary, append(d.deployArgs(), d.command()...)...)
	stderr, err := cmd.StderrPipe()
	require.NoError(d, err)
	require.NoError(d, cmd.Start())
	killed := false
	for lines := bufio.NewScanner(stderr); !killed && lines.Scan(); {
		if strings.Contains(lines.Text(), said) {
			require.NoError(d, cmd.Process.Kill())
			killed = true
		}
	}
	require.True(d, killed, "it never said %q", said)
	require.Error(d, cmd.Wait())
}

// deployWalksTheGraph: every decision that deploy takes, on a session cluster; and a changed job, whose chkpin is
// killed on the way.
func deployWalksTheGraph(s *story) {
	d := &deployment{story: s, query: "SELECT a"}
	s.step("new job, then the same", func(ctx context.Context) string {
		d.cluster = s.startAs(func(o *lab.Options) { o.Job = lab.Job{} })
		require.NoError(s, d.cluster.WaitReady(ctx))
		d.launch = append([]string{d.cluster.CLI, "run", "-d", "{properties}", "{restore}", "-c", job.Class, s.jar}, s.options.Args()...)
		d.decides(ctx, "clean", 1)
		s.waitFilled(ctx, d.cluster)
		d.decides(ctx, "nothing", 1)
		return "clean, nothing"
	})
	s.step("running, settings changed", func(ctx context.Context) string {
		d.setting++
		result := d.decides(ctx, "savepoint-restore", 1)
		require.Contains(s, result.Restore, "/savepoints/pinned-state/1/savepoint-")
		return "savepoint-restore"
	})
	s.step("not running, unchanged", func(ctx context.Context) string {
		require.NoError(s, d.cluster.Cancel(ctx))
		result := d.decides(ctx, "restore", 1)
		require.Contains(s, result.Restore, "/checkpoints/pinned-state/1/")
		return "restore"
	})
	s.step("not running, settings changed", func(ctx context.Context) string {
		require.NoError(s, d.cluster.Cancel(ctx))
		d.setting++
		d.decides(ctx, "restore", 1)
		return "restore"
	})
	for _, said := range []string{"stopping job", "stopped, the savepoint is", "starting from", "Job has been submitted"} {
		s.step(fmt.Sprintf("settings changed, killed at %q", said), func(ctx context.Context) string {
			d.setting++
			d.isKilled(ctx, said)
			result := d.deploy(ctx, exitDone)
			d.started(true)
			d.goesOn(ctx)
			require.Contains(s, s.chkpin(ctx, exitDone, d.deployArgs("--dry-run")...), "running, unchanged")
			return result.Decision + ": " + result.Reason
		})
	}
	s.step("running, query changed", func(ctx context.Context) string {
		d.query = "SELECT b"
		result := d.deploy(ctx, exitDone)
		require.Equal(s, "savepoint-clean", result.Decision)
		require.Equal(s, 2, result.Version)
		d.started(false)
		d.goesOn(ctx)
		return "savepoint-clean"
	})
	s.step("not running, query changed", func(ctx context.Context) string {
		require.NoError(s, d.cluster.Cancel(ctx))
		d.query = "SELECT c"
		result := d.deploy(ctx, exitDone)
		require.Equal(s, "clean", result.Decision)
		require.Equal(s, 3, result.Version)
		d.started(false)
		d.goesOn(ctx)
		return "clean"
	})
	s.step("not running, no state", func(ctx context.Context) string {
		require.NoError(s, d.cluster.Cancel(ctx))
		var state []blobstore.URI
		for _, folder := range []string{"checkpoints", "savepoints"} {
			state = append(state, s.files(ctx, s.root.Join(folder, "pinned-state", "3"))...)
		}
		s.delete(ctx, state)
		require.Equal(s, "error", d.deploy(ctx, exitNothing).Decision)
		return "error, exit 3"
	})
}
