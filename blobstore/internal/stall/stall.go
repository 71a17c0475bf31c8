// Package stall ends requests on which nothing moves any more. A connection whose
// other end is gone without a word, or a service that takes a request and never
// answers, would else keep a caller without a deadline for good.
package stall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Send sends a request, as [http.RoundTripper] does.
type Send func(*http.Request) (*http.Response, error)

// RoundTrip makes it a [http.RoundTripper].
func (s Send) RoundTrip(r *http.Request) (*http.Response, error) { return s(r) }

// Do makes it a client of the AWS SDK.
func (s Send) Do(r *http.Request) (*http.Response, error) { return s(r) }

// Error says that a request was given up. The SDKs try it again.
type Error struct {
	Silence time.Duration
}

func (e *Error) Error() string { return fmt.Sprintf("no answer within %v", e.Silence) }

// Timeout and Temporary make it a [net.Error], which Azure's SDK looks for when a
// body breaks off; the AWS SDK asks for RetryableError.
func (e *Error) Timeout() bool        { return true }
func (e *Error) Temporary() bool      { return true }
func (e *Error) RetryableError() bool { return true }

var _ net.Error = (*Error)(nil)

// DefaultSilence is the limit for requests that only read. All services answer
// these within a few seconds.
const DefaultSilence = 30 * time.Second

// Limit has requests given up when the service takes or sends no byte for the time
// silence, 0 for [DefaultSilence]; a request that may make the service copy an
// object before it answers, which is any but GET and HEAD, has twenty times as long.
// What the caller takes to provide a body or to read an answer does not count.
func Limit(send Send, silence time.Duration) Send {
	if silence == 0 {
		silence = DefaultSilence
	}
	return func(r *http.Request) (*http.Response, error) {
		limit := silence
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			limit *= 20
		}
		ctx, cancel := context.WithCancelCause(r.Context())
		w := &watch{parent: r.Context(), ctx: ctx, cancel: cancel, limit: limit}
		w.timer = time.AfterFunc(limit, func() { cancel(&Error{limit}) })

		r = r.WithContext(ctx)
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &request{r.Body, w}
			if again := r.GetBody; again != nil {
				r.GetBody = func() (io.ReadCloser, error) {
					body, err := again()
					return &request{body, w}, err
				}
			}
		}
		resp, err := send(r)
		w.answered()
		if err != nil {
			err = w.explain(err)
			cancel(nil)
			return resp, err
		}
		if resp.Body == nil || resp.Body == http.NoBody {
			cancel(nil)
			return resp, nil
		}
		resp.Body = &answer{resp.Body, w}
		return resp, nil
	}
}

// watch is the clock of one request.
type watch struct {
	parent, ctx context.Context
	cancel      context.CancelCauseFunc
	limit       time.Duration

	mu       sync.Mutex
	timer    *time.Timer
	complete bool // the answer has begun: how the request's body ends is of no interest
}

func (w *watch) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.complete = true
	w.timer.Stop()
}

// sending starts the clock again, or stops it, while the request is under way.
func (w *watch) sending(run bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.complete {
		return
	}
	w.timer.Stop()
	if run {
		w.timer.Reset(w.limit)
	}
}

// explain says why a request was given up, if this did it.
func (w *watch) explain(err error) error {
	if stalled, ok := errors.AsType[*Error](context.Cause(w.ctx)); ok && w.parent.Err() == nil {
		return stalled
	}
	return err
}

// request is a body to be sent.
type request struct {
	io.ReadCloser
	watch *watch
}

func (r *request) Read(p []byte) (int, error) {
	r.watch.sending(false)
	defer r.watch.sending(true)
	return r.ReadCloser.Read(p)
}

// answer is a body that is received.
type answer struct {
	io.ReadCloser
	watch *watch
}

func (a *answer) Read(p []byte) (int, error) {
	a.watch.timer.Reset(a.watch.limit)
	n, err := a.ReadCloser.Read(p)
	a.watch.timer.Stop()
	if err != nil && err != io.EOF {
		err = a.watch.explain(err)
	}
	return n, err
}

func (a *answer) Close() error {
	err := a.ReadCloser.Close()
	a.watch.cancel(nil)
	return err
}
