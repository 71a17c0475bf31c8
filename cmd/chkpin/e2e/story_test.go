//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/job"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/lab"
)

// stepTimeout bounds each step. Steps take seconds; a cluster on a loaded machine was seen to take a minute, and ten ticks
// beside another poller take as many waits.
const stepTimeout = 8 * time.Minute

// jobManagerTimeout is how long chkpin waits for an answer of a JobManager that shares two cores with all else.
const jobManagerTimeout = "1m"

// A story is what happens to one application in one cell: one place for all its runs, and one cluster after the
// other.
type story struct {
	*testing.T
	place
	cell   cell
	lab    lab.Lab
	binary string // chkpin
	table  *table
	beside []place // where chkpin has to reach as well

	flink   lab.Distribution
	plugins string
	jar     string
	options job.Options        // what the job is started with
	base    func(*lab.Options) // what all clusters of the story have
	dir     string             // the clusters' own folders
	runs    int
	failure string // the first, in one line

	latest *lab.Cluster
}

// newStory makes the empty place and fetches what the cell needs.
func newStory(t *testing.T, l lab.Lab, c cell, chkpin string, table *table) *story {
	s := emptyStory(t, l, c, chkpin, table)
	s.fetch()
	return s
}

// emptyStory makes the empty place.
func emptyStory(t *testing.T, l lab.Lab, c cell, chkpin string, table *table) *story {
	dir := t.TempDir()
	s := &story{T: t, place: newPlace(t, c.storage, dir), cell: c, lab: l, binary: chkpin, table: table, dir: dir, options: job.InFiles()}
	t.Cleanup(s.explain)
	return s
}

// fetch fetches what the cell needs.
func (s *story) fetch() {
	s.Helper()
	s.step("fetch Flink, compile the job", func(ctx context.Context) string {
		s.useRelease(ctx, s.cell.release)
		return "ready"
	})
}

// useRelease goes on with a release of Flink.
func (s *story) useRelease(ctx context.Context, release string) {
	s.Helper()
	var err error
	s.cell.release = release
	s.flink, err = s.lab.Distribution(ctx, release)
	require.NoError(s, err)
	s.jar, err = s.lab.Compile(ctx, s.flink, job.Class, job.Source())
	require.NoError(s, err)
	s.fetchPlugin(ctx)
}

// fetchPlugin fetches what the clusters need to reach the story's place.
func (s *story) fetchPlugin(ctx context.Context) {
	s.Helper()
	if s.plugin == "" {
		return
	}
	var err error
	s.plugins, err = s.lab.Plugin(ctx, s.plugin, s.cell.pluginVersion(s.place.storage))
	require.NoError(s, err)
}

// Errorf is what the assertions call. It keeps the first failure for the tables.
func (s *story) Errorf(format string, args ...any) {
	s.Helper()
	if text := fmt.Sprintf(format, args...); s.failure == "" {
		s.failure = oneLine(text)
	}
	s.T.Errorf(format, args...)
}

// oneLine is what an assertion says, without where it stands.
func oneLine(text string) string {
	const atMost = 400
	_, text, _ = strings.Cut(text, "Error:")
	text, messages, _ := strings.Cut(text, "Messages:")
	text, _, _ = strings.Cut(text, "Test:")
	line := strings.Join(strings.Fields(messages+" "+text), " ")
	return strings.ToValidUTF8(line[:min(len(line), atMost)], "")
}

// step runs a part of the story and puts it into the table: what do says became of it, or that it failed.
func (s *story) step(name string, do func(ctx context.Context) string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), stepTimeout)
	defer cancel()
	outcome, began := "", time.Now()
	defer func() {
		if s.Failed() { // also by a call that ends the test
			outcome = "FAILED: " + s.failure
		}
		s.table.add(s.cell.String(), name, outcome, time.Since(began))
	}()
	outcome = do(ctx)
}

// start starts a cluster on the application. entryArgs stand where chkpin resolve says they belong: before the
// first argument of the job.
func (s *story) start(entryArgs ...string) *lab.Cluster {
	s.Helper()
	return s.startAs(func(o *lab.Options) { o.EntryArgs = entryArgs })
}

