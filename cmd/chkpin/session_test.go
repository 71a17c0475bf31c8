package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/cmd/chkpin/sample"
)

// session is a session cluster as far as deploy sees it: its jobs are submitted with the program flink, write real
// checkpoints below their state.checkpoints.dir, and stop with real savepoints.
type session struct {
	*httptest.Server
	scratch string

	mu        sync.Mutex
	jobs      []*sessionJob
	submitted []string // by flink run, each "NAME" or "NAME <- what from"
	failure   string   // of savepoints
	starting  string   // the state that submitted jobs are in, if not RUNNING
	oneID     bool     // all jobs have the same id, as an application with high availability
}

type sessionJob struct {
	submission
	id, state string
	origin    *sessionJob // of what it restored from
	last      string      // the newest state it wrote
}

// submission is what flink run sends.
type submission struct {
	Restore    string            `json:"restore"`
	Properties map[string]string `json:"properties"`
}

func (j *sessionJob) name() string { return j.Properties["pipeline.name"] }

func (j *sessionJob) live() bool {
	return !slices.Contains([]string{"FINISHED", "FAILED", "CANCELED"}, j.state)
}

// newJobID has its number in the first six digits, which savepoints are named by.
func newJobID(n int) string { return fmt.Sprintf("%06d%026d", n, 0) }

func startSession(scratch string) *session {
	s := &session{scratch: scratch}
	s.Server = httptest.NewServer(s)
	return s
}

// ServeHTTP answers as Flink 2.3.0 does; /submit is for the program flink alone.
func (s *session) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, below, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/jobs/"), "/")
	switch {
	case r.URL.Path == "/config":
		io.WriteString(w, `{"flink-version":"2.3.0","flink-revision":"x"}`)
	case r.URL.Path == "/jobs/overview":
		lines := []string{}
		for i, j := range s.jobs {
			lines = append(lines, fmt.Sprintf(`{"jid":%q,"name":%q,"state":%q,"start-time":%d}`, j.id, j.name(), j.state, i+1))
		}
		fmt.Fprintf(w, `{"jobs":[%s]}`, strings.Join(lines, ","))
	case r.URL.Path == "/submit":
		var what submission
		if err := json.NewDecoder(r.Body).Decode(&what); err != nil {
			panic(err)
		}
		s.submit(what)
	case below == "stop":
		var request struct{ TargetDirectory, TriggerID string }
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			panic(err)
		}
		if s.failure == "" {
			s.stop(s.job(id), request.TargetDirectory)
		}
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, `{"request-id":%q}`, request.TriggerID)
	case s.failure != "":
		fmt.Fprintf(w, `{"status":{"id":"COMPLETED"},"operation":{"failure-cause":{"class":"x.E","stack-trace":%q}}}`, s.failure)
	default:
		fmt.Fprintf(w, `{"status":{"id":"COMPLETED"},"operation":{"location":%q}}`, s.job(id).last)
	}
}

// job is the last one of an id.
func (s *session) job(id string) *sessionJob {
	for _, j := range slices.Backward(s.jobs) {
		if j.id == id {
			return j
		}
	}
	panic("no job " + id)
}

// liveJob is the one of a name that has not ended.
func (s *session) liveJob(name string) *sessionJob {
	return s.jobs[slices.IndexFunc(s.jobs, func(j *sessionJob) bool { return j.name() == name && j.live() })]
}

func (s *session) submit(what submission) {
	job := &sessionJob{submission: what, id: newJobID(len(s.jobs) + 1), state: "RUNNING"}
	if s.starting != "" {
		job.state = s.starting
	}
	if s.oneID {
		job.id = newJobID(0)
	}
	line := job.name()
	if what.Restore != "" {
		from := strings.TrimSuffix(what.Restore, "/_metadata")
		origin := slices.IndexFunc(s.jobs, func(j *sessionJob) bool { return j.last == from })
		if origin >= 0 {
			job.origin = s.jobs[origin]
		}
		line += " <- " + strings.Join(strings.Split(from, "/")[strings.Count(from, "/")-1:], "/")
	}
	s.jobs = append(s.jobs, job)
	s.submitted = append(s.submitted, line)
}

