package stall_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore/internal/stall"
)

const limit = 30 * time.Second

// silent takes a request and never answers.
func silent(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// answers gives an answer, and its body piece by piece with as long between two.
func answers(pause time.Duration, pieces ...string) stall.Send {
	return func(r *http.Request) (*http.Response, error) {
		body, w := io.Pipe()
		go func() {
			for _, piece := range pieces {
				select {
				case <-time.After(pause):
				case <-r.Context().Done():
					w.CloseWithError(r.Context().Err())
					return
				}
				if _, err := io.WriteString(w, piece); err != nil {
					return
				}
			}
			w.Close()
		}()
		return &http.Response{Body: body}, nil
	}
}

// takes reads a request's body with a pause before each byte, and answers.
func takes(pause time.Duration) stall.Send {
	return func(r *http.Request) (*http.Response, error) {
		for one := make([]byte, 1); ; {
			select {
			case <-time.After(pause):
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
			if _, err := r.Body.Read(one); err == io.EOF {
				return &http.Response{Body: http.NoBody}, nil
			} else if err != nil {
				return nil, err
			}
		}
	}
}

// slow is a body that its owner provides a byte at a time.
type slow struct {
	io.Reader
	pause time.Duration
}

func (s slow) Read(p []byte) (int, error) {
	time.Sleep(s.pause)
	return s.Reader.Read(p[:1])
}

func request(t *testing.T, ctx context.Context, method string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, "http://storage/", body)
	require.NoError(t, err)
	return r
}

func TestSilence(t *testing.T) {
	for method, after := range map[string]time.Duration{
		http.MethodGet: limit, http.MethodHead: limit,
		http.MethodPut: 20 * limit, http.MethodPost: 20 * limit, http.MethodDelete: 20 * limit,
	} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				_, err := stall.Limit(silent, limit)(request(t, t.Context(), method, nil))
				var stalled *stall.Error
				require.ErrorAs(t, err, &stalled)
				assert.Equal(t, after, time.Since(began))
				assert.EqualError(t, err, "no answer within "+after.String())
				assert.True(t, stalled.RetryableError())
			})
		})
	}
}

func TestZeroIsTheDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := stall.Limit(silent, 0)(request(t, t.Context(), http.MethodGet, nil))
		require.Error(t, err)
		assert.Equal(t, stall.DefaultSilence, time.Since(began))
	})
}

// The caller's own end is the caller's own error.
func TestTheCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), limit/2)
		defer cancel()
		_, err := stall.Limit(silent, limit)(request(t, ctx, http.MethodGet, nil))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.NotErrorAs(t, err, new(*stall.Error))
	})
}

func TestOtherErrorsStay(t *testing.T) {
	refused := errors.New("connection refused")
	_, err := stall.Limit(func(*http.Request) (*http.Response, error) { return nil, refused }, limit)(request(t, t.Context(), http.MethodGet, nil))
	require.Equal(t, refused, err)
}

// An answer may take as long as it wants, as long as it goes on; and so may who
// reads it.
func TestLongAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resp, err := stall.Limit(answers(limit-time.Second, "a", "b", "c"), limit)(request(t, t.Context(), http.MethodGet, nil))
		require.NoError(t, err)
		defer resp.Body.Close()
		var got []byte
		for one := make([]byte, 1); ; {
			n, err := resp.Body.Read(one)
			got = append(got, one[:n]...)
			if err != nil {
				require.Equal(t, io.EOF, err)
				break
			}
			time.Sleep(3 * limit)
		}
		assert.Equal(t, "abc", string(got))
	})
}

func TestAnswerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resp, err := stall.Limit(answers(limit+time.Second, "a"), limit)(request(t, t.Context(), http.MethodGet, nil))
		require.NoError(t, err)
		defer resp.Body.Close()
		_, err = io.ReadAll(resp.Body)
		require.ErrorAs(t, err, new(*stall.Error))
	})
}

// So it is with what is sent: neither a service that takes it slowly nor a caller
// who provides it slowly is silent.
func TestLongRequests(t *testing.T) {
	for name, c := range map[string]struct {
		takes, gives time.Duration
		stalls       bool
	}{
		"the service is slow":  {takes: 19 * limit},
		"the caller is slow":   {gives: 30 * limit},
		"the service is stuck": {takes: 21 * limit, stalls: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, err := stall.Limit(takes(c.takes), limit)(request(t, t.Context(), http.MethodPut, slow{strings.NewReader("abc"), c.gives}))
				if c.stalls {
					require.ErrorAs(t, err, new(*stall.Error))
				} else {
					require.NoError(t, err)
				}
			})
		})
	}
}

// A connection that breaks while it is reused has the transport ask for the body
// anew.
func TestBodyAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		anew := func(r *http.Request) (_ *http.Response, err error) {
			if r.Body, err = r.GetBody(); err != nil {
				return nil, err
			}
			return takes(19 * limit)(r)
		}
		_, err := stall.Limit(anew, limit)(request(t, t.Context(), http.MethodPut, strings.NewReader("abc")))
		require.NoError(t, err)
	})
}