// startAs starts a cluster on the application in another way than usual.
func (s *story) startAs(change func(*lab.Options)) *lab.Cluster {
	s.Helper()
	s.runs++
	options := lab.Options{
		Distribution: s.flink,
		Dir:          filepath.Join(s.dir, fmt.Sprintf("run-%d", s.runs)),
		Job:          s.job(),
		Checkpoints:  s.checkpoints,
		Backend:      s.cell.backend,
		Incremental:  s.cell.backend == "rocksdb",
		Interval:     time.Second,
		Conf:         maps.Clone(s.conf),
		Plugins:      s.plugins,
	}
	if s.base != nil {
		s.base(&options)
	}
	change(&options)
	cluster, err := s.lab.Start(options)
	require.NoError(s, err)
	s.latest = cluster
	s.Cleanup(cluster.Stop)
	return cluster
}

func (s *story) job() lab.Job { return lab.Job{Jar: s.jar, Class: job.Class, Args: s.options.Args()} }

// explain shows the end of what the latest cluster logged, if the story failed.
func (s *story) explain() {
	if !s.Failed() || s.latest == nil {
		return
	}
	const atMost = 12
	for _, text := range []string{job.Mark, "Exception"} {
		lines, err := s.latest.Lines(text)
		if err != nil {
			lines = []string{err.Error()}
		}
		s.Logf("run %d, log lines with %q:\n%s", s.runs, text, strings.Join(lines[max(0, len(lines)-atMost):], "\n"))
	}
}

// cancelAndDelete ends the run the way that costs people their state: cancelled, and all its files gone.
func (s *story) cancelAndDelete(ctx context.Context, cluster *lab.Cluster) {
	s.Helper()
	s.delete(ctx, s.filesOf(ctx, s.cancel(ctx, cluster)))
}

// cancel ends the run, which keeps its last checkpoint.
func (s *story) cancel(ctx context.Context, cluster *lab.Cluster) (jobID string) {
	s.Helper()
	running, err := cluster.Job(ctx)
	require.NoError(s, err)
	require.NoError(s, cluster.Cancel(ctx))
	return running.ID
}

// report reads what the job has logged so far.
func (s *story) report(cluster *lab.Cluster) job.Report {
	s.Helper()
	lines, err := cluster.Lines(job.Mark)
	require.NoError(s, err)
	report, err := job.Parse(lines)
	require.NoError(s, err)
	return report
}

// waitFilled waits until the job runs and a completed checkpoint holds all its keys, and what is to finish has finished.
func (s *story) waitFilled(ctx context.Context, cluster *lab.Cluster) {
	s.Helper()
	_, err := cluster.WaitRunning(ctx)
	require.NoError(s, err)
	for {
		latest, err := cluster.WaitCheckpoints(ctx, 1)
		require.NoError(s, err)
		if s.report(cluster).Checkpoints[latest.ID].Held.Keys == s.options.Keys {
			break
		}
	}
	if !s.options.Finishing {
		return
	}
	for {
		running, err := cluster.Job(ctx)
		require.NoError(s, err)
		// The next checkpoint may have been under way already, the one after it was not.
		require.NoError(s, cluster.WaitLines(ctx, "Completed checkpoint", 2), "%+v", running)
		if running.Tasks.Finished == job.FinishedTasks {
			return
		}
	}
}

// heldAt returns what the job's ledger held at a checkpoint. By then the job must have met all its keys: only so
// is a key without state a loss when it is met after a restore.
func (s *story) heldAt(cluster *lab.Cluster, checkpoint int64) job.Tally {
	s.Helper()
	report := s.report(cluster)
	snapshot := report.Checkpoints[checkpoint]
	require.Equal(s, report.Parallelism, snapshot.Subtasks, "ledger subtasks that logged checkpoint %d", checkpoint)
	require.Equal(s, s.options.Keys, snapshot.Held.Keys, "keys at checkpoint %d", checkpoint)
	return snapshot.Held
}

// requireRestored waits until the job runs and has met every key, and requires that it found exactly what the
// earlier run held at the checkpoint.
func (s *story) requireRestored(ctx context.Context, cluster *lab.Cluster, checkpoint int64, held job.Tally) {
	s.Helper()
	s.requireRestoredAs(ctx, cluster, job.Restore{Checkpoint: checkpoint, Held: held, Options: s.options})
}

