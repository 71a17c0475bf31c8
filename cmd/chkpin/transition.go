package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/chkpin/chkpin/flinkjob"
	"github.com/chkpin/chkpin/flinkrest"
	"github.com/chkpin/chkpin/vvp"
)

// transitionCommand is one step of a scheduler. The VVP_ variables are those of
// the container that it replaces.
type transitionCommand struct {
	platformFlags `group:"Ververica Platform:"`
	patience

	MonitorState string `placeholder:"STATE" env:"CHKPIN_MONITOR_STATE,VVP_MONITOR_STATE" help:"The state to wait for: RUNNING, SUSPENDED, CANCELLED, FINISHED, FAILED, TRANSITIONING; with --flink a job's."`
	Wait         bool   `env:"CHKPIN_WAIT" help:"Afterwards wait, as patiently, until what was asked for is so."`

	flinkTransition `group:"Plain JobManagers:"`
	jobManager      `group:"Reaching the JobManagers:"`
}

// platformFlags say how to reach a platform, and what is of interest there.
type platformFlags struct {
	MonitorDeployment string `placeholder:"NAME" env:"CHKPIN_MONITOR_DEPLOYMENT,VVP_MONITOR_DEPLOYMENT" help:"The deployment to wait for."`
	TriggerDeployment string `placeholder:"NAME" env:"CHKPIN_TRIGGER_DEPLOYMENT,VVP_TRIGGER_DEPLOYMENT" help:"The deployment to change then."`
	TriggerState      string `placeholder:"STATE" env:"CHKPIN_TRIGGER_STATE,VVP_TRIGGER_STATE" help:"The state to ask for: RUNNING, SUSPENDED or CANCELLED."`

	VVPHost      string        `name:"vvp-host" placeholder:"HOST" env:"CHKPIN_VVP_HOST,VVP_HOST" help:"Host of the platform, or its URL: https://vvp.example.com."`
	VVPPort      string        `name:"vvp-port" placeholder:"PORT" env:"CHKPIN_VVP_PORT,VVP_PORT" help:"Its port, if not 80, or 443 of https."`
	VVPNamespace string        `name:"vvp-namespace" default:"default" env:"CHKPIN_VVP_NAMESPACE,VVP_NAMESPACE" help:"The platform's namespace of both deployments."`
	VVPToken     string        `name:"vvp-token" placeholder:"SECRET" env:"CHKPIN_VVP_TOKEN" help:"Secret of an API token; better a file."`
	VVPTokenFile string        `name:"vvp-token-file" type:"path" placeholder:"FILE" env:"CHKPIN_VVP_TOKEN_FILE" help:"Read anew for each call."`
	VVPCA        string        `name:"vvp-ca" type:"path" placeholder:"FILE" env:"CHKPIN_VVP_CA" help:"PEM file of the authorities to trust."`
	VVPTimeout   time.Duration `name:"vvp-timeout" default:"15s" env:"CHKPIN_VVP_TIMEOUT" help:"For one answer, with all retries."`
}

// patience is how long a step waits.
type patience struct {
	Attempts int    `default:"60" env:"CHKPIN_POLL_ATTEMPTS,VVP_MONITOR_COUNT" help:"How often to look."`
	Interval millis `default:"10s" env:"CHKPIN_POLL_INTERVAL,VVP_MONITOR_DURATION" help:"From one look to the next; a number alone is milliseconds."`
}

// Validate refuses what would never look.
func (p patience) Validate() error {
	if p.Attempts < 1 {
		return errors.New("--attempts must be at least 1")
	}
	return nil
}

// millis is a duration that the variables of the replaced container give in
// milliseconds.
type millis time.Duration

func (m *millis) Decode(ctx *kong.DecodeContext) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	if _, err := strconv.Atoi(text); err == nil {
		text += "ms"
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is no duration, such as 10s or 10000 (milliseconds)", text)
	}
	*m = millis(d)
	return nil
}

func (f platformFlags) client(env *environment) (*vvp.Client, error) {
	if f.VVPHost == "" {
		return nil, usagef("set VVP_HOST or --vvp-host; for JobManagers without a platform say --flink", "no platform was named")
	}
	root := f.VVPHost
	if !strings.Contains(root, "://") {
		root = "http://" + root
	}
	if err := f.checkPort(); err != nil {
		return nil, err
	}
	if u, err := url.Parse(root); err == nil && f.VVPPort != "" { // vvp.New refuses what is no URL
		if u.Port() != "" && u.Port() != f.VVPPort {
			return nil, usagef("leave one of them out", "the platform's host has port %s, and the port is %s", u.Port(), f.VVPPort)
		}
		u.Host = net.JoinHostPort(u.Hostname(), f.VVPPort)
		root = u.String()
	}
	return vvp.New(vvp.Config{
		URL:       root,
		Timeout:   f.VVPTimeout,
		Token:     f.VVPToken,
		TokenFile: f.VVPTokenFile,
		CAFile:    f.VVPCA,
		Logger:    env.log,
	})
}

