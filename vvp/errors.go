package vvp

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/chkpin/chkpin/internal/rest"
)

// Conditions to test for with [errors.Is]. Every error of this package is one of these three, or wraps the error of a
// context that the caller cancelled or whose deadline the caller set.
var (
	// ErrConfig says that the caller's settings cannot be used: the URL, a file, a state.
	ErrConfig = errors.New("invalid settings for the platform")

	// ErrNotFound says that the platform answered 404: the namespace has no such deployment.
	ErrNotFound = errors.New("no such deployment")

	// ErrUnavailable says that no usable answer came: the connection failed, the certificate is not trusted, the
	// platform refused (401, 403) or failed, or the answer is not a platform's.
	ErrUnavailable = errors.New("the platform gave no usable answer")
)

// CallError is a call that did not bring what it was made for. It is [ErrNotFound] or [ErrUnavailable], never both.
type CallError struct {
	Method string
	URL    string
	Err    error // a *StatusError, or what went wrong on the way
}

func (e *CallError) Error() string { return fmt.Sprintf("%s %s: %v", e.Method, e.URL, e.Err) }
func (e *CallError) Unwrap() error { return e.Err }

// Is makes every CallError that is not [ErrNotFound] an [ErrUnavailable].
func (e *CallError) Is(target error) bool {
	return target == ErrUnavailable && !errors.Is(e.Err, ErrNotFound)
}

// StatusError is an answer with another status than 2xx.
type StatusError struct {
	Code    int
	Message string // "message" of a JSON answer, one line; for people
}

func newStatusError(code int, body []byte) *StatusError {
	var answer struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(body, &answer) // an answer of another shape has no message for us
	return &StatusError{Code: code, Message: rest.Line(answer.Message)}
}

func (e *StatusError) Error() string {
	text := strings.TrimSpace(fmt.Sprintf("%d %s", e.Code, http.StatusText(e.Code)))
	switch {
	case e.Message != "":
		return text + ": " + e.Message
	case e.Code/100 == 3:
		return text + ": it redirects, as to a login page or to https"
	}
	return text
}

// Is makes 404 an [ErrNotFound].
func (e *StatusError) Is(target error) bool {
	return target == ErrNotFound && e.Code == http.StatusNotFound
}

// configError is an [ErrConfig] that says what is wrong.
func configError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrConfig, fmt.Errorf(format, args...))
}
