//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint/metadata"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/job"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/lab"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/matrix"
)

// A trial is a cell of the matrix while it runs.
type trial struct {
	*story
	cell  matrix.Cell
	state state
	way   way
	entry []string // arguments that each JobManager gets in application mode
}

// A way is how a job is started from the pin.
type way struct {
	release     string // "" for the one that made it
	parallelism int    // of all but the source; 0: 2
	session     bool   // on a session cluster, else in application mode
	rest        bool   // by the REST API, else with flink run
	mode        string // NO_CLAIM, CLAIM, LEGACY; "" for none
}

// wayOf reads the last column of a cell.
func (m *trial) wayOf(restore string) (w way) {
	kind, value, _ := strings.Cut(restore, "-")
	switch kind {
	case "application":
		if value != "" {
			parallelism, err := strconv.Atoi(strings.TrimPrefix(value, "p"))
			require.NoError(m, err, restore)
			w.parallelism = parallelism
		}
	case "rest", "run":
		w.session, w.rest, w.mode = true, kind == "rest", strings.ToUpper(value)
	case "to":
		w.release = value
	default:
		require.Fail(m, "no such way to restore", restore)
	}
	return w
}

// prepare sets the story up for the state of the cell.
func (m *trial) prepare() {
	if m.state.options != nil {
		m.options = m.state.options(m.options)
	}
	m.base = func(o *lab.Options) {
		o.Incremental = m.state.incremental
		o.Conf = union(o.Conf, m.state.conf)
		o.Conf["web.refresh-interval"] = "500" // ms: its 3 s are most of what a trial waits for
		if _, enabled := o.Conf["state.changelog.enabled"]; enabled {
			o.Conf["state.changelog.dstl.dfs.base-path"] = m.root.Join("changelog").String()
		}
	}
}

// pinnedState is a pin, and what it has to restore.
type pinnedState struct {
	pinned
	held     job.Tally
	inFlight bool
}

// tell runs the cell.
func (m *trial) tell() (matrix.Outcome, string) {
	if tale, special := tales[m.cell.Restore]; special {
		return tale(m)
	}
	if release, back := strings.CutPrefix(m.cell.Restore, "back-to-"); back {
		return m.isTooNew(release)
	}
	m.way = m.wayOf(m.cell.Restore)
	if _, across := m.state.conf["execution.checkpointing.file-merging.across-checkpoint-boundary"]; across && m.plugin != "" {
		return m.isNotThereYet()
	}
	if m.state.conf["state.changelog.enabled"] != "" {
		return m.failsAtItsFirstCheckpoint()
	}
	return m.survives()
}

// survives: a pin restores after its origin is gone, and the restored job can be pinned anew, deleted and restored again.
func (m *trial) survives() (matrix.Outcome, string) {
	var first, second pinnedState
	m.step("run, pin", func(ctx context.Context) string {
		first = m.runAndPin(ctx)
		return "pinned"
	})
	m.step("restore, pin again", func(ctx context.Context) string {
		if m.way.release != "" {
			m.useRelease(ctx, m.way.release)
		}
		before := m.lastState(ctx)
		cluster := m.restart(ctx)
		m.requireFound(ctx, cluster, first)
		m.requireWitness(ctx, cluster)
		_, err := cluster.WaitCheckpoints(ctx, 2)
		require.NoError(m, err)
		require.Equal(m, before, m.lastState(ctx), "Flink changed the pin it started from")

		second = m.pinAndEnd(ctx, cluster, false)
		require.Greater(m, second.CheckpointID, first.CheckpointID)
		require.Equal(m, "pin", second.RestoredFrom)
		return "restored, pinned"
	})
	m.step("restore again", func(ctx context.Context) string {
		cluster := m.restart(ctx)
		m.requireFound(ctx, cluster, second)
		_, err := cluster.WaitCheckpoints(ctx, 2)
		require.NoError(m, err)
		require.NoError(m, cluster.Cancel(ctx))
		cluster.Stop()
		return "restored"
	})
	return matrix.Yes, fmt.Sprintf("%s: %d files, restored with %d numbers; then chk-%d: %d files, restored with %d",
		m.nameOf(first), first.Copied, first.held.Numbers, second.CheckpointID, second.Copied, second.held.Numbers)
}

