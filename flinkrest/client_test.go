package flinkrest_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chkpin/chkpin/flinkrest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const htmlPage = "<!doctype html>\n<title>Sign in</title>"

// drop closes the connection after having sent text.
func drop(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		connection, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		io.WriteString(connection, text)
		connection.Close()
	}
}

var cutOff = drop("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n" + noJobs)

// Whatever is no JobManager's answer is one condition, and never an empty list of jobs.
func TestNoUsableAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		handler  http.HandlerFunc
		says     string
		attempts int
	}{
		"login page": {
			answer(200, "text/html", htmlPage),
			"answer (text/html) is not a JobManager's: invalid character '<'", 1,
		},
		"page of a gateway": {
			answer(503, "text/html", htmlPage),
			"503 Service Unavailable (6 attempts)", 6,
		},
		"another service": {
			jsonAnswer(200, `{"status":"UP"}`),
			"answer is not a JobManager's: no jobs in it", 1,
		},
		"null": {
			jsonAnswer(200, `null`),
			"no jobs in it", 1,
		},
		"job without id": {
			jsonAnswer(200, `{"jobs":[{"name":"orders"}]}`),
			"no valid jid in it", 1,
		},
		"empty": {
			jsonAnswer(200, ""),
			"unexpected end of JSON input", 1,
		},
		"no content": {
			jsonAnswer(204, ""),
			"204 No Content", 1,
		},
		"wrong page": {
			answer(404, "text/html", htmlPage),
			"404 Not Found: is this a JobManager's URL?", 1,
		},
		"wrong page of a JobManager": {
			jsonAnswer(404, `{"errors":["Unable to load requested file /x/jobs/overview."]}`),
			"404 Not Found: Unable to load requested file /x/jobs/overview.", 1,
		},
		"denied": {
			answer(401, "text/plain", "who are you?"),
			"401 Unauthorized", 1,
		},
		"JobManager failing over": {
			jsonAnswer(503, `{"errors":["Service temporarily unavailable due to an ongoing leader election. Please refresh."]}`),
			"503 Service Unavailable: Service temporarily unavailable due to an ongoing leader election. Please refresh. (6 attempts)", 6,
		},
		"stack trace": {
			jsonAnswer(500, `{"errors":["java.util.concurrent.CompletionException: boom\n\tat java.base/java.lang.Thread.run(Unknown Source)"]}`),
			"500 Internal Server Error: java.util.concurrent.CompletionException: boom (6 attempts)", 6,
		},
		"too large": {
			jsonAnswer(200, `{"jobs":[`+strings.Repeat(" ", 1<<10)+`]}`),
			"answer is larger than 1024 bytes", 1,
		},
		"cut off": {
			cutOff,
			"answer is cut off after 11 bytes: unexpected EOF (6 attempts)", 6,
		},
		"dropped connection": {
			drop(""),
			"EOF (6 attempts)", 6,
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(test.handler)
			t.Cleanup(server.Close)
			client := connect(t, flinkrest.Config{URL: server.URL, MaxBody: 1 << 10})

			jobs, err := client.Jobs(t.Context())
			assert.Nil(t, jobs)
			require.ErrorIs(t, err, flinkrest.ErrUnavailable)
			assert.NotErrorIs(t, err, flinkrest.ErrNotFound)
			assert.NotErrorIs(t, err, flinkrest.ErrConfig)
			assert.ErrorContains(t, err, "GET "+server.URL+"/jobs/overview: ")
			assert.ErrorContains(t, err, test.says)
			assert.NotContains(t, err.Error(), "\n")

			var call *flinkrest.CallError
			require.ErrorAs(t, err, &call)
			assert.Equal(t, test.attempts, call.Attempts)
		})
	}
}

// The calls about one job are as strict: only Flink's own 404 says that a job does not exist.
func TestNoUsableAnswerAboutAJob(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"another service":   jsonAnswer(200, `{"status":"UP"}`),
		"null":              jsonAnswer(200, `null`),
		"login page":        answer(200, "text/html", htmlPage),
		"page of a gateway": answer(404, "text/html", htmlPage),
		"404 of others":     jsonAnswer(404, `{"error":"Not Found","path":"/jobs"}`),
	} {
		t.Run(name, func(t *testing.T) {
			client := serve(t, handler)
			_, errJob := client.Job(t.Context(), jobID)
			_, errCheckpoints := client.Checkpoints(t.Context(), jobID)
			_, errConfig := client.CheckpointConfig(t.Context(), jobID)
			_, errVersion := client.Version(t.Context())
			_, errSettings := client.JobManagerConfig(t.Context())
			for _, err := range []error{errJob, errCheckpoints, errConfig, errVersion, errSettings} {
				require.ErrorIs(t, err, flinkrest.ErrUnavailable)
				assert.NotErrorIs(t, err, flinkrest.ErrNotFound)
			}
		})
	}
}

