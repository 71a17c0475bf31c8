package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/deploy"
	"github.com/chkpin/chkpin/flinkjob"
	"github.com/chkpin/chkpin/flinkrest"
	"github.com/chkpin/chkpin/vvp"
)

// outcome is one line of the table of exit codes.
type outcome struct {
	code    int
	result  string // the word in JSON results
	meaning string
}

// The exit codes, an interface: a CronJob's podFailurePolicy matches them. 2 is
// not used, since a Go panic exits with it.
var (
	done        = outcome{0, "done", "done, or nothing to do"}
	failed      = outcome{1, "failed", "unexpected failure"}
	nothing     = outcome{3, "nothing", "nothing there: no job, no checkpoint that could be pinned, no pin"}
	damaged     = outcome{4, "damaged", "damaged, dangling, or of a format this chkpin does not know"}
	ambiguous   = outcome{5, "ambiguous", "several jobs could be meant"}
	refused     = outcome{6, "refused", "refused: newer pin, occupied destination, --max-age, --max-bytes"}
	held        = outcome{7, "held", "held: the job does not descend from the pin, or the pin is on hold"}
	unreachable = outcome{8, "unreachable", "JobManager or platform unreachable or answering errors"}
	denied      = outcome{9, "denied", "storage denied or unreachable"}
	different   = outcome{10, "different", "diff: the two differ"}
	misused     = outcome{80, "usage", "usage or configuration"}
	stopped     = outcome{130, "interrupted", "interrupted (143 by SIGTERM)"}
)

var outcomes = []outcome{done, failed, nothing, damaged, ambiguous, refused, held, unreachable, denied, different, misused, stopped}

func exitTable() string {
	var b strings.Builder
	for _, o := range outcomes {
		fmt.Fprintf(&b, "  %3d  %s\n", o.code, o.meaning)
	}
	return b.String()
}

