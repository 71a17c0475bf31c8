package deploy

import (
	"fmt"
	"strings"
	"time"
)

// Kind is what to do with a job.
type Kind string

// The decisions, words of the JSON output.
const (
	Clean            Kind = "clean"             // start it without state
	Nothing          Kind = "nothing"           // it runs as it should
	SavepointClean   Kind = "savepoint-clean"   // stop it with a savepoint, start it without state
	SavepointRestore Kind = "savepoint-restore" // stop it with a savepoint, start it from that
	Restore          Kind = "restore"           // start it from the newest state that proves
	Error            Kind = "error"             // a person has to look
)

// Starts reports whether the decision ends in a job that is started.
func (k Kind) Starts() bool { return k != Nothing && k != Error }

// Job is one line of a JobManager's list.
type Job struct {
	ID, Name, State string
	Live            bool      // it goes on or may go on
	Start           time.Time // tells runs with a constant id apart
}

// ending reports whether a live job is on its way to its end, or may be.
func (j Job) ending() bool { return j.State == "CANCELLING" || j.State == "FAILING" }

// Facts are all that the decision about one job depends on.
type Facts struct {
	Wanted   Manifest  // merged and placed, without meta
	Deployed *Manifest // what was started last; nil for a new job
	Live     []Job     // those with its name
	State    State     // the newest of the deployed version that proves, if nothing is live

	// Highest is the highest version of which there may be state, deployed or not.
	Highest int

	// Unconfirmed says that Deployed is not what is stored: an earlier deploy
	// started it and ended before it was seen RUNNING.
	Unconfirmed bool
}

// Decision is what to do with a job, and why.
type Decision struct {
	Kind    Kind
	Reason  string
	Version int   // of the query, once the decision is carried out
	Err     error // why Kind is Error
}

// Decide walks the graph of flink-sql-runner, which docs/deploy.md shows. A job
// is never started without state unless its query is a new one. Where a job is
// not running and its settings changed, the original leaves open what happens
// without state; here that is an error, as if they had not changed.
func Decide(f Facts) Decision {
	old := f.Deployed
	switch {
	case len(f.Live) > 1:
		return failed(f, &AmbiguousError{f.Wanted.Name, f.Live})
	case len(f.Live) == 1 && f.Live[0].ending():
		return failed(f, &EndingError{f.Live[0]})
	case old == nil && len(f.Live) == 1:
		return failed(f, &UnknownJobError{f.Live[0]})
	case old == nil:
		return Decision{Kind: Clean, Reason: "new job", Version: f.Highest + 1}
	}
	changed := f.Wanted.changes(*old)
	newQuery := !f.Wanted.sameQuery(*old)
	next := max(f.Highest, old.Meta.Version) + 1
	if len(f.Live) == 1 {
		running := strings.ToLower(f.Live[0].State)
		switch {
		case newQuery:
			return Decision{Kind: SavepointClean, Reason: running + ", the query changed", Version: next}
		case len(changed) > 0:
			return Decision{Kind: SavepointRestore, Reason: running + ", changed: " + few(changed), Version: old.Meta.Version}
		case f.Unconfirmed:
			return Decision{Kind: Nothing, Reason: running + ", started by a deploy that ended before it was seen", Version: old.Meta.Version}
		}
		return Decision{Kind: Nothing, Reason: running + ", unchanged", Version: old.Meta.Version}
	}
	switch {
	case newQuery:
		return Decision{Kind: Clean, Reason: "not running, the query changed", Version: next}
	case f.State.Path.IsZero():
		return failed(f, &NoStateError{f.Wanted.Name, old.Meta.Version, f.State.Passed})
	}
	why := "not running, unchanged"
	if len(changed) > 0 {
		why = "not running, changed: " + few(changed)
	}
	return Decision{Kind: Restore, Reason: why + "; newest is " + f.State.describe(), Version: old.Meta.Version}
}

func failed(f Facts, err error) Decision {
	d := Decision{Kind: Error, Reason: err.Error(), Err: err}
	if f.Deployed != nil {
		d.Version = f.Deployed.Meta.Version
	}
	return d
}

// few keeps a reason on one line.
func few(names []string) string {
	if n := len(names); n > 3 {
		return fmt.Sprintf("%s, … (%d)", strings.Join(names[:3], ", "), n)
	}
	return strings.Join(names, ", ")
}
