package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/chkpin/chkpin/blobstore/storetest/servers"
	"github.com/chkpin/chkpin/blobstore/storetest/volumes"
	"github.com/chkpin/chkpin/checkpoint/metadata"
	"github.com/chkpin/chkpin/checkpoint/metadata/metadatatest"
	"github.com/chkpin/chkpin/cmd/chkpin/sample"
	"github.com/chkpin/chkpin/flinkrest/replay"
	"github.com/chkpin/chkpin/vvp/vvptest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"chkpin": mainWithSchemas, "volume": volumes.Main, "flink": flinkMain})
}

// TestStories runs testdata/script, one story a file. The stories use chkpin itself, the program volume (package
// volumes), what testscript brings, and the commands below. $APP is the application they pin; $WORK/app is its folder.
// $HASHMAP113 is a checkpoint of another release, to be read only.
func TestStories(t *testing.T) {
	hashmap113, err := filepath.Abs("../../checkpoint/testdata/1.13.6-hashmap-basic/311c74ddcfd1ac9760695f37e08fe41f/chk-3")
	if err != nil {
		t.Fatal(err)
	}
	schemas, err := filepath.Abs(schemaFolder)
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("APP", "file://"+env.WorkDir+"/app")
			env.Setenv("HASHMAP113", hashmap113)
			env.Setenv(schemasVariable, schemas)
			env.Values[storyKey{}] = &story{asked: make(chan struct{}, 1), remembered: map[string][]byte{}}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"unpack":      unpack,
			"jobmanager":  jobManagerDoes,
			"exits":       exits,
			"interrupted": wasInterrupted,
			"json":        jsonIs,
			"remember":    remember,
			"untouched":   untouched,
			"resize":      resize,
			"platform":    platformDoes,
			"cluster":     clusterDoes,
			"session":     sessionDoes,
			"azurite":     startAzurite,
			"expand":      expand,
			"copy":        copyFolder,
			"operator":    changeOperator,
			"terminal":    onTerminal,
		},
		RequireUniqueNames: true,
		Condition:          condition,
	})
}

// story is what one script has set up.
type story struct {
	sample     sample.Sample
	jobManager *replay.JobManager
	server     *httptest.Server
	silent     atomic.Bool
	asked      chan struct{} // holds one question that the silent JobManager got
	remembered map[string][]byte
	platform   *vvptest.Platform
	cluster    *cluster
	session    *session
}

type storyKey struct{}

func storyOf(ts *testscript.TestScript) *story { return ts.Value(storyKey{}).(*story) }

// condition [root]: the user may become any other.
func condition(name string) (bool, error) {
	if name != "root" {
		return false, fmt.Errorf("no condition %q", name)
	}
	return os.Getuid() == 0, nil
}

// usage ends a story that uses a command wrongly.
func usage(ts *testscript.TestScript, ok bool, text string) {
	if !ok {
		ts.Fatalf("usage: %s", text)
	}
}

// unpack [JOB-ID] writes the sample to $WORK/checkpoints, as another run of the job if an id is given. $JOB is the
// job's id and $CHECKPOINT the URI of its newest checkpoint, as Flink spells it.
func unpack(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) <= 1, "unpack [JOB-ID]")
	s := storyOf(ts)
	var err error
	if dir := ts.MkAbs("checkpoints"); len(args) == 0 {
		s.sample, err = sample.Unpack(dir)
	} else {
		s.sample, err = sample.UnpackAs(dir, args[0])
	}
	ts.Check(err)
	ts.Setenv("JOB", s.sample.JobID)
	ts.Setenv("CHECKPOINT", s.sample.Path())
}