// verdict is how one kind of error ends the process. The first that matches
// counts.
type verdict struct {
	outcome
	matches func(error) bool
	hint    string // the way out
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func as[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

var verdicts = []verdict{
	{misused, as[*usageError], ""},
	{misused, as[*kong.ParseError], "chkpin --help lists the commands, chkpin COMMAND --help their flags"},
	{damaged, as[*deploy.StoredError], "look at the file; chkpin deploy and flink-sql-runner write it"},
	{misused, as[*deploy.ManifestError], "docs/deploy.md shows what a manifest holds"},
	{refused, is(deploy.ErrOtherDeploy), "let it come to its end and run this one again"},
	{ambiguous, as[*deploy.AmbiguousError], "cancel all but the one that is wanted, with flink cancel, and deploy again"},
	{refused, as[*deploy.EndingError], "deploy again when it has ended"},
	{refused, as[*deploy.UnknownJobError], "is --manifests right? Else stop the job, or give this one another name"},
	{nothing, is(deploy.ErrNoState), "is --state right, and the volume mounted? Put state back, or delete the stored manifest to start without state"},
	{damaged, as[*deploy.NoStateError], "chkpin verify shows what is wrong with each; put state back, or delete the stored manifest to start without state"},
	{misused, is(flinkrest.ErrConfig), "chkpin pin --help lists what says how to reach a JobManager"},
	{misused, notAURI, ""},
	{misused, is(blobstore.ErrScheme), "this chkpin stores to file:, s3: (also s3a, s3p) and wasbs: URIs (also wasb, abfs, abfss)"},
	{misused, is(checkpoint.ErrInsideJob), "choose a folder beside those of checkpoints, not in one: Flink deletes there"},
	{misused, is(checkpoint.ErrNested), "copy to a folder of its own, beside the source and outside of any last-state/"},
	{ambiguous, as[*flinkjob.AmbiguousError], "name the job with --job or --job-id"},
	{nothing, as[*flinkjob.NoJobError], "is the job running, and is this its JobManager? --tolerate no-job makes this exit 0"},
	{nothing, is(flinkjob.ErrCheckpointingOff), "set execution.checkpointing.interval in Flink's configuration"},
	{nothing, is(checkpoint.ErrNotAddressable), "set execution.checkpointing.dir (state.checkpoints.dir before 1.20) in Flink's configuration"},
	{nothing, is(checkpoint.ErrNoCheckpoint), "wait for the job's next one; --tolerate no-checkpoint makes this exit 0"},
	{nothing, is(checkpoint.ErrNoPin), "chkpin pin makes a pin; is the URI right, and the volume mounted?"},
	{nothing, is(errNothingListed), "is the URI right? Without --job and --restorable everything is listed"},
	{damaged, as[*damagedListing], "chkpin verify URI names the files; --restorable leaves these lines out"},
	{damaged, is(checkpoint.ErrPinGone), "find a checkpoint or savepoint that chkpin verify calls restorable; do not start without state by accident"},
	{held, rollbackUnfinished, "chkpin rollback <app> finishes the rollback; chkpin rollback --release <app> gives it up, and the pin back to the job that runs"},
	{held, onHold, "restart the job with what chkpin resolve prints: the hold ends when that run is pinned; " +
		"chkpin rollback --release <app> gives the pin back to the job that runs"},
	{held, as[*checkpoint.HeldError], "restart the job with what chkpin resolve prints, or pin this run once with --accept-lineage"},
	{failed, as[*savepointError], ""},
	{nothing, is(checkpoint.ErrNoGeneration), "name one of these, by its full name, its number or chk-N; where there is none, the next ticks make some"},
	{misused, is(checkpoint.ErrSeveralGenerations), "name one of these by its full name"},
	{failed, as[*deploy.StartError], "the JobManager's log says more; what is stored was left alone, so the next deploy decides as this one did"},
	{refused, is(checkpoint.ErrNewer), "another chkpin may be at work; the next tick settles it"},
	{refused, is(checkpoint.ErrCollecting), "the next tick settles it"},
	{refused, is(checkpoint.ErrOccupied), "copy to a folder that holds nothing; an earlier copy of the same pin is known by the origin in its last-state/pin.json, until a job is pinned there"},
	{refused, is(checkpoint.ErrTooLarge), "raise --max-bytes, or make checkpoints incremental"},
	{refused, is(checkpoint.ErrTooOld), "raise --max-age if state of this age may be used"},
	{refused, as[*runningError], "stop the job first, with chkpin stop; without --strict this is a warning"},
	{failed, is(checkpoint.ErrDeadline), "raise --timeout; the pin is whole: the old one, unless the very last write was under way"},
	{failed, is(checkpoint.ErrCollectTime), "what was deleted is garbage; run it again, or raise --timeout"},
	{damaged, unclosed, "does the job merge files across checkpoints (execution.checkpointing.file-merging.across-checkpoint-boundary)? " +
		"In S3 and Azure such a file is not there before Flink closes it: turn that off, or pin a savepoint with chkpin stop. " +
		"If it does not, Flink deleted the checkpoint meanwhile: set num-retained to 2 or more. The pin was left alone"},
	{damaged, as[*checkpoint.VanishedError], "set execution.checkpointing.num-retained (state.checkpoints.num-retained before 1.20) to 2 or more, or a longer interval, " +
		"so that a checkpoint outlives its copy; the pin was left alone"},
	{damaged, is(checkpoint.ErrLayout), hintLayout},
	{damaged, as[*checkpoint.DamagedError], "chkpin verify shows what is wrong"},
	{unreachable, is(flinkrest.ErrUnavailable), "is the URL right and the JobManager up? The pin was left alone"},
	{misused, is(vvp.ErrConfig), "chkpin transition --help lists what says how to reach the platform"},
	{failed, as[*transitionError], ""},
	{nothing, is(vvp.ErrNotFound), "check the name of the deployment, the namespace, and that this is the platform's address"},
	{unreachable, is(vvp.ErrUnavailable), "are host and port right, is the platform up, and may this token read and edit deployments?"},
	{misused, is(syscall.ENAMETOOLONG), "on a volume a folder's name has at most 255 bytes; with --all it is the job's: give the job a shorter one (pipeline.name), or pin it alone with --job-id"},
	{denied, is(blobstore.ErrPermission), "check the rights of the user that chkpin runs as"},
	{denied, writing, "check that the storage is there and can be written to"},
	{nothing, is(blobstore.ErrNotExist), "check the URI"},
	{denied, as[*blobstore.Error], "check that the storage is there and reachable"},
}

// notAURI: what somebody wrote as a URI is none. One that a damaged checkpoint
// names is damage.
func notAURI(err error) bool {
	return errors.Is(err, blobstore.ErrURI) && !as[*checkpoint.DamagedError](err)
}

// hintLayout is the way out whatever the command.
const hintLayout = "take the chkpin that wrote it, or a newer one; this one changes nothing there"

// writing: a write that failed, and not since its source broke off. What does not
// exist then is the place to write to, as on a volume that is not mounted.
func writing(err error) bool {
	e, ok := errors.AsType[*blobstore.Error](err)
	if !ok || e.Op != "put" && e.Op != "copy" && e.Op != "delete" {
		return false
	}
	for inner := e; ok; inner, ok = errors.AsType[*blobstore.Error](inner.Err) {
		if inner.Op == "read" {
			return false
		}
	}
	return true
}

// unclosed: what is missing are files that Flink may not have written yet.
func unclosed(err error) bool {
	e, ok := errors.AsType[*checkpoint.DamagedError](err)
	return ok && e.Unclosed
}

// onHold: the pin is held, whatever the run.
func onHold(err error) bool {
	e, ok := errors.AsType[*checkpoint.HeldError](err)
	return ok && e.Hold != nil
}

// rollbackUnfinished: the pin is held, and is not what it is held for.
func rollbackUnfinished(err error) bool {
	e, ok := errors.AsType[*checkpoint.HeldError](err)
	return ok && e.Hold != nil && e.Hold.Unfinished(e.Pinned.Generation)
}

func verdictOf(ctx context.Context, err error) verdict {
	if err == nil {
		return verdict{outcome: done}
	}
	if sig, ok := errors.AsType[interrupted](context.Cause(ctx)); ok {
		v := verdict{outcome: stopped}
		if sig.signal == syscall.SIGTERM {
			v.code = 143
		}
		return v
	}
	if a, ok := errors.AsType[*answered](err); ok {
		return verdict{outcome: a.outcome}
	}
	for _, v := range verdicts {
		if v.matches(err) {
			return v
		}
	}
	return verdict{outcome: failed}
}

// exitCode prints an error with the way out, and returns its code.
func exitCode(ctx context.Context, err error, stderr io.Writer) int {
	v := verdictOf(ctx, err)
	if err == nil || as[*answered](err) {
		return v.code
	}
	hint := hintFor(err, v)
	if v.result == stopped.result {
		err = context.Cause(ctx)
	}
	fmt.Fprintf(stderr, "%s %v\n", red.paint(stderr, "chkpin:"), err)
	if hint != "" {
		fmt.Fprintf(stderr, "%s %s\n", cyan.paint(stderr, "hint:"), hint)
	}
	return v.code
}

// answered ends a command that did what it was asked for, and whose answer is
// in the exit code as well as on stdout. It is no error, and nothing is printed
// for it.
type answered struct{ outcome }

func (a *answered) Error() string { return a.meaning }

// hintFor is the way out that an error brings along, or else the table's.
func hintFor(err error, v verdict) string {
	if errors.Is(err, checkpoint.ErrLayout) {
		return hintLayout
	}
	return cmp.Or(hintOf(err), v.hint)
}

// hintOf is the hint that an error brings along, the outermost one: a command or
// a store knows a better way out than the table.
func hintOf(err error) string {
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		return hinted.Hint()
	}
	return ""
}

// hintedError is an error for which a command knows a better way out than the
// table.
type hintedError struct {
	error
	hint string
}

func (e *hintedError) Unwrap() error { return e.error }
func (e *hintedError) Hint() string  { return e.hint }

// usageError is a command line that makes no sense, found by a command itself.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(hint, format string, args ...any) error {
	return &hintedError{&usageError{fmt.Sprintf(format, args...)}, hint}
}