// writes the job's next checkpoint.
func (s *session) checkpoint(j *sessionJob) {
	written, err := sample.UnpackAs(pathOf(j.Properties["state.checkpoints.dir"]), j.id)
	if err != nil {
		panic(err)
	}
	j.last = "file://" + strings.TrimPrefix(written.Path(), "file:")
}

func (s *session) stop(j *sessionJob, folder string) {
	written, err := sample.UnpackAs(filepath.Join(s.scratch, j.id), j.id)
	if err != nil {
		panic(err)
	}
	savepoint := filepath.Join(pathOf(folder), fmt.Sprintf("savepoint-%.6s-%012d", j.id, slices.Index(s.jobs, j)))
	if err := os.MkdirAll(filepath.Dir(savepoint), 0o777); err != nil {
		panic(err)
	}
	if err := os.Rename(strings.TrimPrefix(written.Path(), "file:"), savepoint); err != nil {
		panic(err)
	}
	j.last, j.state = "file://"+savepoint, "FINISHED"
}

func pathOf(uri string) string { return blobstore.MustParse(uri).Path() }

// flinkMain is "flink run -d -Dk=v … [-s PATH …] job.jar …" for the session at $SESSION.
func flinkMain() {
	what := submission{Properties: map[string]string{}}
	words := os.Args[1:]
	for i, word := range words {
		if setting, ok := strings.CutPrefix(word, "-D"); ok {
			key, value, _ := strings.Cut(setting, "=")
			what.Properties[key] = value
		}
		if word == "-s" {
			what.Restore = words[i+1]
		}
	}
	if what.Properties["pipeline.name"] == os.Getenv("FLINK_REFUSES") {
		fmt.Fprintln(os.Stderr, "The program finished with the following exception: no such table")
		os.Exit(7)
	}
	body, _ := json.Marshal(what) // texts always marshal
	resp, err := http.Post(os.Getenv("SESSION")+"/submit", "application/json", strings.NewReader(string(body)))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	resp.Body.Close()
	fmt.Println("Job has been submitted:", strings.Join(words, " "))
}

// sessionDoes is what happens at a session cluster:
//
//	session start              it runs at $SESSION
//	session checkpoints NAME…  these jobs write a checkpoint
//	session ends STATE NAME…   these jobs end, CANCELED or FAILED
//	session runs NAME STATE    another job of this name, nobody knows where from
//	session starts STATE       jobs that are submitted from now on are in that state
//	session fails TEXT         savepoints fail so
//	session started [LINE…]    exactly these jobs were submitted since the last time, each "NAME" or "NAME <- FROM"
//	session stop
func sessionDoes(ts *testscript.TestScript, neg bool, args []string) {
	story := storyOf(ts)
	least := map[string]int{"start": 1, "checkpoints": 2, "ends": 3, "runs": 3, "starts": 2, "fails": 2, "started": 1, "stop": 1}
	usage(ts, !neg && len(args) > 0 && least[args[0]] > 0 && len(args) >= least[args[0]], "session start|checkpoints|ends|runs|starts|fails|started|stop …")
	if args[0] == "start" {
		story.session = startSession(ts.MkAbs("scratch"))
		ts.Defer(story.session.Close)
		ts.Setenv("SESSION", story.session.URL)
		return
	}
	s := story.session
	if args[0] == "stop" {
		stopServer(ts, s.Server)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch args[0] {
	case "checkpoints":
		for _, name := range args[1:] {
			s.checkpoint(s.liveJob(name))
		}
	case "ends":
		for _, name := range args[2:] {
			s.liveJob(name).state = args[1]
		}
	case "runs":
		what := submission{Properties: map[string]string{"pipeline.name": args[1]}}
		s.jobs = append(s.jobs, &sessionJob{submission: what, id: newJobID(len(s.jobs) + 1), state: args[2]})
	case "starts":
		s.starting = args[1]
	case "fails":
		s.failure = args[1]
	case "started":
		if !slices.Equal(s.submitted, args[1:]) {
			ts.Fatalf("these were submitted: %q", s.submitted)
		}
		s.submitted = nil
	}
}