// jobManagerDoes is what happens at the JobManager of the unpacked job:
//
//	jobmanager start                     it runs at $JM, in the place of the one before
//	jobmanager completes [PATH]          the job's next checkpoint, by default $CHECKPOINT, the old one deleted
//	jobmanager restored ID PATH          the job started from that checkpoint
//	jobmanager replaces OLD NEW          a text in all its answers
//	jobmanager answers PATH STATUS FILE  from now on, :jobid being $JOB
//	jobmanager silent                    it takes questions and does not answer
//	jobmanager stop
func jobManagerDoes(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	words := map[string]int{"start": 1, "completes": len(args), "restored": 3, "replaces": 3, "answers": 4, "silent": 1, "stop": 1}
	usage(ts, !neg && len(args) > 0 && words[args[0]] == len(args), "jobmanager start|completes|restored|replaces|answers|silent|stop …")
	switch args[0] {
	case "start":
		s.start(ts)
	case "completes":
		s.complete(ts, args[1:])
	case "restored":
		s.jobManager.Replace(`"restored":null`, fmt.Sprintf(
			`"restored":{"id":%s,"restore_timestamp":1795188038000,"is_savepoint":true,"external_path":%q}`, args[1], args[2]))
	case "replaces":
		s.jobManager.Replace(args[1], args[2])
	case "answers":
		status, err := strconv.Atoi(args[2])
		ts.Check(err)
		s.jobManager.Set(args[1], status, ts.ReadFile(args[3]))
	case "silent":
		s.silent.Store(true)
	case "stop":
		stopServer(ts, s.server)
	}
}

// stopServer stops a server for good: nobody else gets its port while the story lasts.
func stopServer(ts *testscript.TestScript, server *httptest.Server) {
	port := server.Listener.Addr().(*net.TCPAddr).Port
	server.Close()
	_, release, err := servers.HoldPort(port)
	ts.Check(err)
	ts.Defer(release)
}

func (s *story) start(ts *testscript.TestScript) {
	jm, err := s.sample.JobManager()
	ts.Check(err)
	s.jobManager = jm
	s.server = httptest.NewServer(s)
	ts.Defer(s.server.Close)
	ts.Setenv("JM", s.server.URL)
}

func (s *story) complete(ts *testscript.TestScript, path []string) {
	if len(path) > 0 {
		ts.Check(s.jobManager.Complete(s.sample.Checkpoint+1, path[0]))
		return
	}
	ts.Check(s.sample.Complete())
	ts.Check(s.jobManager.Complete(s.sample.Checkpoint, s.sample.Path()))
	ts.Setenv("CHECKPOINT", s.sample.Path())
}

func (s *story) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.silent.Load() {
		s.jobManager.ServeHTTP(w, r)
		return
	}
	select {
	case s.asked <- struct{}{}:
	default:
	}
	<-r.Context().Done() // the one who asked went away
}

// exits CODE COMMAND… runs a command that must exit so.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "exits CODE COMMAND…")
	err := ts.Exec(args[1], args[2:]...)
	if code := exitCodeOf(ts, err); strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code is %d, not %s", code, args[0])
	}
}

// interrupted SIGNAL CODE COMMAND… runs a command that asks a silent JobManager, sends it INT or TERM as soon as it
// has asked, and expects the exit code.
func wasInterrupted(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM}
	usage(ts, !neg && len(args) >= 3 && signals[args[0]] != nil, "interrupted INT|TERM CODE COMMAND…")
	cmd := exec.Command(args[2], args[3:]...)
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	ts.Check(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-storyOf(ts).asked:
		ts.Check(cmd.Process.Signal(signals[args[0]]))
	case err := <-ended:
		ts.Fatalf("ended without asking the JobManager: %v", err)
	}
	if code := exitCodeOf(ts, <-ended); strconv.Itoa(code) != args[1] {
		ts.Fatalf("exit code is %d, not %s", code, args[1])
	}
}

func exitCodeOf(ts *testscript.TestScript, err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	ts.Check(err)
	return 0
}

// json FILE checks that stdout is the JSON of a file, one line, with its keys in the same order. Variables in the
// file are replaced.
func jsonIs(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "json FILE")
	got := ts.ReadFile("stdout")
	want := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	if n := bytes.Count([]byte(got), []byte("\n")); n != 1 {
		ts.Fatalf("stdout has %d lines, not one", n)
	}
	if got, want := indent(ts, got), indent(ts, want); got != want {
		ts.Fatalf("stdout is\n%s\nnot\n%s", got, want)
	}
}

