package lab

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chkpin/chkpin/blobstore/storetest/servers"
)

// Options describe a cluster: one that runs one job in application mode, or a session cluster.
type Options struct {
	Distribution Distribution

	// Dir is the cluster's own folder: configuration, logs, temporary files. Start makes it; it must not
	// exist, so that no two clusters mix.
	Dir string

	// Job is what the cluster runs, and ends with. Without a jar it is a session cluster, which waits for jobs
	// ([Cluster.Submit]).
	Job Job

	// Launcher, if there is one, starts the JobManager: it gets the command line that would have started it as
	// arguments, after its own, and becomes or runs it.
	Launcher []string

	// EntryArgs go between --job-classname and the job's own arguments, such as --fromSavepoint and a path.
	// Flink's entry point reads options up to the first word it does not know and hands the rest to the
	// job, so anything for Flink has to come first.
	EntryArgs []string

	// Checkpoints is the URI of the folder in which Flink makes the job folder (execution.checkpointing.dir).
	Checkpoints string

	// Backend is the state backend: "hashmap", "rocksdb", and with Flink 2 also "forst". Empty: "hashmap".
	Backend string

	// Incremental makes RocksDB checkpoints incremental.
	Incremental bool

	// Interval is the time between two checkpoints. 0: one second.
	Interval time.Duration

	// Conf is Flink configuration that is added to the lab's own and wins over it. An empty value leaves a setting
	// out.
	Conf map[string]string

	// Plugins is the folder of Flink's plugins, one folder for each ([Lab.Plugin]). Empty: no plugins.
	Plugins string

	// SQLClient is the folder of the SQL client's jars ([Lab.SQLClient]). Empty: no SQL client.
	SQLClient string

	// Env is added to the environment of both processes, as NAME=value.
	Env []string
}

// A Job is the program of a cluster.
type Job struct {
	Jar   string
	Class string
	Args  []string
}

// A Cluster is one JobManager and one TaskManager.
type Cluster struct {
	// URL is the JobManager's REST address, such as http://127.0.0.1:21034.
	URL string

	// ConfDir is the folder of its Flink configuration. It stays when the cluster ends.
	ConfDir string

	// CLI is the path of a program that is the flink command of the distribution, for this cluster.
	CLI string

	// SQLClient is the path of a program that is sql-client.sh, for this cluster. It is there if [Options].SQLClient is.
	SQLClient string

	release        func() // the ports
	session        bool
	claimModeField string // of the REST API's request to run a jar
	http           http.Client
	jobManager     *process
	taskManager    *process

	replaced         []*process // earlier TaskManagers
	startTaskManager func(log string) (*process, error)
}

// EndedError says that a process of a cluster ended while the lab waited for something else.
type EndedError struct {
	Process  string   // "JobManager" or "TaskManager"
	ExitCode int      // -1 if a signal ended it
	Causes   []string // the last few causes of exceptions in the logs, else the last lines of the process's log
}

func (e *EndedError) Error() string {
	return fmt.Sprintf("the %s ended with exit code %d\n%s", e.Process, e.ExitCode, strings.Join(e.Causes, "\n"))
}

// The entry points of a container image: its scripts end by starting these.
const (
	applicationClass = "org.apache.flink.container.entrypoint.StandaloneApplicationClusterEntryPoint"
	sessionClass     = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
	taskManagerClass = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
	cliClass         = "org.apache.flink.client.cli.CliFrontend"
	sqlClientClass   = "org.apache.flink.table.client.SqlClient"
)

// openedPackages are the parts of java.base that Flink or its libraries reach into by reflection.
var openedPackages = []string{
	"java.lang", "java.lang.reflect", "java.net", "java.io", "java.nio", "java.text", "java.time",
	"java.util", "java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks",
	"sun.net.util", "sun.nio.ch",
}

// Start starts a cluster and returns while it is coming up. The caller must call Stop.
func (l Lab) Start(o Options) (*Cluster, error) {
	c, err := l.start(o)
	if err != nil {
		return nil, fmt.Errorf("lab: starting a cluster of Flink %s: %w", o.Distribution.Release, err)
	}
	return c, nil
}

func (l Lab) start(o Options) (*Cluster, error) {
	if o.Backend == "" {
		o.Backend = "hashmap"
	}
	if o.Interval == 0 {
		o.Interval = time.Second
	}
	// A JVM listens seconds later, and releases the port before the hold does.
	rpcPort, releaseRPC, err := servers.HoldPort(0)
	if err != nil {
		return nil, err
	}
	restPort, releaseREST, err := servers.HoldPort(0)
	if err != nil {
		releaseRPC()
		return nil, err
	}
	release := func() { releaseRPC(); releaseREST() }
	c, err := l.startAt(o, rpcPort, restPort)
	if err != nil {
		release()
		return nil, err
	}
	c.release = sync.OnceFunc(release)
	return c, nil
}

