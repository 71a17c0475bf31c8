package rest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/chkpin/chkpin/internal/rest"
	"github.com/stretchr/testify/require"
)

// TestMain gives the process a proxy before anything asks for it: net/http reads the environment once. Servers on
// the loopback are never reached through it.
func TestMain(m *testing.M) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `"through the proxy to %s"`, r.URL.Host)
	}))
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy", "NO_PROXY", "HTTPS_PROXY"} {
		os.Unsetenv(name)
	}
	os.Setenv("HTTP_PROXY", proxy.URL)
	code := m.Run()
	proxy.Close()
	os.Exit(code)
}

var (
	errConfig      = errors.New("invalid settings")
	errUnavailable = errors.New("no usable answer")
)

// failure is the error of a call, as a client makes it.
type failure rest.Call

func (f *failure) Error() string        { return fmt.Sprintf("%v (%d attempts)", f.Err, f.Attempts) }
func (f *failure) Is(target error) bool { return target == errUnavailable }

// client is the least that can be made of the package: 200 is good, and 502 and 503 pass.
type client struct{ *rest.Client }

func open(config rest.Config) (*client, error) {
	c, err := rest.New(config, rest.Server{
		Name:      "test server",
		ErrConfig: errConfig,
		Decode: func(from rest.Answer, into any) error {
			if from.Status != 200 {
				return fmt.Errorf("%d %s", from.Status, http.StatusText(from.Status))
			}
			return from.JSON(into)
		},
		Again: func(_ string, status int) bool { return status == 502 || status == 503 },
		Failed: func(call rest.Call) error {
			failed := failure(call)
			return &failed
		},
	})
	if err != nil {
		return nil, err
	}
	return &client{c}, nil
}

// call asks for anything.
func (c *client) call(ctx context.Context) error {
	var answer any
	return c.Call(ctx, http.MethodGet, c.URL("page"), nil, &answer)
}

// connect opens a client that waits no longer than it must before a retry.
func connect(t *testing.T, config rest.Config) *client {
	t.Helper()
	config.RetryWait = time.Millisecond
	client, err := open(config)
	require.NoError(t, err)
	return client
}

// answer is a handler that always says the same.
func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// roundTrip is a network in one function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// respond records what handler answers to request.
func respond(request *http.Request, handler http.HandlerFunc) *http.Response {
	recorder := httptest.NewRecorder()
	handler(recorder, request)
	return recorder.Result()
}
