package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/chkpin/chkpin/flinkjob"
	"github.com/chkpin/chkpin/flinkrest"
)

// flinkTransition is what a step does to plain JobManagers.
type flinkTransition struct {
	Flink             bool   `env:"CHKPIN_FLINK" help:"Wait for a job of the JobManager and change a job, without a platform."`
	MonitorJob        string `placeholder:"JOB" env:"CHKPIN_MONITOR_JOB" help:"Name or id of the job to wait for, if there are several."`
	Action            string `enum:",none,cancel,stop" default:"" placeholder:"ACTION" env:"CHKPIN_ACTION" help:"What to do then: stop (with a savepoint), cancel, or none."`
	TriggerJobmanager string `placeholder:"URL" env:"CHKPIN_TRIGGER_JOBMANAGER" help:"Where to do it, if at another JobManager; it gets the same credentials."`
	TriggerJob        string `placeholder:"JOB" env:"CHKPIN_TRIGGER_JOB" help:"Name or id of the job to do it to, if not to the one waited for."`
	savepointFlags
}

var flinkStates = []flinkrest.State{
	flinkrest.Initializing, flinkrest.Created, flinkrest.Running, flinkrest.Failing, flinkrest.Failed,
	flinkrest.Cancelling, flinkrest.Canceled, flinkrest.Finished, flinkrest.Restarting, flinkrest.Suspended, flinkrest.Reconciling,
}

// flinkState reads a job's state in any case. Flink spells CANCELED what the
// platform spells CANCELLED.
func flinkState(text string) (flinkrest.State, error) {
	state := flinkrest.State(strings.ToUpper(text))
	if state == "CANCELLED" {
		state = flinkrest.Canceled
	}
	if !slices.Contains(flinkStates, state) {
		return "", usagef(fmt.Sprintf("one of %v", flinkStates), "%q is no state of a job", text)
	}
	return state, nil
}

func (c *transitionCommand) onJobManagers(ctx context.Context, env *environment) (transitionResult, error) {
	r := transitionResult{Monitor: sighting{Name: c.MonitorJob}, Trigger: sighting{Name: c.TriggerJob}, Request: c.Action}
	if err := missing(map[string]string{"--monitor-state": c.MonitorState, "--action": c.Action}); err != nil {
		return r, err
	}
	awaited, err := flinkState(c.MonitorState)
	if err != nil {
		return r, err
	}
	monitor, err := c.jobManager.client(env)
	if err != nil {
		return r, err
	}
	trigger, same := monitor, c.TriggerJob == "" && c.TriggerJobmanager == ""
	if c.TriggerJobmanager != "" {
		other := c.jobManager
		other.JobManager = c.TriggerJobmanager
		if trigger, err = other.client(env); err != nil {
			return r, err
		}
	}

	r.Attempts, err = c.await(ctx, env, awaiting{answered: true, state: string(awaited), of: &r.Monitor, look: func(ctx context.Context) (bool, error) {
		job, err := newestJob(ctx, monitor, c.MonitorJob)
		if err != nil {
			return false, aboutJob(err, "--monitor-job")
		}
		r.Monitor = sighting{job.Name, job.ID, string(job.State)}
		// A step that stops what it waited for is done when it is repeated.
		repeated := same && c.Action != "none" && c.doneTo(job)
		return job.State == awaited || repeated, failedInstead(r.Monitor, string(awaited))
	}})
	if err != nil {
		return r, err
	}
	if c.Action == "none" {
		r.Result = resultWaited
		return r, nil
	}
	name := c.TriggerJob
	if same {
		name = r.Monitor.JobID
	}
	job, err := newestJob(ctx, trigger, name)
	if err != nil {
		return r, aboutJob(err, "--trigger-job")
	}
	r.Trigger = sighting{job.Name, job.ID, string(job.State)}
	return r, c.act(ctx, env, trigger, job, &r)
}

// doneTo reports whether a job is where the action leads. What was stopped with
// a savepoint has FINISHED.
func (c *transitionCommand) doneTo(job flinkrest.Job) bool {
	if c.Action == "stop" {
		return job.State == flinkrest.Finished
	}
	return !job.State.Live()
}

// act stops or cancels the job.
func (c *transitionCommand) act(ctx context.Context, env *environment, client *flinkrest.Client, job flinkrest.Job, r *transitionResult) (err error) {
	switch {
	case c.doneTo(job):
		r.Result = resultUnchanged
		return nil
	case !job.State.Live():
		return transitionErrorf("its state is in its last checkpoint, if that is kept", "%s is %s: there is nothing to stop", r.Trigger, job.State)
	case c.Action == "stop":
		env.note("stopping %s with a savepoint", r.Trigger)
		if r.Savepoint, err = c.savepointFlags.stop(ctx, client, job.ID); err != nil {
			return &hintedError{err, "the job may run on, or Flink may stop it all the same: look at it before the next step. Its JobManager's log says more"}
		}
		r.Result, r.Trigger.State = resultTriggered, string(flinkrest.Finished)
		return nil
	}
	if err := client.Cancel(ctx, job.ID); err != nil {
		return aboutJob(err, "--trigger-job")
	}
	r.Result = resultTriggered
	if !c.Wait {
		return nil
	}
	_, err = c.await(ctx, env, awaiting{answered: true, state: string(flinkrest.Canceled), of: &r.Trigger, look: func(ctx context.Context) (bool, error) {
		now, err := newestJob(ctx, client, job.ID)
		if isGone(err) {
			// In application mode the JobManager ends with its job, and this is all that can be known. One that does
			// not answer for a while may be there, and its job run.
			r.Warnings = append(r.Warnings, fmt.Sprintf("the JobManager went away after it took the request: %v", err))
			return true, nil
		}
		if err != nil {
			return false, aboutJob(err, "--trigger-job")
		}
		r.Trigger.State = string(now.State)
		return !now.State.Live(), nil
	}})
	return err
}

// newestJob is the live job with this name or id, else the one that started
// last. Any name will do if none is given.
func newestJob(ctx context.Context, client *flinkrest.Client, nameOrID string) (flinkrest.Job, error) {
	jobs, err := client.Jobs(ctx)
	if err != nil {
		return flinkrest.Job{}, err
	}
	var live, fit []flinkrest.Job
	for _, j := range jobs {
		if nameOrID != "" && nameOrID != j.Name && !strings.EqualFold(nameOrID, j.ID) {
			continue
		}
		fit = append(fit, j)
		if j.State.Live() {
			live = append(live, j)
		}
	}
	switch {
	case len(live) > 1:
		return flinkrest.Job{}, &flinkjob.AmbiguousError{URL: client.URL(), Jobs: live}
	case len(live) == 1:
		return live[0], nil
	case len(fit) == 0:
		return flinkrest.Job{}, &flinkjob.NoJobError{URL: client.URL(), Choice: flinkjob.Choice{Name: nameOrID}, Jobs: jobs}
	}
	return slices.MaxFunc(fit, func(a, b flinkrest.Job) int { return a.Start.Compare(b.Start) }), nil
}

// aboutJob adds the way out to what went wrong with a job of a step.
func aboutJob(err error, flag string) error {
	switch {
	case as[*flinkjob.AmbiguousError](err):
		return &hintedError{err, "name the job, or its id, with " + flag}
	case as[*flinkjob.NoJobError](err):
		return &hintedError{err, "is it submitted, and is this its JobManager? " + flag + " takes its name or id"}
	case errors.Is(err, flinkrest.ErrUnavailable):
		return &hintedError{err, "is the URL right and the JobManager up? In application mode it ends with its job: that may have happened already"}
	}
	return err
}
