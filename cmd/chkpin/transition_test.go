package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/chkpin/chkpin/vvp"
	"github.com/chkpin/chkpin/vvp/vvptest"
)

// platformDoes is what happens at a Ververica Platform:
//
//	platform start [TOKEN]          it runs at $PLATFORM, which is $PLATFORM_HOST and $PLATFORM_PORT; it wants the token
//	platform has NAME STATE…        a deployment that is in a state, and comes to the others in turn
//	platform runs NAME STATE…       the states that the deployment takes when it is to be RUNNING
//	platform fails STATUS [TEXT]    it answers everything so; with 0 no longer
//	platform was asked [CHANGE…]    exactly these changes of desired states came so far, each "NAME STATE"
func platformDoes(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	least := map[string]int{"start": 1, "has": 3, "runs": 3, "fails": 2, "was": 2}
	usage(ts, !neg && len(args) > 0 && least[args[0]] > 0 && len(args) >= least[args[0]], "platform start|has|runs|fails|was asked …")
	switch args[0] {
	case "start":
		s.platform = &vvptest.Platform{Namespace: "default"}
		if len(args) > 1 {
			s.platform.Token = args[1]
		}
		server := httptest.NewServer(s.platform)
		ts.Defer(server.Close)
		u, err := url.Parse(server.URL)
		ts.Check(err)
		host, port, err := net.SplitHostPort(u.Host)
		ts.Check(err)
		ts.Setenv("PLATFORM", server.URL)
		ts.Setenv("PLATFORM_HOST", host)
		ts.Setenv("PLATFORM_PORT", port)
	case "has":
		s.platform.Add(args[1], args[2:]...)
	case "runs":
		s.platform.Run(args[1], args[2:]...)
	case "fails":
		status, err := strconv.Atoi(args[1])
		ts.Check(err)
		s.platform.Fail(status, slices.Concat(args, []string{""})[2])
	case "was":
		if got := s.platform.Patched(); !slices.Equal(got, args[2:]) {
			ts.Fatalf("it was asked for %q", got)
		}
	}
}

// clusterDoes is what happens at a JobManager that takes requests, unlike the one of jobmanager:
//
//	cluster start                   it runs at $CLUSTER
//	cluster has ID NAME STATE…      a job that is in a state, and comes to the others in turn
//	cluster fails TEXT              savepoints fail so
//	cluster ends                    with the job that is cancelled, as in application mode
//	cluster hangs N                 it does not answer the next N questions after a change
//	cluster was asked [CHANGE…]     exactly these changes came so far, each "cancel ID" or "stop ID"
//	cluster stop
func clusterDoes(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	least := map[string]int{"start": 1, "has": 4, "fails": 2, "ends": 1, "hangs": 2, "was": 2, "stop": 1}
	usage(ts, !neg && len(args) > 0 && least[args[0]] > 0 && len(args) >= least[args[0]], "cluster start|has|fails|ends|hangs|was asked|stop …")
	switch args[0] {
	case "start":
		s.cluster = &cluster{}
		s.cluster.server = httptest.NewServer(s.cluster)
		ts.Defer(s.cluster.server.Close)
		ts.Setenv("CLUSTER", s.cluster.server.URL)
		return
	case "stop":
		stopServer(ts, s.cluster.server)
		return
	}
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	switch args[0] {
	case "has":
		s.cluster.jobs = append(s.cluster.jobs, &clusterJob{id: args[1], name: args[2], states: args[3:]})
	case "fails":
		s.cluster.failure = args[1]
	case "ends":
		s.cluster.ends = true
	case "hangs":
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		s.cluster.hangs = n
	case "was":
		if !slices.Equal(s.cluster.asked, args[2:]) {
			ts.Fatalf("it was asked for %q", s.cluster.asked)
		}
	}
}

// cluster is a JobManager whose jobs can be stopped and cancelled.
type cluster struct {
	server *httptest.Server

	mu      sync.Mutex
	jobs    []*clusterJob
	failure string
	ends    bool
	hangs   int // how many questions it does not answer
	asked   []string
}

type clusterJob struct {
	id, name string
	states   []string // that it is in and comes to, one a question
}

// ServeHTTP answers as Flink 2.3.0 does.
func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ends && len(c.asked) > 0 {
		c.server.Listener.Close()
		panic(http.ErrAbortHandler) // drops the connection
	}
	if c.hangs > 0 && len(c.asked) > 0 {
		c.hangs--
		<-r.Context().Done() // the one who asked gave up
		return
	}
	job, below, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/jobs/"), "/")
	switch {
	case r.URL.Path == "/config":
		io.WriteString(w, `{"flink-version":"2.3.0","flink-revision":"x"}`)
	case r.URL.Path == "/jobs/overview":
		c.overview(w)
	case r.Method == http.MethodPatch:
		c.end("cancel", job, "CANCELLING", "CANCELED")
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, `{}`)
	case below == "stop":
		if c.failure == "" {
			c.end("stop", job, "FINISHED")
		}
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, `{"request-id":"0123"}`)
	case c.failure != "":
		fmt.Fprintf(w, `{"status":{"id":"COMPLETED"},"operation":{"failure-cause":{"class":"x.E","stack-trace":%q}}}`, c.failure)
	default:
		fmt.Fprintf(w, `{"status":{"id":"COMPLETED"},"operation":{"location":"file:/savepoints/savepoint-%.6s-1"}}`, job)
	}
}

