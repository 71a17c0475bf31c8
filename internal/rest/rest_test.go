package rest_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chkpin/chkpin/internal/rest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRetriesCanBeTurnedOff(t *testing.T) {
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader(503)
	}))
	t.Cleanup(server.Close)
	client := connect(t, rest.Config{URL: server.URL, Retries: -1})
	err := client.call(t.Context())
	require.ErrorIs(t, err, errUnavailable)
	assert.EqualValues(t, 1, calls.Load())
}

func TestConnectionRefused(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())

	client := connect(t, rest.Config{URL: "http://" + listener.Addr().String(), Retries: 2})
	err = client.call(t.Context())
	require.ErrorIs(t, err, errUnavailable)
	assert.ErrorContains(t, err, "connection refused (3 attempts)")
}

// The way to the server may be away for a moment: a pod's network that is not up yet, a DNS that restarts. A name that
// is not known is not.
func TestTheWayIsLost(t *testing.T) {
	for name, test := range map[string]struct {
		err   error
		calls int
	}{
		"no network yet":    {&net.OpError{Op: "dial", Err: syscall.ENETUNREACH}, 3},
		"DNS restarts":      {&net.DNSError{Err: "server misbehaving", Name: "server", IsTemporary: true}, 3},
		"DNS does not know": {&net.DNSError{Err: "no such host", Name: "server", IsNotFound: true}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			network := roundTrip(func(*http.Request) (*http.Response, error) {
				calls++
				return nil, test.err
			})
			client := connect(t, rest.Config{URL: "http://server:8081", Transport: network, Retries: 2})
			require.ErrorIs(t, client.call(t.Context()), errUnavailable)
			assert.Equal(t, test.calls, calls)
		})
	}
}

// Waits double from 250 ms to 4 s, unless the server names one. The clock is that of the test's bubble.
func TestWaits(t *testing.T) {
	for name, test := range map[string]struct {
		retryAfter string
		failures   int
		waited     time.Duration
		err        string
	}{
		"one failure":              {"", 1, 250 * time.Millisecond, ""},
		"all failures":             {"", 6, 7750 * time.Millisecond, "503 Service Unavailable (6 attempts)"},
		"server names a wait":      {"7", 1, 7 * time.Second, ""},
		"the wait is out of reach": {"3600", 1, 0, "503 Service Unavailable"},
		"the second wait is":       {"8", 2, 8 * time.Second, "503 Service Unavailable (2 attempts)"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				network := roundTrip(func(request *http.Request) (*http.Response, error) {
					calls++
					if calls > test.failures {
						return respond(request, answer(200, "{}")), nil
					}
					response := respond(request, answer(503, ""))
					response.Header.Set("Retry-After", test.retryAfter)
					return response, nil
				})
				client, err := open(rest.Config{URL: "http://server:8081", Transport: network})
				require.NoError(t, err)

				start := time.Now()
				err = client.call(t.Context())
				assert.Equal(t, test.waited, time.Since(start))
				if test.err == "" {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, errUnavailable)
					assert.ErrorContains(t, err, test.err)
				}
			})
		})
	}
}

// Config.Timeout bounds the call; running into it says something about the server, not about the caller.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		network := roundTrip(func(request *http.Request) (*http.Response, error) {
			calls++
			if calls == 1 {
				return respond(request, answer(502, "")), nil
			}
			<-request.Context().Done()
			return nil, request.Context().Err()
		})
		client, err := open(rest.Config{URL: "http://server:8081", Transport: network})
		require.NoError(t, err)

		start := time.Now()
		err = client.call(t.Context())
		assert.Equal(t, 15*time.Second, time.Since(start))
		require.ErrorIs(t, err, errUnavailable)
		assert.NotErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "no usable answer within 15s, last: 502 Bad Gateway (2 attempts)")
	})
}

// The same over a real connection, where the server has begun its answer.
func TestTimeoutInTheBody(t *testing.T) {
	testDone := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "{")
		w.(http.Flusher).Flush()
		<-testDone
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(testDone) })

	client := connect(t, rest.Config{URL: server.URL, Timeout: 20 * time.Millisecond})
	err := client.call(t.Context())
	require.ErrorIs(t, err, errUnavailable)
	assert.ErrorContains(t, err, "no answer within 20ms")
}

// A caller that gives up gets its own context's error, which says nothing about the server.
func TestCallerGivesUp(t *testing.T) {
	testDone := make(chan struct{})
	canceled, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		cancel()
		<-testDone
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(testDone) })
	client := connect(t, rest.Config{URL: server.URL})

	err := client.call(canceled)
	require.ErrorIs(t, err, context.Canceled)
	assert.NotErrorIs(t, err, errUnavailable)

	expired, cancelExpired := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancelExpired()
	err = client.call(expired)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.NotErrorIs(t, err, errUnavailable)
}

// A prefix of the URL is kept, and a slash at its end does no harm.
func TestURLPrefix(t *testing.T) {
	var asked atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.URL.Path)
		answer(200, "{}")(w, r)
	}))
	t.Cleanup(server.Close)
	for prefix, path := range map[string]string{
		"":                  "/page",
		"/":                 "/page",
		"/v1":               "/v1/page",
		"/flink/cluster-a":  "/flink/cluster-a/page",
		"/flink/cluster-a/": "/flink/cluster-a/page",
	} {
		err := connect(t, rest.Config{URL: server.URL + prefix}).call(t.Context())
		require.NoError(t, err, prefix)
		assert.Equal(t, path, asked.Load(), prefix)
	}
}

func TestProxyFromEnvironment(t *testing.T) {
	client := connect(t, rest.Config{URL: "http://server.example:8081"})
	var answer string
	require.NoError(t, client.Call(t.Context(), http.MethodGet, client.URL("page"), nil, &answer))
	assert.Equal(t, "through the proxy to server.example:8081", answer)
}

// A body is sent again with each retry.
func TestBody(t *testing.T) {
	var sent []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		sent = append(sent, r.Method+" "+r.Header.Get("Content-Type")+" "+string(body))
		answer([]int{503, 200}[len(sent)-1], "{}")(w, r)
	}))
	t.Cleanup(server.Close)
	client := connect(t, rest.Config{URL: server.URL})

	var answer any
	body := map[string]string{"state": "RUNNING"}
	require.NoError(t, client.Call(t.Context(), http.MethodPatch, client.URL("page"), body, &answer))
	const request = `PATCH application/json {"state":"RUNNING"}`
	assert.Equal(t, []string{request, request}, sent)

	err := client.Call(t.Context(), http.MethodPatch, client.URL("page"), func() {}, &answer)
	require.ErrorIs(t, err, errConfig)
	assert.Len(t, sent, 2, "what is no JSON is not sent")
}