// checkPort refuses what is no port. For a service named vvp, Kubernetes gives
// every container a VVP_PORT that is none.
func (f platformFlags) checkPort() error {
	if strings.HasPrefix(f.VVPPort, "tcp://") {
		return usagef("set VVP_PORT in the container to the port alone, or enableServiceLinks: false in its pod",
			"VVP_PORT is %q, which Kubernetes sets for a service named vvp", f.VVPPort)
	}
	if n, err := strconv.ParseUint(f.VVPPort, 10, 16); f.VVPPort != "" && (err != nil || n == 0) {
		return usagef("such as 8080", "%q is no port", f.VVPPort)
	}
	return nil
}

// The results of a step that succeeded.
const (
	resultTriggered = "triggered"
	resultUnchanged = "unchanged" // what was to be asked for was so already
	resultWaited    = "waited"    // --action none
)

// transitionResult is the JSON of transition, documented in docs/transition.md.
type transitionResult struct {
	Result    string   `json:"result"`
	Monitor   sighting `json:"monitor"`
	Attempts  int      `json:"attempts"`
	Trigger   sighting `json:"trigger"`
	Request   string   `json:"request"` // the desired state, or the action
	Savepoint string   `json:"savepoint"`
	Warnings  []string `json:"warnings"`
}

// sighting is a deployment or job as it was last seen.
type sighting struct {
	Name  string `json:"name"`
	JobID string `json:"jobId"` // with --flink
	State string `json:"state"`
}

func (s sighting) String() string {
	if s.JobID != "" {
		return fmt.Sprintf("job %s %q", s.JobID, s.Name)
	}
	return "deployment " + s.Name
}

// Run waits and triggers. The result is printed whatever comes out, as by pin.
func (c *transitionCommand) Run(ctx context.Context, env *environment) error {
	step := c.onPlatform
	switch {
	case c.Flink:
		step = c.onJobManagers
	case c.Action != "" || c.MonitorJob != "" || c.TriggerJob != "" || c.TriggerJobmanager != "":
		return usagef("add --flink, or name deployments and --trigger-state", "--action and jobs are those of plain JobManagers, and --flink was not given")
	}
	r, err := step(ctx, env)
	if err != nil {
		r.Result = verdictOf(ctx, err).result
	}
	return errors.Join(err, env.print(r, r.describe))
}

func (r transitionResult) describe(w io.Writer) {
	switch r.Result {
	case resultTriggered:
		fmt.Fprintf(w, "triggered: %s -> %s (last seen %s)\n", r.Trigger, r.Request, r.Trigger.State)
	case resultUnchanged:
		fmt.Fprintf(w, "unchanged: %s -> %s was asked for before (last seen %s)\n", r.Trigger, r.Request, r.Trigger.State)
	case resultWaited:
		fmt.Fprintf(w, "waited: %s is %s\n", r.Monitor, r.Monitor.State)
	}
	if r.Savepoint != "" {
		fmt.Fprintf(w, "savepoint %s\n", r.Savepoint)
	}
	printWarnings(w, r.Warnings)
}

