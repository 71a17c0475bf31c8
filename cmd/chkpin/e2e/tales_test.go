//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint/metadata"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/job"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/lab"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/matrix"
)

// tales are the ways to restore that are a story of their own.
var tales = map[string]func(*trial) (matrix.Outcome, string){
	"claim":                 (*trial).isClaimed,
	"claim-of-a-copy":       (*trial).lendsACopy,
	"generations":           (*trial).livesForGenerations,
	"legacy-generations":    (*trial).livesForGenerationsInLegacy,
	"failover":              (*trial).bearsAFailover,
	"constant-id":           (*trial).bearsAConstantID,
	"constant-id-collision": (*trial).bearsACollision,
	"changelog-off":         (*trial).losesItsChangelog,
}

// theID is what all runs of a job have that is started with a constant id.
const theID = "0123456789abcdef0123456789abcdef"

// isTooNew: an older release does not read what is pinned. chkpin says so before, and Flink when it tries.
func (m *trial) isTooNew(release string) (matrix.Outcome, string) {
	var why string
	m.step("run, pin", func(ctx context.Context) string {
		m.runAndPin(ctx)
		return "pinned"
	})
	m.step("go back", func(ctx context.Context) string {
		_, log := m.chkpinLogged(ctx, exitDone, "resolve", m.app.String(), "--flink-version", release)
		require.Regexp(m, `level=WARN .*downgrade: .*not by `+regexp.QuoteMeta(minor(release)), log, "chkpin's warning")
		m.useRelease(ctx, release)
		cluster := m.restart(ctx)
		exitCode, err := cluster.WaitEnd(ctx)
		require.NoError(m, err)
		require.NotZero(m, exitCode)
		why = m.cause(cluster, "Unrecognized checkpoint version number", "Reading invalid KeyedStateHandle")
		m.verify(ctx)
		return "warned, does not start"
	})
	return matrix.No, "chkpin resolve --flink-version warns; Flink: " + why
}

// minor is a release without its patch number.
func minor(release string) string { return release[:strings.LastIndex(release, ".")] }

// cause is what Flink's log says of a failure: the first line with one of the texts, from there on.
func (m *trial) cause(cluster *lab.Cluster, texts ...string) string {
	m.Helper()
	for _, text := range texts {
		lines, err := cluster.Lines(text)
		require.NoError(m, err)
		if len(lines) > 0 {
			return lines[0][strings.Index(lines[0], text):]
		}
	}
	require.Fail(m, "Flink's log does not say why", "%q", texts)
	return ""
}

// restoredInClaim starts the job on a session cluster that claims what it is given.
func (m *trial) restoredInClaim(ctx context.Context, pointer string) *lab.Cluster {
	m.Helper()
	m.way = way{session: true, rest: true, mode: "CLAIM"}
	cluster := m.startAs(func(o *lab.Options) { o.Job = lab.Job{} })
	require.NoError(m, cluster.WaitReady(ctx))
	require.NoError(m, cluster.Run(ctx, m.job(), pointer, "CLAIM"))
	return cluster
}

// isClaimed: a job that claims the pin restores, and deletes it. The next tick makes a whole one.
func (m *trial) isClaimed() (matrix.Outcome, string) {
	var first, second, third pinnedState
	var gone, total int
	var older string
	m.step("run, pin twice", func(ctx context.Context) string {
		cluster := m.start()
		m.waitFilled(ctx, cluster)
		first = m.pinState(ctx, cluster)
		_, err := cluster.WaitCheckpoints(ctx, 2)
		require.NoError(m, err)
		second = m.pinState(ctx, cluster)
		m.end(ctx, cluster, second.JobID)
		return "pinned"
	})
	m.step("claim the pin, then tick", func(ctx context.Context) string {
		named := m.filesOfThePin(m.metadata(ctx))
		cluster := m.restoredInClaim(ctx, m.pinPath())
		m.requireFound(ctx, cluster, second)
		_, err := cluster.WaitCheckpoints(ctx, 2)
		require.NoError(m, err)

		var left []string // by name: Flink is still deleting
		for _, file := range m.files(ctx, m.app.Join("last-state")) {
			name, _ := file.Rel(m.app.Join("last-state"))
			left = append(left, name)
		}
		require.NotContains(m, left, "_metadata", "CLAIM deletes what it is given")
		total = len(named)
		for _, file := range named {
			if !slices.Contains(left, file) {
				gone++
			}
		}
		_, err = cluster.WaitCheckpoints(ctx, 2)
		require.NoError(m, err)
		third = m.pinState(ctx, cluster)
		require.Contains(m, strings.Join(third.Warnings, "\n"), "_metadata was missing or damaged", "chkpin's warning")
		m.end(ctx, cluster, third.JobID)
		return "deleted; pinned anew"
	})
	m.step("restore from the new pin, and from the oldest generation", func(ctx context.Context) string {
		m.way = way{}
		m.restores(ctx, third)

		generation := m.app.Join("last-state", "generations", first.Generation)
		older = "is gone with it"
		for _, one := range m.list(ctx, m.app.Join("last-state")) {
			if one.CheckpointID == first.CheckpointID {
				cluster := m.start("--fromSavepoint", generation.Join("_metadata").String())
				m.requireFound(ctx, cluster, first)
				require.NoError(m, cluster.Cancel(ctx))
				cluster.Stop()
				older = "still restores"
			}
		}
		return "restored; the older generation " + older
	})
	return matrix.No, fmt.Sprintf("it restores, but CLAIM deletes the pin: _metadata and %d of its %d state files were gone; the next tick warned and pinned a whole one, which restored; the generation before %s. Claim a copy",
		gone, total, older)
}

