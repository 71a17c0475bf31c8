package deploy

import (
	"errors"
	"fmt"
	"strings"
)

// ErrOtherDeploy: another deploy works on the same job, or took it over.
var ErrOtherDeploy = errors.New("another deploy is at work on this job")

// ErrNoState: a job should go on from state, and there is none.
var ErrNoState = errors.New("no checkpoint or savepoint")

// NoStateError: a job should go on from state, and none proves. It is an
// [ErrNoState] when nothing was found.
type NoStateError struct {
	Name    string
	Version int
	Passed  []string // what was found and does not prove, with the reason
}

func (e *NoStateError) Error() string {
	if len(e.Passed) == 0 {
		return fmt.Sprintf("not running, and there is no checkpoint or savepoint of version %d", e.Version)
	}
	return fmt.Sprintf("not running, and no checkpoint or savepoint of version %d restores: %s", e.Version, strings.Join(e.Passed, "; "))
}

// Is makes it an [ErrNoState].
func (e *NoStateError) Is(target error) bool { return target == ErrNoState && len(e.Passed) == 0 }

// AmbiguousError: several live jobs have the name.
type AmbiguousError struct {
	Name string
	Jobs []Job
}

func (e *AmbiguousError) Error() string {
	var jobs []string
	for _, j := range e.Jobs {
		jobs = append(jobs, fmt.Sprintf("%s (%s)", j.ID, j.State))
	}
	return fmt.Sprintf("%d jobs are named %q: %s", len(e.Jobs), e.Name, strings.Join(jobs, ", "))
}

// EndingError: the job is about to end, one way or another.
type EndingError struct{ Job Job }

func (e *EndingError) Error() string { return fmt.Sprintf("job %s is %s", e.Job.ID, e.Job.State) }

// UnknownJobError: a job runs under the name of one that was never deployed.
type UnknownJobError struct{ Job Job }

func (e *UnknownJobError) Error() string {
	return fmt.Sprintf("no manifest of it is stored, but job %s (%s) runs under its name", e.Job.ID, e.Job.State)
}

// SavepointError: the job could not be stopped with a savepoint, and none is
// known of.
type SavepointError struct {
	Job Job
	Err error
}

func (e *SavepointError) Error() string {
	return fmt.Sprintf("stopping job %s with a savepoint: %v", e.Job.ID, e.Err)
}

func (e *SavepointError) Unwrap() error { return e.Err }

// StartError: a job was not seen RUNNING after its start. What is stored was left
// alone, so the next deploy decides as this one did.
type StartError struct {
	Restore string // what it should have started from; "" for no state
	Err     error
}

func (e *StartError) Error() string {
	if e.Restore == "" {
		return fmt.Sprintf("start without state: %v", e.Err)
	}
	return fmt.Sprintf("start from %s: %v", e.Restore, e.Err)
}

func (e *StartError) Unwrap() error { return e.Err }

// StoredError: a stored manifest cannot be read.
type StoredError struct{ Err error }

func (e *StoredError) Error() string { return "the stored manifest cannot be used: " + e.Err.Error() }

func (e *StoredError) Unwrap() error { return e.Err }