func indent(ts *testscript.TestScript, text string) string {
	var b bytes.Buffer
	ts.Check(json.Indent(&b, []byte(text), "", "  "))
	return string(bytes.TrimSpace(b.Bytes()))
}

// remember PATH notes a file, or all files of a folder, for a later untouched PATH.
func remember(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "remember PATH")
	storyOf(ts).remembered[args[0]] = contents(ts, args[0])
}

// untouched PATH checks that what was remembered of a file or folder is so still.
func untouched(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 1, "untouched PATH")
	before, ok := storyOf(ts).remembered[args[0]]
	if !ok {
		ts.Fatalf("nothing remembered of %s", args[0])
	}
	if same := bytes.Equal(before, contents(ts, args[0])); same == neg {
		ts.Fatalf("%s is untouched: %t", args[0], same)
	}
}

// contents is the names and bytes of a file or of all files in a folder.
func contents(ts *testscript.TestScript, path string) []byte {
	var all bytes.Buffer
	ts.Check(filepath.WalkDir(ts.MkAbs(path), func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		fmt.Fprintf(&all, "%s %d\n%s", name, len(data), data)
		return err
	}))
	return all.Bytes()
}

// azurite CONTAINER… starts an Azure server at $AZURE, which has the containers in two accounts: devstoreaccount1,
// whose key is known everywhere, and otheraccount, whose key is $AZURE_KEY.
func startAzurite(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) > 0, "azurite CONTAINER…")
	server, stop, err := servers.StartAzurite(ts.Getenv("WORK"), args...)
	ts.Check(err)
	ts.Defer(stop)
	ts.Setenv("AZURE", server.URL)
	ts.Setenv("AZURE_KEY", server.OtherKey)
}

// resize BYTES FILE makes another file in its place with as many of its bytes, or with zeros added. The old one, to
// which the pin has a hard link, stays as it is.
func resize(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "resize BYTES FILE")
	size, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	path := ts.MkAbs(args[1])
	data, err := os.ReadFile(path)
	ts.Check(err)
	ts.Check(os.Remove(path))
	ts.Check(os.WriteFile(path, data, 0o666))
	ts.Check(os.Truncate(path, size))
}

// copy FROM TO copies a folder with all that is in it. The folders above TO are made.
func copyFolder(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "copy FROM TO")
	ts.Check(os.CopyFS(ts.MkAbs(args[1]), os.DirFS(ts.MkAbs(args[0]))))
}

// operator UID removed|scaled FILE makes another version of the job of a _metadata: without the operator, or with the
// operator at parallelism 4 of 256.
func changeOperator(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 3, "operator UID removed|scaled FILE")
	path := ts.MkAbs(args[2])
	data, err := os.ReadFile(path)
	ts.Check(err)
	file, err := metadata.Parse(data)
	ts.Check(err)
	for _, op := range file.Operators {
		if op.UID != args[0] {
			continue
		}
		if args[1] == "removed" {
			data, err = metadatatest.WithoutOperator(data, op.ID)
		} else {
			data, err = metadatatest.WithParallelism(data, op.ID, 4, 256)
		}
		ts.Check(err)
		ts.Check(os.WriteFile(path, data, 0o666))
		return
	}
	ts.Fatalf("%s has no operator %s", args[2], args[0])
}

// expand FILE puts the values of $VARIABLES into a file.
func expand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "expand FILE")
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// terminal FILE COMMAND… runs a command on a terminal, types the file there, and has what the terminal shows on stdout.
// The exit code is not looked at.
func onTerminal(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "terminal FILE COMMAND…")
	typed := ts.ReadFile(args[0])
	path, err := exec.LookPath(args[1])
	ts.Check(err)
	cmd := exec.Command(path, args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "TERM=xterm", "NO_COLOR="+ts.Getenv("NO_COLOR"), "HISTFILE=")
	screen, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 200})
	ts.Check(err)
	defer screen.Close()
	_, err = screen.WriteString(typed)
	ts.Check(err)
	io.Copy(ts.Stdout(), screen) //nolint:errcheck // it ends with EIO when the command does
	cmd.Wait()                   //nolint:errcheck // see above
}