// nameOf is the folder of what was pinned, as people call it.
func (m *trial) nameOf(p pinnedState) string {
	if m.state.source == "" {
		return fmt.Sprintf("chk-%d", p.CheckpointID)
	}
	return fmt.Sprintf("savepoint %d", p.CheckpointID)
}

// runAndPin runs the job from nothing, pins it, and deletes all that it wrote.
func (m *trial) runAndPin(ctx context.Context) (p pinnedState) {
	cluster := m.startAs(func(o *lab.Options) {
		o.Interval = m.state.interval
		o.EntryArgs = m.entry
	})
	m.waitFilled(ctx, cluster)
	p = m.pinAndEnd(ctx, cluster, true)
	require.Empty(m, m.state.witness(m.metadata(ctx)), "what is pinned is not what the cell is about")
	require.Equal(m, m.state.inFlight, p.inFlight, "whether anything was in flight")
	return p
}

// pinAndEnd pins the job, ends it and deletes all that it wrote. The first time it pins what the cell is about, be it a
// savepoint, later a checkpoint.
func (m *trial) pinAndEnd(ctx context.Context, cluster *lab.Cluster, isFirst bool) (p pinnedState) {
	m.Helper()
	running, err := cluster.Job(ctx)
	require.NoError(m, err)
	source, format, _ := strings.Cut(m.state.source, "-")
	switch {
	case source == "" || !isFirst:
		p = m.pinState(ctx, cluster)
		m.waitSubsumed(ctx, cluster, p.pinned)
	case source == "stopped":
		p = m.stop(ctx, cluster, running.ID, format)
		m.deleteFlinks(ctx)
		return p
	default:
		p = m.pinSavepoint(ctx, cluster, source)
	}
	m.end(ctx, cluster, running.ID)
	return p
}

// pinState pins the newest checkpoint.
func (m *trial) pinState(ctx context.Context, cluster *lab.Cluster) pinnedState {
	m.Helper()
	p := m.pin(ctx, exitDone, cluster)
	require.Equal(m, "pinned", p.Result)
	return m.known(ctx, cluster, p)
}

// known adds what the job and the pin say about a pin.
func (m *trial) known(ctx context.Context, cluster *lab.Cluster, p pinned) pinnedState {
	m.Helper()
	return pinnedState{p, m.heldAt(cluster, p.CheckpointID), role(metadata.InputChannel, metadata.OutputChannel)(m.metadata(ctx)) == ""}
}

// pinSavepoint pins a savepoint that was taken while the job runs. Often a checkpoint completes before the tick.
func (m *trial) pinSavepoint(ctx context.Context, cluster *lab.Cluster, format string) pinnedState {
	m.Helper()
	if strings.HasPrefix(m.cell.Release, "1.13.") || strings.HasPrefix(m.cell.Release, "1.14.") {
		format = ""
	}
	for {
		_, err := cluster.Savepoint(ctx, m.root.Join("savepoints").String(), strings.ToUpper(format))
		require.NoError(m, err)
		p := m.pin(ctx, exitDone, cluster, "--include-savepoints")
		if strings.Contains(p.Source, "/savepoint-") && p.Result == "pinned" {
			return m.known(ctx, cluster, p)
		}
	}
}

// stop has chkpin stop the job with a savepoint and pin that.
func (m *trial) stop(ctx context.Context, cluster *lab.Cluster, jobID, format string) pinnedState {
	m.Helper()
	args := []string{"stop", m.app.String(), cluster.URL, "--target", m.root.Join("savepoints").String(), "--output", "json"}
	if format != "" {
		args = append(args, "--format", format)
	}
	p := m.pinned(m.chkpin(ctx, exitDone, args...))
	require.Equal(m, "pinned", p.Result)
	require.Equal(m, jobID, p.JobID)
	_, err := cluster.WaitEnd(ctx)
	require.NoError(m, err)
	return m.known(ctx, cluster, p)
}

// metadata is what is published.
func (m *trial) metadata(ctx context.Context) *metadata.File {
	m.Helper()
	content, _, err := blobstore.ReadAll(ctx, m.store, m.app.Join("last-state", "_metadata"), 0)
	require.NoError(m, err)
	file, err := metadata.Parse(content)
	require.NoError(m, err)
	return file
}