// The status and Flink's texts are there for who wants them; one line of at most 200 letters is in the message.
func TestStatusError(t *testing.T) {
	long := strings.Repeat("ä", 300)
	client := serve(t, jsonAnswer(500, `{"errors":["Internal\u001b[31m `+long+`","<Exception on server side:\n..."]}`))
	_, err := client.Jobs(t.Context())

	var status *flinkrest.StatusError
	require.ErrorAs(t, err, &status)
	assert.Equal(t, 500, status.Code)
	assert.Equal(t, []string{"Internal\x1b[31m " + long, "<Exception on server side:\n..."}, status.Messages)
	assert.Equal(t, "500 Internal Server Error: Internal [31m "+strings.Repeat("ä", 186)+"…", status.Error())
}

// A JobManager that starts, fails over or stumbles is asked again.
func TestRetry(t *testing.T) {
	for name, first := range map[string]http.HandlerFunc{
		"bad gateway":        answer(502, "text/html", htmlPage),
		"busy gateway":       answer(429, "text/plain", "slow down"),
		"not ready":          jsonAnswer(503, `{"errors":["not ready"]}`),
		"gateway timeout":    answer(504, "text/html", htmlPage),
		"it stumbled":        jsonAnswer(500, `{"errors":["Internal server error.","<Exception on server side:\n..."]}`),
		"dropped connection": drop(""),
		"cut off":            cutOff,
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if calls.Add(1) <= 2 {
					first(w, r)
					return
				}
				jsonAnswer(200, noJobs)(w, r)
			})
			_, err := client.Jobs(t.Context())
			require.NoError(t, err)
			assert.EqualValues(t, 3, calls.Load())
		})
	}
}

// Redirects are followed where they lead back to the same host.
func TestRedirects(t *testing.T) {
	for name, test := range map[string]struct{ url, location, err string }{
		"another path":     {"http://gateway/flink", "/cluster/jobs/overview", ""},
		"to https":         {"http://gateway/flink", "https://gateway/flink/jobs/overview", ""},
		"port spelled out": {"http://gateway:80/flink", "https://gateway:443/flink/jobs/overview", ""},
		"another host":     {"http://gateway", "http://login/?state=xyzzy", "redirect to another host (login) not followed"},
		"another port":     {"http://gateway", "http://gateway:9000/", "redirect to another host (gateway:9000) not followed"},
		"to http":          {"https://gateway", "http://gateway/", "redirect from https to http not followed"},
		"for ever":         {"http://gateway", "/jobs/overview", "more than 5 redirects"},
	} {
		t.Run(name, func(t *testing.T) {
			network := roundTrip(func(request *http.Request) (*http.Response, error) {
				_, password, _ := request.BasicAuth()
				assert.Equal(t, "gateway", request.URL.Hostname(), "nobody else is asked")
				assert.Equal(t, "plugh", password)
				if test.err == "" && request.Response != nil {
					return respond(request, jsonAnswer(200, noJobs)), nil
				}
				return respond(request, http.RedirectHandler(test.location, http.StatusFound).ServeHTTP), nil
			})
			client := connect(t, flinkrest.Config{URL: test.url, Username: "u", Password: "plugh", Transport: network})
			_, err := client.Jobs(t.Context())
			if test.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, flinkrest.ErrUnavailable)
			assert.ErrorContains(t, err, test.err)
			assert.NotContains(t, err.Error(), "xyzzy", "a redirect's query may be a secret")
		})
	}
}

// The log hears of each retry, at debug level, and of nothing else; no secret reaches it or an error.
func TestLogAndSecrets(t *testing.T) {
	server := httptest.NewServer(answer(503, "text/html", htmlPage))
	t.Cleanup(server.Close)
	var log bytes.Buffer
	address := strings.TrimPrefix(server.URL, "http://")
	client := connect(t, flinkrest.Config{
		URL:     fmt.Sprintf("http://reader:plugh@%s", address),
		Retries: 2,
		Logger:  slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	_, err := client.Jobs(t.Context())
	require.ErrorIs(t, err, flinkrest.ErrUnavailable)
	assert.Equal(t, 2, strings.Count(log.String(), "level=DEBUG"))
	assert.Equal(t, 2, strings.Count(log.String(), "\n"))
	for _, text := range []string{err.Error(), log.String(), client.URL()} {
		assert.NotContains(t, text, "plugh")
		assert.NotContains(t, text, "reader")
		assert.Contains(t, text, address)
	}
}

// Settings that cannot be used are one condition, for a new client and for a call.
func TestSettingsAreChecked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("plugh\n"), 0o600))
	for name, config := range map[string]flinkrest.Config{
		"no URL":     {},
		"two tokens": {URL: "http://jobmanager:8081", Token: "plugh", TokenFile: file},
	} {
		client, err := flinkrest.New(config)
		assert.Nil(t, client, name)
		require.ErrorIs(t, err, flinkrest.ErrConfig, name)
		assert.ErrorContains(t, err, "invalid JobManager settings: ", name)
		assert.NotContains(t, err.Error(), "plugh", name)
	}

	client := connect(t, flinkrest.Config{URL: "http://jobmanager:8081", TokenFile: file})
	require.NoError(t, os.Remove(file))
	_, err := client.Jobs(t.Context())
	require.ErrorIs(t, err, flinkrest.ErrConfig)
	assert.NotErrorIs(t, err, flinkrest.ErrUnavailable)
}