// missing names what a step cannot do without.
func missing(settings map[string]string) error {
	var names []string
	for name, value := range settings {
		if value == "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return usagef("chkpin transition --help lists the flags and their variables", "missing: %s", strings.Join(slices.Sorted(slices.Values(names)), ", "))
}

// withCommand adds the command to a command line without one: the container that
// transition replaces takes no arguments, only its variables.
func withCommand(args []string) []string {
	if len(args) == 0 && os.Getenv("VVP_TRIGGER_DEPLOYMENT") != "" {
		return []string{"transition"}
	}
	return args
}

func (c *transitionCommand) onPlatform(ctx context.Context, env *environment) (transitionResult, error) {
	r := transitionResult{Monitor: sighting{Name: c.MonitorDeployment}, Trigger: sighting{Name: c.TriggerDeployment}, Request: c.TriggerState}
	client, err := c.platformFlags.client(env)
	if err != nil {
		return r, err
	}
	if err := missing(map[string]string{
		"--monitor-deployment": c.MonitorDeployment, "--monitor-state": c.MonitorState,
		"--trigger-deployment": c.TriggerDeployment, "--trigger-state": c.TriggerState,
	}); err != nil {
		return r, err
	}
	awaited, err := vvp.ParseState(c.MonitorState)
	if err != nil {
		return r, err
	}
	desired, err := vvp.ParseDesired(c.TriggerState)
	if err != nil {
		return r, err
	}
	r.Request = string(desired)

	r.Attempts, err = c.await(ctx, env, awaiting{state: string(awaited), of: &r.Monitor, look: func(ctx context.Context) (bool, error) {
		d, err := client.Deployment(ctx, c.VVPNamespace, c.MonitorDeployment)
		if err != nil {
			return false, err
		}
		r.Monitor.State = string(d.State)
		// A step that suspends what it waited for is done when it is repeated.
		repeated := c.TriggerDeployment == c.MonitorDeployment && d.Desired == desired && !d.Stuck()
		return d.State == awaited || repeated, failedInstead(r.Monitor, string(awaited))
	}})
	if err != nil {
		return r, err
	}
	target, err := client.Deployment(ctx, c.VVPNamespace, c.TriggerDeployment)
	if err != nil {
		return r, err
	}
	r.Trigger.State = string(target.State)
	switch {
	case target.Desired != desired:
		if err := client.SetState(ctx, c.VVPNamespace, c.TriggerDeployment, desired); err != nil {
			return r, err
		}
		r.Result = resultTriggered
	case target.Stuck():
		return r, transitionErrorf("ask for another state in between, such as CANCELLED before RUNNING",
			"%s is %s although its desired state is %s: asking for that again has no effect", r.Trigger, target.State, desired)
	default:
		r.Result = resultUnchanged
	}
	if c.Wait {
		err = c.awaitTriggered(ctx, env, client, target, desired, &r)
	}
	return r, err
}

// awaitTriggered waits until a deployment is what it was asked to become. That it
// failed counts only when it was something else since: the platform takes its
// time. What was in the desired state all along need not move.
func (c *transitionCommand) awaitTriggered(ctx context.Context, env *environment, client *vvp.Client, before vvp.Deployment, desired vvp.State, r *transitionResult) error {
	moved := r.Result == resultUnchanged || before.State == desired
	_, err := c.await(ctx, env, awaiting{answered: true, state: string(desired), of: &r.Trigger, look: func(ctx context.Context) (bool, error) {
		d, err := client.Deployment(ctx, c.VVPNamespace, c.TriggerDeployment)
		if err != nil {
			return false, err
		}
		r.Trigger.State = string(d.State)
		moved = moved || d.State != before.State
		ranAlready := desired == vvp.Running && d.State == vvp.Finished
		if !moved {
			return false, nil
		}
		return d.State == desired || ranAlready, failedInstead(r.Trigger, string(desired))
	}})
	return err
}

// transitionError: a deployment or job does not come to the state it should.
type transitionError struct{ text string }

func (e *transitionError) Error() string { return e.text }

func transitionErrorf(hint, format string, args ...any) error {
	return &hintedError{&transitionError{fmt.Sprintf(format, args...)}, hint}
}

// failedInstead is the error of waiting for a state in vain.
func failedInstead(s sighting, awaited string) error {
	if s.State != string(vvp.Failed) || awaited == s.State { // Flink spells it so, too
		return nil
	}
	return transitionErrorf("find out why it failed: its events and the log of its job say more",
		"%s is FAILED, and waiting does not make it %s", s, awaited)
}

// awaiting is a state that something is to come to.
type awaiting struct {
	state    string
	of       *sighting
	look     func(context.Context) (reached bool, err error)
	answered bool // who is asked has answered before, or may not be up yet
}

// await looks until the state is reached or an error ends it. A job may yet be
// submitted, a JobManager be started, and who has answered before may fail to for
// a while: a platform is updated, a JobManager fails over. A platform that never
// answered is probably elsewhere.
func (p patience) await(ctx context.Context, env *environment, a awaiting) (attempts int, err error) {
	ticker := time.NewTicker(time.Duration(p.Interval))
	defer ticker.Stop()
	answered, shown := a.answered, ""
	for attempt := 1; ; attempt++ {
		reached, err := a.look(ctx)
		switch {
		case err == nil && reached:
			return attempt, nil
		case err == nil || as[*flinkjob.NoJobError](err):
			answered = true
		case !answered || !mayRecover(err):
			return attempt, err
		}
		if attempt == p.Attempts && err != nil {
			return attempt, err
		}
		if attempt == p.Attempts {
			return attempt, transitionErrorf("--attempts and --interval (VVP_MONITOR_COUNT, VVP_MONITOR_DURATION) say how long to wait",
				"%s is %s, not %s, after %d attempts, one every %s", a.of, a.of.State, a.state, attempt, time.Duration(p.Interval))
		}
		now := fmt.Sprintf("%s is %s, waiting for %s", a.of, a.of.State, a.state)
		if err != nil {
			now = fmt.Sprintf("%v; trying again", err)
		}
		if now != shown {
			env.note("%s", now)
			shown = now
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return attempt, ctx.Err()
		}
	}
}

// mayRecover reports whether who gave no usable answer may give one later. Who
// refuses goes on refusing.
func mayRecover(err error) bool {
	code := 0
	if status, ok := errors.AsType[*vvp.StatusError](err); ok {
		code = status.Code
	}
	if status, ok := errors.AsType[*flinkrest.StatusError](err); ok {
		code = status.Code
	}
	if code == http.StatusUnauthorized || code == http.StatusForbidden {
		return false
	}
	return errors.Is(err, vvp.ErrUnavailable) || errors.Is(err, flinkrest.ErrUnavailable)
}
