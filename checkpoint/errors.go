package checkpoint

import (
	"errors"
	"fmt"
	"strings"
)

// Conditions, for errors.Is.
var (
	// ErrNoCheckpoint: the job has no completed checkpoint that could be pinned.
	ErrNoCheckpoint = errors.New("no completed checkpoint")

	// ErrNotAddressable: the job's checkpoints live in the memory of its
	// JobManager only.
	ErrNotAddressable = errors.New("checkpoints are kept by the JobManager only and have no path")

	// ErrNoPin: nothing was ever pinned for this application.
	ErrNoPin = errors.New("nothing was ever pinned here")

	// ErrPinGone: state was pinned here once, and no pin is left.
	ErrPinGone = errors.New("state was pinned here once, but no pin is left")

	// ErrNewer: the pin holds something newer than what was to be published.
	ErrNewer = errors.New("the pin is newer")

	// ErrTooLarge: more would be copied than PinOptions.MaxBytes allows.
	ErrTooLarge = errors.New("more bytes than allowed")

	// ErrTooOld: the pin is older than ResolveOptions.MaxAge.
	ErrTooOld = errors.New("the pin is too old")

	// ErrInsideJob: the application's folder lies in the checkpoint folder of
	// the job, where Flink deletes.
	ErrInsideJob = errors.New("the folder lies inside the job's own checkpoint folder")

	// ErrCollecting: a collection of garbage is about to delete files that the
	// checkpoint names again.
	ErrCollecting = errors.New("a collection of garbage is at work on files of this checkpoint")

	// ErrLayout: a newer chkpin wrote what is there, in a layout that this one does
	// not know. The cause of a *[DamagedError].
	ErrLayout = errors.New("a newer chkpin wrote it")

	// ErrDeadline: the time was over before anything was published.
	ErrDeadline = errors.New("out of time before publishing")
)

// DamagedError says that a checkpoint or pin cannot restore, or cannot be shown
// to: files that are missing or of another size, or a metadata file that does
// not parse (then Err wraps a *metadata.FormatError).
type DamagedError struct {
	URI       string   // the checkpoint's or pin's metadata file
	Missing   []string // URIs
	WrongSize []string // URIs
	Err       error

	// Unclosed: all that is missing, or too short, are merged files in an object
	// store, and not those of a pin. Where they hold state of several checkpoints,
	// Flink goes on writing to them after one is complete, and before it closes them
	// they are not there (S3) or empty (Azure; FileMergingSnapshotManager, measured
	// with 1.20.5 and 2.3.0). Where they do not, Flink has deleted them.
	Unclosed bool
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s does not restore: %s", e.URI, e.Reason())
}

// Reason is what is wrong, without the name of the metadata file.
func (e *DamagedError) Reason() string {
	var parts []string
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	if n := len(e.Missing); n > 1 || n == 1 && (e.Missing[0] != e.URI || e.Err == nil) { // Err says it already
		parts = append(parts, fmt.Sprintf("%s missing: %s", plural(n, "file"), few(e.Missing)))
	}
	if n := len(e.WrongSize); n > 0 {
		parts = append(parts, fmt.Sprintf("%s of the wrong size: %s", plural(n, "file"), few(e.WrongSize)))
	}
	return strings.Join(parts, "; ")
}

func (e *DamagedError) Unwrap() error { return e.Err }

// VanishedError says that in the last tries of a tick the job's newest checkpoint
// was deleted while it was copied: nothing is damaged, the job has moved on each
// time.
type VanishedError struct {
	Times int           // in a row
	Last  *DamagedError // what was missing of the last
}

func (e *VanishedError) Error() string {
	times := ""
	if e.Times > 1 {
		times = fmt.Sprintf(", %d times in a row", e.Times)
	}
	return fmt.Sprintf("the job's newest checkpoint was deleted while it was copied%s; the last was %s (%s)", times, e.Last.URI, e.Last.Reason())
}

func (e *VanishedError) Unwrap() error { return e.Last }

// HeldError says why a tick left the pin alone although the job has a newer
// checkpoint.
type HeldError struct {
	Pinned Record
	Run    Run
	Reason string
	Hold   *Hold // when it is the pin that is on hold, not this run that is refused
}

func (e *HeldError) Error() string {
	if e.Pinned.Generation == "" {
		return "held: " + e.Reason
	}
	return fmt.Sprintf("held: %s (pinned: checkpoint %d of job %s; this run: job %s started %s)",
		e.Reason, e.Pinned.Checkpoint.ID, e.Pinned.Run.JobID, e.Run.JobID, e.Run.StartTime())
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// few names at most three, since a message is one line.
func few(names []string) string {
	if len(names) > 3 {
		return strings.Join(names[:3], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}