// requireRestoredAs does that for any restore.
func (s *story) requireRestoredAs(ctx context.Context, cluster *lab.Cluster, want job.Restore) {
	s.Helper()
	_, err := cluster.WaitRunning(ctx)
	require.NoError(s, err)
	report := s.report(cluster)
	for !report.Settled(want) {
		_, err := cluster.WaitCheckpoints(ctx, 1)
		require.NoError(s, err, "waiting until the job has met all keys, timers and what was in flight; so far: %v", report.Check(want))
		report = s.report(cluster)
	}
	require.NoError(s, report.Check(want), "the restored state is not that of checkpoint %d", want.Checkpoint)
}

// copyMetadataAlone does what the popular script does: it copies the newest checkpoint's _metadata, and nothing
// else, to a constant place. It returns the pointer to start from.
func (s *story) copyMetadataAlone(ctx context.Context, cluster *lab.Cluster) (pointer blobstore.URI) {
	s.Helper()
	pointer = s.root.Join("metadata-alone", "_metadata")
	for {
		latest, err := cluster.WaitCheckpoints(ctx, 1)
		require.NoError(s, err)
		folder, err := blobstore.Parse(latest.Path)
		require.NoError(s, err)
		metadata, _, err := blobstore.ReadAll(ctx, s.store, folder.Join("_metadata"), 0)
		if errors.Is(err, blobstore.ErrNotExist) {
			continue // subsumed meanwhile
		}
		require.NoError(s, err)
		s.write(ctx, pointer, metadata)
		return pointer
	}
}

// waitSubsumed waits, for as long as the job runs, until Flink has deleted a checkpoint.
func (s *story) waitSubsumed(ctx context.Context, cluster *lab.Cluster, checkpoint pinned) {
	s.Helper()
	folder := fmt.Sprintf("chk-%d", checkpoint.CheckpointID)
	for len(s.filesOf(ctx, checkpoint.JobID, folder)) > 0 {
		_, err := cluster.WaitCheckpoints(ctx, 1)
		require.NoError(s, err, "waiting for Flink to delete %s", folder)
	}
}

// waitStale waits until the JobManager names a checkpoint after the given one that is gone already.
func (s *story) waitStale(ctx context.Context, cluster *lab.Cluster, after int64) {
	s.Helper()
	for {
		// It logs a checkpoint when it completes, and deletes the one before.
		require.NoError(s, cluster.WaitLines(ctx, "Completed checkpoint", 1))
		named, err := cluster.WaitCheckpoints(ctx, 0)
		require.NoError(s, err)
		folder, err := blobstore.Parse(named.Path)
		require.NoError(s, err)
		if named.ID > after && len(s.files(ctx, folder)) == 0 {
			return
		}
	}
}

// The exit codes of chkpin that the stories meet.
const (
	exitDone    = 0
	exitFailed  = 1
	exitDamaged = 4
	exitHeld    = 7
)

// buildChkpin builds the binary under test.
func buildChkpin(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "chkpin")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "github.com/chkpin/chkpin/cmd/chkpin")
	output, err := build.CombinedOutput()
	require.NoError(t, err, "%s", output)
	return binary
}

// chkpin runs the binary under test and returns what it prints on stdout.
func (s *story) chkpin(ctx context.Context, wantExit int, args ...string) (stdout string) {
	s.Helper()
	stdout, _ = s.chkpinLogged(ctx, wantExit, args...)
	return stdout
}