func (l Lab) startAt(o Options, rpcPort, restPort int) (*Cluster, error) {
	if err := os.Mkdir(o.Dir, 0o755); err != nil {
		return nil, err
	}
	conf, tmp := filepath.Join(o.Dir, "conf"), filepath.Join(o.Dir, "tmp")
	noPlugins := filepath.Join(o.Dir, "plugins")
	for _, dir := range []string{conf, tmp, noPlugins} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if o.Plugins == "" {
		o.Plugins = noPlugins
	}
	if err := writeConfiguration(conf, o.Distribution, configuration(o, rpcPort, restPort)); err != nil {
		return nil, err
	}

	environment := append([]string{
		"FLINK_CONF_DIR=" + conf, "FLINK_LIB_DIR=" + o.Distribution.Lib, "FLINK_PLUGINS_DIR=" + o.Plugins,
	}, o.Env...)
	classpath := o.Distribution.classpath()
	if o.Job.Jar != "" {
		classpath = o.Distribution.classpath(o.Job.Jar)
	}
	jvm := []string{
		l.Java, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xmx320m",
		"-Djava.io.tmpdir=" + tmp,
		"-Dlog4j.configurationFile=file:" + filepath.Join(conf, "log4j.properties"),
		"-cp", classpath,
	}
	for _, name := range openedPackages {
		jvm = append(jvm, "--add-opens=java.base/"+name+"=ALL-UNNAMED")
	}
	java := func(launcher []string, args ...string) *exec.Cmd {
		line := slices.Concat(launcher, jvm, args)
		cmd := exec.Command(line[0], line[1:]...)
		cmd.Dir, cmd.Env = o.Dir, append(os.Environ(), environment...)
		return cmd
	}
	cli := filepath.Join(o.Dir, "flink")
	if err := writeCommand(cli, environment, append(slices.Clone(jvm), cliClass)); err != nil {
		return nil, err
	}
	sqlClient := filepath.Join(o.Dir, "sql-client")
	if o.SQLClient != "" {
		// Of two -cp the JVM takes the last.
		command := append(slices.Clone(jvm), "-cp", o.Distribution.classpath(filepath.Join(o.SQLClient, "*")), sqlClientClass)
		if err := writeCommand(sqlClient, environment, command); err != nil {
			return nil, err
		}
	}

	entry := []string{sessionClass, "--configDir", conf}
	if o.Job.Jar != "" {
		entry = slices.Concat([]string{applicationClass, "--configDir", conf, "--job-classname", o.Job.Class}, o.EntryArgs, o.Job.Args)
	}
	jobManager, err := startProcess("JobManager", filepath.Join(o.Dir, "jobmanager.log"), java(o.Launcher, entry...))
	if err != nil {
		return nil, err
	}
	startTaskManager := func(log string) (*process, error) {
		return startProcess("TaskManager", filepath.Join(o.Dir, log),
			java(nil, "-XX:MaxDirectMemorySize=256m", taskManagerClass, "--configDir", conf))
	}
	taskManager, err := startTaskManager("taskmanager.log")
	if err != nil {
		jobManager.kill()
		return nil, err
	}
	return &Cluster{
		URL:       fmt.Sprintf("http://127.0.0.1:%d", restPort),
		ConfDir:   conf,
		CLI:       cli,
		SQLClient: sqlClient,
		session:   o.Job.Jar == "",

		claimModeField: o.Distribution.claimModeField(),

		http:        http.Client{Timeout: time.Minute}, // a loaded one takes more than 10 s to run a jar
		jobManager:  jobManager,
		taskManager: taskManager,

		startTaskManager: startTaskManager,
	}, nil
}

// Stop kills both processes and waits until they are gone. Checkpoints stay as they are. Stopping twice is fine.
func (c *Cluster) Stop() {
	c.taskManager.kill()
	c.jobManager.kill()
	c.release()
}

// ReplaceTaskManager kills the TaskManager and starts another one, as an orchestrator does: the job fails over.
func (c *Cluster) ReplaceTaskManager() error {
	c.taskManager.kill()
	next, err := c.startTaskManager(fmt.Sprintf("taskmanager-%d.log", len(c.replaced)+2))
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	c.replaced = append(c.replaced, c.taskManager)
	c.taskManager = next
	return nil
}

// WaitEnd waits until the JobManager has ended by itself, stops the rest of the cluster and returns the
// JobManager's exit code: 0 after the job was cancelled or finished, something else after it failed.
func (c *Cluster) WaitEnd(ctx context.Context) (exitCode int, err error) {
	select {
	case <-c.jobManager.done:
		c.Stop()
		return c.jobManager.exit, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("lab: waiting for the JobManager at %s to end: %w", c.URL, ctx.Err())
	}
}

// Lines returns the lines of the logs that contain text, the JobManager's before the TaskManager's. What a job
// logs is in the TaskManager's, apart from what its main method does.
func (c *Cluster) Lines(text string) ([]string, error) {
	var lines []string
	for _, p := range slices.Concat([]*process{c.jobManager}, c.replaced, []*process{c.taskManager}) {
		found, err := linesOf(p.log, text)
		if err != nil {
			return nil, fmt.Errorf("lab: reading the log of the %s: %w", p.name, err)
		}
		lines = append(lines, found...)
	}
	return lines, nil
}

// linesOf returns the lines of a log that contain text. A line that is being written is none yet: half of it could
// pass for something else.
func linesOf(log, text string) ([]string, error) {
	content, err := os.ReadFile(log)
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(content)) {
		if whole, ended := strings.CutSuffix(line, "\n"); ended && strings.Contains(whole, text) {
			lines = append(lines, whole)
		}
	}
	return lines, nil
}

// ended describes the end of p, which must be done.
func (c *Cluster) ended(p *process) *EndedError {
	const atMost = 6
	causes, err := c.Lines("Caused by:")
	if err == nil && len(causes) == 0 {
		causes, err = linesOf(p.log, "")
	}
	if err != nil { // the exit code is worth reporting even where the logs cannot be read
		causes = []string{err.Error()}
	}
	return &EndedError{Process: p.name, ExitCode: p.exit, Causes: causes[max(0, len(causes)-atMost):]}
}