// end cancels the run and deletes all that Flink wrote.
func (m *trial) end(ctx context.Context, cluster *lab.Cluster, jobID string) {
	m.Helper()
	require.NoError(m, cluster.Cancel(ctx))
	cluster.Stop()
	require.NotEmpty(m, m.filesOf(ctx, jobID), "Flink has kept nothing, so there is nothing to lose")
	m.deleteFlinks(ctx)
}

// deleteFlinks deletes all that is not chkpin's, and has chkpin prove what is left.
func (m *trial) deleteFlinks(ctx context.Context) {
	m.Helper()
	ours, record := m.app.Join("last-state"), m.app.Join("chkpin.json")
	for _, file := range m.files(ctx, m.root) {
		if !file.Within(ours) && !file.Same(record) {
			require.NoError(m, m.store.Delete(ctx, file))
		}
	}
	m.verify(ctx)
}

// restart starts a job from the pin, in the cell's way.
func (m *trial) restart(ctx context.Context) *lab.Cluster {
	m.Helper()
	if !m.way.session {
		args := m.resolve(ctx)
		return m.startAs(func(o *lab.Options) {
			o.EntryArgs = slices.Concat(m.entry, args)
			if m.way.parallelism != 0 {
				o.Conf["parallelism.default"] = strconv.Itoa(m.way.parallelism)
				o.Conf["taskmanager.numberOfTaskSlots"] = "3"
			}
		})
	}
	cluster := m.startAs(func(o *lab.Options) { o.Job = lab.Job{} })
	require.NoError(m, cluster.WaitReady(ctx))
	switch {
	case m.way.rest:
		require.NoError(m, cluster.Run(ctx, m.job(), m.pinPath(), m.way.mode))
	case m.way.mode == "LEGACY":
		require.NoError(m, cluster.Submit(ctx, m.job(), "-s", m.pinPath(), m.modeOption(), m.way.mode))
	default:
		args := m.chkpin(ctx, exitDone, "resolve", m.app.String(), "--format", "flink-run", "--flink-version", m.story.cell.release)
		require.Equal(m, m.way.mode, strings.ToUpper(modeIn(args)), args)
		require.NoError(m, cluster.Submit(ctx, m.job(), strings.Fields(args)...))
	}
	return cluster
}

// modeOption is what flink run calls the claim mode.
func (m *trial) modeOption() string {
	if strings.HasPrefix(m.story.cell.release, "1.1") {
		return "-restoreMode"
	}
	return "-claimMode"
}

// modeIn is the claim mode among options of flink run, "" for none.
func modeIn(args string) string {
	words := strings.Fields(args)
	for i, word := range words {
		if word == "-claimMode" || word == "-restoreMode" {
			return words[i+1]
		}
	}
	return ""
}

// requireWitness requires that in application mode the JobManager's configuration names the pin, by whatever name the
// release has for that: a failover hides from the statistics what the job started from.
func (m *trial) requireWitness(ctx context.Context, cluster *lab.Cluster) {
	m.Helper()
	if m.way.session {
		return
	}
	conf, err := cluster.Configuration(ctx)
	require.NoError(m, err)
	require.Equal(m, "embedded", conf["execution.target"])
	require.Equal(m, m.pinPath(), cmp.Or(conf["execution.state-recovery.path"], conf["execution.savepoint.path"]))
}

// requireFound requires that the job has found exactly what is pinned.
func (m *trial) requireFound(ctx context.Context, cluster *lab.Cluster, p pinnedState) {
	m.Helper()
	m.requireRestoredAs(ctx, cluster, m.restoreOf(p))
}

// restores requires that a job started from the pin finds what was pinned, and ends it.
func (m *trial) restores(ctx context.Context, p pinnedState) {
	m.Helper()
	cluster := m.restart(ctx)
	m.requireFound(ctx, cluster, p)
	require.NoError(m, cluster.Cancel(ctx))
	cluster.Stop()
}

func (m *trial) restoreOf(p pinnedState) job.Restore {
	return job.Restore{
		Checkpoint: p.CheckpointID, Held: p.held, Options: m.options, Parallelism: m.way.parallelism, InFlight: p.inFlight,
	}
}