// chkpinLogged runs the binary under test, set up for the story's places and free of all other CHKPIN_, AWS_ and
// AZURE_ variables, and returns what it prints. Both are shown when the exit code is not the wanted one.
func (s *story) chkpinLogged(ctx context.Context, wantExit int, args ...string) (stdout, stderr string) {
	s.Helper()
	flags, env := s.access(s.latest.ConfDir)
	env = append(env, "CHKPIN_JOBMANAGER_TIMEOUT="+jobManagerTimeout)
	for _, p := range s.beside {
		moreFlags, moreEnv := p.access(s.latest.ConfDir)
		flags, env = append(flags, moreFlags...), append(env, moreEnv...)
	}
	var out, log bytes.Buffer
	cmd := exec.CommandContext(ctx, s.binary, append(args, flags...)...)
	cmd.Stdout, cmd.Stderr = &out, &log
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "CHKPIN_") || strings.HasPrefix(variable, "AWS_") || strings.HasPrefix(variable, "AZURE_")
	}), env...)
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		require.NoError(s, err)
	}
	require.Equal(s, wantExit, cmd.ProcessState.ExitCode(), "exit code of chkpin %s\nstdout: %s\nstderr: %s", strings.Join(args, " "), &out, &log)
	return out.String(), log.String()
}

// pinned is the part of chkpin pin's JSON result that the stories look at.
type pinned struct {
	Result       string   `json:"result"`
	Generation   string   `json:"generation"`
	JobID        string   `json:"jobId"`
	CheckpointID int64    `json:"checkpointId"`
	Source       string   `json:"source"`
	Copied       int      `json:"copied"`
	Restorable   bool     `json:"restorable"`
	RestoredFrom string   `json:"restoredFrom"`
	RestoredID   int64    `json:"restoredId"`
	StartedEmpty bool     `json:"startedEmpty"`
	Warnings     []string `json:"warnings"`

	Replicas []replicated `json:"replicas"`
}

type replicated struct {
	App        string `json:"app"`
	Result     string `json:"result"`
	Generation string `json:"generation"`
}

// pin runs chkpin pin against the cluster.
func (s *story) pin(ctx context.Context, wantExit int, cluster *lab.Cluster, flags ...string) pinned {
	s.Helper()
	return s.pinned(s.chkpin(ctx, wantExit, append([]string{"pin", s.app.String(), cluster.URL, "--output", "json"}, flags...)...))
}

// stopLogged runs chkpin stop against the cluster, for a savepoint in a folder.
func (s *story) stopLogged(ctx context.Context, wantExit int, cluster *lab.Cluster, target blobstore.URI) (result pinned, log string) {
	s.Helper()
	stdout, log := s.chkpinLogged(ctx, wantExit, "stop", s.app.String(), cluster.URL, "--target", target.String(), "--output", "json")
	return s.pinned(stdout), log
}

func (s *story) pinned(stdout string) (result pinned) {
	s.Helper()
	require.NoError(s, json.Unmarshal([]byte(stdout), &result), "%s", stdout)
	return result
}

// verify requires that chkpin calls the pin restorable.
func (s *story) verify(ctx context.Context) {
	s.Helper()
	s.chkpin(ctx, exitDone, "verify", s.app.Join("last-state").String())
}

// resolve returns the arguments that chkpin resolve prints, which have to name the pin.
func (s *story) resolve(ctx context.Context) []string {
	s.Helper()
	args := strings.Fields(s.chkpin(ctx, exitDone, "resolve", s.app.String()))
	require.Equal(s, []string{"--fromSavepoint", s.app.Join("last-state", "_metadata").String()}, args)
	return args
}

// A table collects the outcomes of all cells.
type table struct {
	mu   sync.Mutex
	rows map[string][]string // by cell
}

func (t *table) add(cell, step, outcome string, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rows == nil {
		t.rows = map[string][]string{}
	}
	t.rows[cell] = append(t.rows[cell], fmt.Sprintf("%s\t%s\t%.1f\t%s\n", cell, step, took.Seconds(), outcome))
}

// publish prints the table, and writes it to the file that CHKPIN_E2E_REPORT names.
func (t *table) publish(tb testing.TB, order []cell) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var text bytes.Buffer
	columns := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprint(columns, "CELL\tSTEP\tSECONDS\tOUTCOME\n")
	for _, c := range order {
		fmt.Fprint(columns, strings.Join(t.rows[c.String()], ""))
	}
	require.NoError(tb, columns.Flush())
	tb.Logf("\n%s", &text)
	if file := os.Getenv("CHKPIN_E2E_REPORT"); file != "" {
		require.NoError(tb, os.WriteFile(file, text.Bytes(), 0o644))
	}
}
