package lab

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFindSaysHowToInstallWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("JAVA_HOME", "")

	_, err := Find()

	var missing *MissingProgramError
	require.ErrorAs(t, err, &missing)
	for _, text := range []string{"no java found", "no javac found", "no python3 found", "openjdk-17", "python3-venv"} {
		assert.ErrorContains(t, err, text)
	}
}

func TestFindTakesJavaHomeAndTheCacheFromTheEnvironment(t *testing.T) {
	home := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(home, "bin"), 0o755))
	for _, name := range []string{"java", "javac", "python3", "mvn"} {
		require.NoError(t, os.WriteFile(filepath.Join(home, "bin", name), nil, 0o755))
	}
	t.Setenv("JAVA_HOME", home)
	t.Setenv("PATH", filepath.Join(home, "bin"))
	t.Setenv("CHKPIN_LAB_CACHE", home)

	found, err := Find()

	require.NoError(t, err)
	assert.Equal(t, Lab{
		Cache:  home,
		Java:   filepath.Join(home, "bin", "java"),
		Javac:  filepath.Join(home, "bin", "javac"),
		Python: filepath.Join(home, "bin", "python3"),
		Maven:  filepath.Join(home, "bin", "mvn"),
	}, found)
}

func TestOnlyPluginsNeedMaven(t *testing.T) {
	l := Lab{Cache: t.TempDir()}

	_, err := l.Plugin(t.Context(), "flink-s3-fs-hadoop", "2.3.0")

	var missing *MissingProgramError
	require.ErrorAs(t, err, &missing)
	assert.Equal(t, &MissingProgramError{Program: "mvn", Install: installMaven}, missing)

	dir := filepath.Join(l.Cache, "flink-s3-fs-hadoop-2.3.0")
	require.NoError(t, os.Mkdir(dir, 0o755))
	found, err := l.Plugin(t.Context(), "flink-s3-fs-hadoop", "2.3.0")
	require.NoError(t, err, "a plugin that is in the cache")
	assert.Equal(t, dir, found)
}

func TestOnceShowsOnlyCompleteFolders(t *testing.T) {
	cache := t.TempDir()
	dir := filepath.Join(cache, "flink")
	broken := errors.New("the network is down")

	err := once(dir, func(unfinished string) error {
		require.NoError(t, os.WriteFile(filepath.Join(unfinished, "half"), nil, 0o644))
		return broken
	})
	require.ErrorIs(t, err, broken)
	left, err := os.ReadDir(cache)
	require.NoError(t, err)
	require.Len(t, left, 1, "what a failure leaves: %v", left)
	require.Equal(t, "flink.lock", left[0].Name())

	var fills atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			assert.NoError(t, once(dir, func(unfinished string) error {
				fills.Add(1)
				return os.WriteFile(filepath.Join(unfinished, "whole"), nil, 0o644)
			}))
			assert.FileExists(t, filepath.Join(dir, "whole"))
		})
	}
	all.Wait()
	assert.EqualValues(t, 1, fills.Load())
}

func TestConfigurationIsSpelledForTheRelease(t *testing.T) {
	for release, want := range map[string]struct {
		file  string
		lines []string
	}{
		"1.15.4": {"flink-conf.yaml", []string{
			"state.checkpoints.dir: file:///state/app\n",
			"state.backend: rocksdb\n",
			"state.backend.incremental: true\n",
			"restart-strategy: none\n",
			"execution.checkpointing.interval: 1500 ms\n",
			"parallelism.default: 1\n",
		}},
		"2.3.0": {"config.yaml", []string{
			`execution.checkpointing.dir: "file:///state/app"` + "\n",
			`state.backend.type: "rocksdb"` + "\n",
			`execution.checkpointing.incremental: "true"` + "\n",
			`restart-strategy.type: "none"` + "\n",
			`execution.checkpointing.interval: "1500 ms"` + "\n",
			`parallelism.default: "1"` + "\n",
		}},
	} {
		t.Run(release, func(t *testing.T) {
			dir := t.TempDir()
			flink := Distribution{Release: release}

			conf := configuration(Options{
				Distribution: flink,
				Checkpoints:  "file:///state/app",
				Backend:      "rocksdb",
				Incremental:  true,
				Interval:     1500 * time.Millisecond,
				Conf:         map[string]string{"parallelism.default": "1"},
			}, 20001, 20002)
			require.NoError(t, writeConfiguration(dir, flink, conf))

			text, err := os.ReadFile(filepath.Join(dir, want.file))
			require.NoError(t, err)
			for _, line := range want.lines {
				assert.Contains(t, string(text), line)
			}
		})
	}
}

func TestWaitingEndsWithTheClusterAndSaysWhy(t *testing.T) {
	failing, err := startProcess("JobManager", filepath.Join(t.TempDir(), "jobmanager.log"),
		exec.Command("sh", "-c", "echo 'Caused by: java.io.FileNotFoundException: _metadata'; exit 163"))
	require.NoError(t, err)
	running, err := startProcess("TaskManager", filepath.Join(t.TempDir(), "taskmanager.log"),
		exec.Command("tail", "-f", "/dev/null"))
	require.NoError(t, err)
	noJob := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(noJob.Close)
	cluster := &Cluster{URL: noJob.URL, jobManager: failing, taskManager: running, release: func() {}}
	t.Cleanup(cluster.Stop)

	_, err = cluster.WaitRunning(t.Context())

	var ended *EndedError
	require.ErrorAs(t, err, &ended)
	assert.Equal(t, &EndedError{
		Process:  "JobManager",
		ExitCode: 163,
		Causes:   []string{"Caused by: java.io.FileNotFoundException: _metadata"},
	}, ended)

	exitCode, err := cluster.WaitEnd(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 163, exitCode)
	assert.Equal(t, -1, running.exit, "the TaskManager is killed")
	cluster.Stop() // once more
}

func TestALineThatIsBeingWrittenIsNotReadYet(t *testing.T) {
	log := filepath.Join(t.TempDir(), "taskmanager.log")
	require.NoError(t, os.WriteFile(log, []byte("CHECKPOINT id=7 keys=200\nsomething else\nCHECKPOINT id=8 keys=20"), 0o644))

	lines, err := linesOf(log, "CHECKPOINT")

	require.NoError(t, err)
	assert.Equal(t, []string{"CHECKPOINT id=7 keys=200"}, lines)
}