// filesOfThePin are the files below last-state that a checkpoint names, relative to it.
func (m *trial) filesOfThePin(checkpoint *metadata.File) (names []string) {
	m.Helper()
	for h := range checkpoint.Handles() {
		if h.Kind != metadata.AbsoluteFile && h.Kind != metadata.Segment {
			continue
		}
		path, err := h.Path()
		require.NoError(m, err)
		file, err := blobstore.Parse(path)
		require.NoError(m, err)
		if name, below := file.Rel(m.app.Join("last-state")); below && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// lendsACopy: who must claim gets a copy, and the pin stays as it was.
func (m *trial) lendsACopy() (matrix.Outcome, string) {
	var first, second pinnedState
	m.step("run, pin", func(ctx context.Context) string {
		first = m.runAndPin(ctx)
		return "pinned"
	})
	m.step("claim a copy, pin again", func(ctx context.Context) string {
		lent := m.root.Join("lent")
		m.copy(ctx, m.app.Join("last-state").String(), lent.String())
		before := m.lastState(ctx)
		cluster := m.restoredInClaim(ctx, lent.Join("_metadata").String())
		m.requireFound(ctx, cluster, first)
		_, err := cluster.WaitCheckpoints(ctx, 3)
		require.NoError(m, err)
		require.Equal(m, before, m.lastState(ctx), "the pin is not what was claimed")
		_, err = m.store.Stat(ctx, lent.Join("_metadata"))
		require.ErrorIs(m, err, blobstore.ErrNotExist, "CLAIM deletes what it is given")

		p := m.pin(ctx, exitDone, cluster, "--accept-lineage")
		require.Equal(m, "pinned", p.Result)
		second = m.known(ctx, cluster, p)
		m.end(ctx, cluster, second.JobID)
		return "claimed the copy, pinned"
	})
	m.step("restore again, from another copy", func(ctx context.Context) string {
		lent := m.root.Join("lent-again")
		m.copy(ctx, m.app.Join("last-state").String(), lent.String())
		cluster := m.restoredInClaim(ctx, lent.Join("_metadata").String())
		m.requireFound(ctx, cluster, second)
		_, err := cluster.WaitCheckpoints(ctx, 2)
		require.NoError(m, err)
		require.NoError(m, cluster.Cancel(ctx))
		cluster.Stop()
		return "restored"
	})
	return matrix.Yes, fmt.Sprintf("chk-%d, %d files, by chkpin copy to a folder whose _metadata CLAIM then deleted, and the pin stayed as it was; pinned chk-%d with --accept-lineage, restored from another copy",
		first.CheckpointID, first.Copied, second.CheckpointID)
}

// livesForGenerations: jobs of releases without NO_CLAIM go on using files of the pin that they restored, for
// generations, and a collection leaves what is needed.
func (m *trial) livesForGenerations() (matrix.Outcome, string) { return m.generations(way{}) }

// livesForGenerationsInLegacy: so do jobs in LEGACY mode.
func (m *trial) livesForGenerationsInLegacy() (matrix.Outcome, string) {
	return m.generations(way{session: true, rest: true, mode: "LEGACY"})
}

func (m *trial) generations(w way) (matrix.Outcome, string) {
	const rounds = 4
	var last pinnedState
	var borrowed []string
	everBorrowed, collected := 0, 0
	m.step("run, pin", func(ctx context.Context) string {
		last = m.runAndPin(ctx)
		return "pinned"
	})
	m.way = w
	for round := range rounds {
		m.step("restore, pin twice, collect", func(ctx context.Context) string {
			cluster := m.restart(ctx)
			m.requireFound(ctx, cluster, last)
			for range 2 {
				_, err := cluster.WaitCheckpoints(ctx, 2)
				require.NoError(m, err)
				last = m.pinState(ctx, cluster)
			}
			files := m.borrowed(ctx, cluster)
			borrowed, everBorrowed = append(borrowed, fmt.Sprint(files)), everBorrowed+files

			// While the job runs, and so fast that only what it still names is a reason to keep a file.
			deleted := m.collect(ctx)
			collected += deleted
			_, err := cluster.WaitCheckpoints(ctx, 2)
			require.NoError(m, err)
			last = m.pinState(ctx, cluster)
			m.end(ctx, cluster, last.JobID)
			return fmt.Sprintf("round %d: restored, pinned, collected %d", round+1, deleted)
		})
	}
	require.NotZero(m, collected, "objects that gc has deleted")
	if _, merges := m.state.conf["execution.checkpointing.file-merging.enabled"]; merges {
		require.Zero(m, everBorrowed, "a job that merges files writes those of the pin anew")
	} else {
		require.NotZero(m, everBorrowed, "files of the pin that the job's own checkpoints named")
	}
	return matrix.Yes, fmt.Sprintf("%d rounds; files of the pin that the job's own checkpoints named in each: %s; gc deleted %d objects on the way",
		rounds, strings.Join(borrowed, ", "), collected)
}

// collect has chkpin collect garbage, and returns how many objects it has deleted. Youth is no reason to keep one.
func (m *trial) collect(ctx context.Context) (deleted int) {
	m.Helper()
	var swept struct{ Deleted int }
	stdout := m.chkpin(ctx, exitDone, "gc", m.app.String(), "--keep", "2", "--grace", "1ms", "--yes", "--output", "json")
	require.NoError(m, json.Unmarshal([]byte(stdout), &swept), stdout)
	return swept.Deleted
}

// borrowed is how many files of the pin the newest checkpoint of the job names.
func (m *trial) borrowed(ctx context.Context, cluster *lab.Cluster) int {
	m.Helper()
	for {
		newest, err := cluster.WaitCheckpoints(ctx, 1)
		require.NoError(m, err)
		folder, err := blobstore.Parse(newest.Path)
		require.NoError(m, err)
		content, _, err := blobstore.ReadAll(ctx, m.store, folder.Join("_metadata"), 0)
		if errors.Is(err, blobstore.ErrNotExist) {
			continue // subsumed meanwhile
		}
		require.NoError(m, err)
		file, err := metadata.Parse(content)
		require.NoError(m, err)
		return len(m.filesOfThePin(file))
	}
}

// restarting lets the job start again after a failure, as it does by default.
var restarting = map[string]string{
	"restart-strategy":                                     "",
	"restart-strategy.type":                                "",
	"restart-strategy.fixed-delay.attempts":                "50",
	"restart-strategy.fixed-delay.delay":                   "500 ms",
	"execution.checkpointing.tolerable-failed-checkpoints": "0",
}

// bearsAFailover: a TaskManager dies before the restored job has a checkpoint of its own, after a newer pin was
// published in the place that it was started from, and after a collection. It recovers from what it was started from.
func (m *trial) bearsAFailover() (matrix.Outcome, string) {
	var first, last pinnedState
	var deleted int
	m.step("run, pin four times, go back to the first", func(ctx context.Context) string {
		cluster := m.start()
		m.waitFilled(ctx, cluster)
		first = m.pinState(ctx, cluster)
		for range 3 {
			_, err := cluster.WaitCheckpoints(ctx, 2)
			require.NoError(m, err)
			last = m.pinState(ctx, cluster)
		}
		m.end(ctx, cluster, last.JobID)
		m.chkpin(ctx, exitDone, "rollback", m.app.String(), first.Generation)
		return "pinned, rolled back"
	})
	m.step("restore, publish, collect, kill the TaskManager", func(ctx context.Context) string {
		args := m.resolve(ctx)
		cluster := m.startAs(func(o *lab.Options) {
			o.EntryArgs = args
			o.Conf = union(o.Conf, restarting)
			// Releases differ in whether the first checkpoint comes after an interval or at once; a pause holds it back too.
			o.Interval = time.Hour
			o.Conf["execution.checkpointing.min-pause"] = "1 h"
		})
		_, err := cluster.WaitRunning(ctx)
		require.NoError(m, err)
		m.requireFirstFound(cluster, first)
		m.chkpin(ctx, exitNothing, "pin", m.app.String(), cluster.URL) // sees who runs, and that nothing is complete

		m.chkpin(ctx, exitDone, "rollback", m.app.String(), last.Generation)
		deleted = m.collect(ctx)
		require.NotZero(m, deleted, "objects that gc has deleted")

		require.NoError(m, cluster.ReplaceTaskManager())
		require.NoError(m, cluster.WaitLines(ctx, "LEDGER-RESTORED", 2))
		for m.report(cluster).Attempts < 2 || !m.report(cluster).Settled(m.restoreOf(first)) {
			// The job reports what it has found at each. One fails that comes while the job starts again.
			if _, err := cluster.Savepoint(ctx, m.root.Join("savepoints").String(), ""); err != nil {
				require.NoError(m, ctx.Err(), "%v", err)
			}
		}
		require.NoError(m, m.report(cluster).Check(m.restoreOf(first)))
		require.NoError(m, cluster.Cancel(ctx))
		cluster.Stop()
		return "recovered"
	})
	m.step("restore what was published meanwhile", func(ctx context.Context) string {
		m.deleteFlinks(ctx)
		m.restores(ctx, last)
		return "restored"
	})
	return matrix.Yes, fmt.Sprintf("restored chk-%d; chk-%d was published and gc deleted %d objects; with a new TaskManager it restored chk-%d again; chk-%d restores, too",
		first.CheckpointID, last.CheckpointID, deleted, first.CheckpointID, last.CheckpointID)
}

// bearsAConstantID: all runs of the job have one id, and so one checkpoint folder.
func (m *trial) bearsAConstantID() (matrix.Outcome, string) {
	m.entry = []string{"--job-id", theID}
	return m.survives()
}

// bearsACollision: with a constant id, a job that restores an older checkpoint comes to the number of one that an earlier
// run has left in the folder.
func (m *trial) bearsACollision() (matrix.Outcome, string) {
	m.entry = []string{"--job-id", theID}
	var first, second pinnedState
	var inTheWay int64
	var seen string
	m.step("run, pin, run on", func(ctx context.Context) string {
		cluster := m.start(m.entry...)
		m.waitFilled(ctx, cluster)
		first = m.pinState(ctx, cluster)
		for {
			latest, err := cluster.WaitCheckpoints(ctx, 1)
			require.NoError(m, err)
			if latest.ID >= first.CheckpointID+8 {
				break
			}
		}
		require.NoError(m, cluster.Cancel(ctx))
		cluster.Stop()
		inTheWay = m.keptCheckpoint(ctx, theID).ID
		return "pinned"
	})
	m.step("restore, come to the number, pin", func(ctx context.Context) string {
		before, args := m.lastState(ctx), m.resolve(ctx)
		cluster := m.startAs(func(o *lab.Options) {
			o.EntryArgs = slices.Concat(m.entry, args)
			o.Conf = union(o.Conf, restarting)
		})
		for {
			latest, err := cluster.WaitCheckpoints(ctx, 1)
			require.NoError(m, err, "waiting for a checkpoint after chk-%d", inTheWay)
			if latest.ID > inTheWay+1 {
				break
			}
		}
		m.requireFirstFound(cluster, first)
		require.Equal(m, before, m.lastState(ctx), "Flink changed the pin it started from")
		refused, err := cluster.Lines("already exists")
		require.NoError(m, err)
		refused = slices.DeleteFunc(refused, func(line string) bool {
			return !strings.Contains(line, fmt.Sprintf("/chk-%d/_metadata", inTheWay))
		})
		switch starts := m.report(cluster).Attempts; {
		case starts > 1:
			require.NotEmpty(m, refused, "why it failed over")
			seen = fmt.Sprintf("Target file already exists, and the job failed over %d times", starts-1)
		case len(refused) > 0:
			seen = "Target file already exists, that checkpoint failed, and the job ran on"
		default:
			seen = "Flink wrote over it"
		}
		second = m.pinState(ctx, cluster)
		m.end(ctx, cluster, theID)
		return "pinned"
	})
	m.step("restore again", func(ctx context.Context) string {
		m.restores(ctx, second)
		return "restored"
	})
	return matrix.Yes, fmt.Sprintf("chk-%d restored while chk-%d of the run before was in the folder: %s. The pin was not touched; chk-%d restored",
		first.CheckpointID, inTheWay, seen, second.CheckpointID)
}

// requireFirstFound requires that the job began with the operator state of a pin, whatever it has restored since: the report
// is about the last attempt, which after a failover has restored a checkpoint of its own.
func (m *trial) requireFirstFound(cluster *lab.Cluster, p pinnedState) {
	m.Helper()
	lines, err := cluster.Lines(job.Mark)
	require.NoError(m, err)
	began, err := job.Parse(slices.DeleteFunc(lines, func(line string) bool { return !strings.Contains(line, " attempt=0") }))
	require.NoError(m, err)
	require.Zero(m, began.Empty, "operator subtasks that started without state")
	require.Equal(m, []int64{p.CheckpointID}, began.From, "the checkpoint that was restored first")
	require.Equal(m, p.held, began.Share, "what its list state held")
}

// isNotThereYet: a complete checkpoint names files that Flink still writes to, and in an object store such a file is not
// there. chkpin says so and pins nothing; a savepoint it pins.
func (m *trial) isNotThereYet() (matrix.Outcome, string) {
	var missing string
	var stopped pinnedState
	m.step("run, fail to pin, stop", func(ctx context.Context) string {
		// With one a second, its _metadata may be gone as well when the tick gives up.
		cluster := m.startAs(func(o *lab.Options) { o.Interval = 5 * time.Second })
		m.waitFilled(ctx, cluster)
		_, log := m.chkpinLogged(ctx, exitDamaged, "pin", m.app.String(), cluster.URL)
		require.Contains(m, log, "across-checkpoint-boundary", "the hint")
		require.Empty(m, m.files(ctx, m.app.Join("last-state", "generations")), "what is pinned")
		_, missing, _ = strings.Cut(log, "does not restore: ")
		missing, _, _ = strings.Cut(missing, ":")

		running, err := cluster.Job(ctx)
		require.NoError(m, err)
		stopped = m.stop(ctx, cluster, running.ID, "")
		m.deleteFlinks(ctx)
		return missing
	})
	m.step("restore the savepoint", func(ctx context.Context) string {
		m.restores(ctx, stopped)
		return "restored"
	})
	return matrix.No, fmt.Sprintf("chkpin pin refuses, with a hint: of a checkpoint that Flink calls complete %s, for Flink has not closed them; the savepoint of chkpin stop was pinned, and restored. Merge within checkpoints only",
		missing)
}

// failsAtItsFirstCheckpoint: what a job with a changelog needs for NO_CLAIM, its state backend cannot do. chkpin says so.
func (m *trial) failsAtItsFirstCheckpoint() (matrix.Outcome, string) {
	var why string
	m.step("run, pin", func(ctx context.Context) string {
		p := m.runAndPin(ctx)
		if m.state.source == "" { // in a savepoint there is no changelog any more
			require.Contains(m, strings.Join(p.Warnings, "\n"), "changelog", "chkpin's warning")
		}
		return "pinned"
	})
	m.step("restore", func(ctx context.Context) string {
		_, log := m.chkpinLogged(ctx, exitDone, "resolve", m.app.String(), "--flink-conf", m.latest.ConfDir)
		require.Contains(m, log, "changelog", "chkpin's warning")
		cluster := m.restart(ctx)
		exitCode, err := cluster.WaitEnd(ctx)
		require.NoError(m, err)
		require.NotZero(m, exitCode)
		why = m.cause(cluster, "does not support enforcing a full snapshot")
		m.verify(ctx)
		return "does not go on"
	})
	return matrix.No, "chkpin warns; at the first checkpoint after the restore Flink says that its backend " + why + " Turn the changelog off, or claim a copy"
}

// losesItsChangelog: a job that is configured without a changelog restores what one with a changelog has left.
func (m *trial) losesItsChangelog() (matrix.Outcome, string) {
	var first, second pinnedState
	m.step("run, pin", func(ctx context.Context) string {
		first = m.runAndPin(ctx)
		return "pinned"
	})
	m.state.conf = nil
	m.step("restore without a changelog, pin", func(ctx context.Context) string {
		before := m.lastState(ctx)
		cluster := m.restart(ctx)
		m.requireFound(ctx, cluster, first)
		_, err := cluster.WaitCheckpoints(ctx, 2)
		require.NoError(m, err)
		require.Equal(m, before, m.lastState(ctx), "Flink changed the pin it started from")
		second = m.pinState(ctx, cluster)
		require.NotEmpty(m, hasChangelog(m.metadata(ctx)), "what is pinned has a changelog still")
		m.end(ctx, cluster, second.JobID)
		return "restored, pinned"
	})
	m.step("restore again", func(ctx context.Context) string {
		m.restores(ctx, second)
		return "restored"
	})
	return matrix.Yes, fmt.Sprintf("%s, of a job with a changelog, restored with state.changelog.enabled off; then chk-%d, without one", m.nameOf(first), second.CheckpointID)
}
