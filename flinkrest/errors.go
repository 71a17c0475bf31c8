package flinkrest

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/chkpin/chkpin/internal/rest"
)

// Conditions to test for with [errors.Is]. Every error of this package is one of these three, or wraps the error
// of a context that the caller cancelled or whose deadline the caller set.
var (
	// ErrConfig says that the caller's settings cannot be used: the URL, a certificate or credential file, a job id.
	ErrConfig = errors.New("invalid JobManager settings")

	// ErrNotFound says that the JobManager does not know the job, or that the job has no checkpointing.
	// Flink answers both with 404 (FlinkJobNotFoundException; CheckpointingStatisticsHandler,
	// CheckpointConfigHandler) and tells them apart only in prose; list the jobs to know which. About checkpoints
	// 2.3.0 goes on with it for 3 s when it has long recovered the job.
	ErrNotFound = errors.New("job or its checkpointing not found")

	// ErrUnavailable says that no usable answer came: the connection failed, the certificate is not trusted, the
	// server refused or failed, the answer is cut off, too large or not a JobManager's. What is known of the job is
	// what was known before the call.
	ErrUnavailable = errors.New("JobManager gave no usable answer")
)

// CallError is a call that brought no usable answer. It is [ErrNotFound] or [ErrUnavailable], never both.
type CallError struct {
	Method   string
	URL      string // without user information
	Attempts int    // requests sent, retries included
	Err      error  // a *StatusError, or what went wrong on the way
}

func (e *CallError) Error() string {
	attempts := ""
	if e.Attempts > 1 {
		attempts = fmt.Sprintf(" (%d attempts)", e.Attempts)
	}
	return fmt.Sprintf("%s %s: %v%s", e.Method, e.URL, e.Err, attempts)
}

func (e *CallError) Unwrap() error { return e.Err }

// Is makes every CallError that is not [ErrNotFound] an [ErrUnavailable].
func (e *CallError) Is(target error) bool {
	return target == ErrUnavailable && !errors.Is(e.Err, ErrNotFound)
}

// StatusError is an answer with another status than 200.
type StatusError struct {
	Code int

	// Messages is the "errors" array of Flink's answer (ErrorResponseBody), as it came; empty when the answer was
	// not Flink's. The texts are for people: releases differ, and 1.20 and 2.x put Java stack traces here.
	Messages []string

	notFound bool
}

// Error holds the status and the first line of the first message, shortened.
func (e *StatusError) Error() string {
	text := strings.TrimSpace(fmt.Sprintf("%d %s", e.Code, http.StatusText(e.Code)))
	if len(e.Messages) > 0 {
		if line := rest.Line(e.Messages[0]); line != "" {
			return text + ": " + line
		}
	}
	if e.Code == http.StatusNotFound {
		return text + ": is this a JobManager's URL?"
	}
	return text
}

// Is makes an answer that names a missing job, or a job without checkpointing, [ErrNotFound].
func (e *StatusError) Is(target error) bool {
	return target == ErrNotFound && e.notFound
}

// configError is an [ErrConfig] that says what is wrong.
func configError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrConfig, fmt.Errorf(format, args...))
}