func (c *cluster) overview(w io.Writer) {
	lines := []string{}
	for i, j := range c.jobs {
		lines = append(lines, fmt.Sprintf(`{"jid":%q,"name":%q,"state":%q,"start-time":%d}`, j.id, j.name, j.states[0], i+1))
		if len(j.states) > 1 {
			j.states = j.states[1:]
		}
	}
	fmt.Fprintf(w, `{"jobs":[%s]}`, strings.Join(lines, ","))
}

func (c *cluster) end(how, id string, states ...string) {
	c.asked = append(c.asked, how+" "+id)
	for _, j := range c.jobs {
		if j.id == id {
			j.states = states
		}
	}
}

// Who has answered may fail to for a while; a platform that never answered is not waited for.
func TestAwaitBearsOutages(t *testing.T) {
	down := &vvp.CallError{Method: "GET", URL: "http://platform", Err: io.EOF}
	await := func(outcomes ...error) (int, error) {
		state := sighting{Name: "orders", State: "TRANSITIONING"}
		p := patience{Attempts: len(outcomes), Interval: millis(time.Millisecond)}
		env := &environment{stderr: io.Discard}
		return p.await(t.Context(), env, awaiting{state: "RUNNING", of: &state, look: func(context.Context) (bool, error) {
			err := outcomes[0]
			outcomes = outcomes[1:]
			return err == nil && len(outcomes) == 0, err
		}})
	}
	attempts, err := await(nil, down, down, nil)
	require.NoError(t, err)
	assert.Equal(t, 4, attempts)

	attempts, err = await(nil, down, down)
	require.ErrorIs(t, err, vvp.ErrUnavailable)
	assert.Equal(t, 3, attempts)

	attempts, err = await(down, nil)
	require.ErrorIs(t, err, vvp.ErrUnavailable)
	assert.Equal(t, 1, attempts)

	refused := &vvp.CallError{Method: "GET", URL: "http://platform", Err: &vvp.StatusError{Code: http.StatusForbidden}}
	attempts, err = await(nil, refused, nil)
	require.ErrorIs(t, err, vvp.ErrUnavailable)
	assert.Equal(t, 2, attempts)
}

// The manifests of Argo Workflows and of CronJobs hold whole steps: chkpin takes their arguments, and knows their
// variables.
func TestTransitionManifests(t *testing.T) {
	t.Run("Argo", func(t *testing.T) {
		argo := document(t, "../../manifests/argo/streaming-makes-way.yaml")
		spec := argo["spec"].(map[string]any)["workflowSpec"].(map[string]any)
		templates := spec["templates"].([]any)
		var steps [][]string
		for _, group := range templates[0].(map[string]any)["steps"].([]any) {
			require.Len(t, group, 1, "steps follow each other")
			arguments := group.([]any)[0].(map[string]any)["arguments"].(map[string]any)
			var step []string
			for _, p := range arguments["parameters"].([]any) {
				step = append(step, p.(map[string]any)["value"].(string))
			}
			steps = append(steps, step)
		}
		assert.Equal(t, [][]string{
			{"streaming", "RUNNING", "streaming", "SUSPENDED"},
			{"streaming", "SUSPENDED", "batch", "RUNNING"},
			{"batch", "FINISHED", "batch", "CANCELLED"},
			{"batch", "CANCELLED", "streaming", "RUNNING"},
		}, steps)
		step := stepOf(t, templates[1].(map[string]any)["container"])
		assert.Equal(t, "{{inputs.parameters.monitor}} {{inputs.parameters.monitor-state}} {{inputs.parameters.trigger}} {{inputs.parameters.trigger-state}}",
			strings.Join([]string{step.MonitorDeployment, step.MonitorState, step.TriggerDeployment, step.TriggerState}, " "))
		assert.Equal(t, patience{Attempts: 360, Interval: millis(10 * time.Second)}, step.patience)
	})
	t.Run("CronJob", func(t *testing.T) {
		step := stepOf(t, containerOf(document(t, "../../manifests/transition.yaml")))
		assert.Equal(t, "streaming RUNNING streaming SUSPENDED",
			strings.Join([]string{step.MonitorDeployment, step.MonitorState, step.TriggerDeployment, step.TriggerState}, " "))
	})
	t.Run("CronJob without a platform", func(t *testing.T) {
		step := stepOf(t, containerOf(document(t, "../../manifests/transition-flink.yaml")))
		assert.Equal(t, "true RUNNING stop", fmt.Sprint(step.Flink, " ", step.MonitorState, " ", step.Action))
	})
}

func document(t *testing.T, path string) (content map[string]any) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(data, &content), path)
	return content
}

// containerOf is the only container of a CronJob.
func containerOf(node any) any {
	for _, key := range []string{"spec", "jobTemplate", "spec", "template", "spec", "containers"} {
		node = node.(map[string]any)[key]
	}
	return node.([]any)[0]
}

// stepOf is what chkpin makes of a container's arguments and variables.
func stepOf(t *testing.T, container any) *transitionCommand {
	t.Helper()
	variables, _ := container.(map[string]any)["env"].([]any)
	for _, v := range variables {
		v := v.(map[string]any)
		if value, ok := v["value"].(string); ok {
			t.Setenv(v["name"].(string), value)
		}
	}
	command, _, err := parse(words(container.(map[string]any)["args"]), io.Discard, io.Discard)
	require.NoError(t, err)
	return command.(*transitionCommand)
}
