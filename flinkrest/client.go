// Package flinkrest asks a Flink JobManager about its jobs and their checkpoints.
//
// Start with [New], list the jobs with [Client.Jobs], and read a job's newest checkpoint with [Client.Checkpoints].
//
// Every call but [Client.Stop] and [Client.Cancel] only reads. Calls are bounded by [Config.Timeout], and repeated a few times when the
// JobManager refuses connections, drops one, or answers 502, 503 or 504, as it does while it starts or fails over, or
// a gateway answers 429; questions also after a 500.
// Nothing is guessed: an answer that is cut off, too large or not a JobManager's is [ErrUnavailable], so that a
// login page or a wrong port is never mistaken for a cluster without jobs.
//
// Answers of Flink 1.13 to 2.3 are understood. Fields that a release does not send keep their zero value; fields
// that this package does not know are ignored. A JobManager caches its answers for about 3 s
// (web.refresh-interval), errors about checkpoints too, so two calls may disagree by that much.
package flinkrest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/chkpin/chkpin/internal/rest"
)

const mostRedirects = 5

// Config says how to reach a JobManager. Only URL is required.
//
// Credentials are one of: user information in URL; Username with Password or PasswordFile; Token or TokenFile.
// They are sent to the host of URL and nowhere else, and stand in no error and no log. Files are read anew for
// each call, because mounted secrets rotate; a line end after the secret is not part of it.
type Config struct {
	// URL is the root of the REST API, such as http://jobmanager:8081 or https://gateway/flink/cluster-a.
	URL string

	// Timeout bounds one call with all its retries. Zero means 15 s.
	Timeout time.Duration

	// Retries is how often a call is repeated. Zero means 5, a negative number means never.
	Retries int

	// RetryWait is the wait before the first repetition; it doubles up to 4 s. Zero means 250 ms.
	// A server's Retry-After is honoured instead; a wait that would outlast Timeout ends the call at once.
	RetryWait time.Duration

	// MaxBody is the largest answer accepted, in bytes. Zero means 16 MiB.
	MaxBody int64

	CAFile   string // PEM; the only authorities trusted instead of the system's; read by New
	CertFile string // PEM client certificate, with KeyFile; both are read anew for each connection
	KeyFile  string

	Username     string // basic authentication
	Password     string
	PasswordFile string
	Token        string // bearer authentication
	TokenFile    string

	// Transport replaces the package's own, which takes its proxy from HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
	// It excludes CAFile, CertFile and KeyFile.
	Transport http.RoundTripper

	// Logger hears about retries, at debug level. Nil means silence.
	Logger *slog.Logger
}

// Client reads from one JobManager. It is safe for concurrent use.
type Client struct{ rest *rest.Client }

// New checks the settings and reads the files they name, without calling the JobManager. Its errors are [ErrConfig].
func New(config Config) (*Client, error) {
	client, err := rest.New(rest.Config(config), rest.Server{
		Name:      "JobManager",
		ErrConfig: ErrConfig,
		Decode:    decode,
		Again:     again,
		Redirect:  stayOnHost,
		Failed: func(call rest.Call) error {
			failed := CallError(call)
			return &failed
		},
	})
	if err != nil {
		return nil, err
	}
	return &Client{client}, nil
}

// Close gives idle connections up. It is for those who use many clients; this one can be used further.
func (c *Client) Close() { c.rest.Close() }

// URL is the root that the client calls, without user information.
func (c *Client) URL() string { return c.rest.URL() }

// decode reads what Flink sends with 200, or 202.
func decode(from rest.Answer, into any) error {
	if from.Status != http.StatusOK && from.Status != http.StatusAccepted {
		var flink struct {
			Errors []string `json:"errors"`
		}
		if json.Unmarshal(from.Body, &flink) != nil {
			flink.Errors = nil
		}
		return &StatusError{Code: from.Status, Messages: flink.Errors}
	}
	return from.JSON(into)
}

// again holds for what a JobManager, or a gateway before it, answers while it starts or fails over, and for a question
// that it failed at: its histograms of checkpoints, which every answer about checkpoints computes, stumble when two
// clients ask at once (DescriptiveStatisticsHistogramStatistics; measured on 1.15.4 and on 2.3.0, at worst one in 12,000
// of four clients).
func again(method string, status int) bool {
	return status == http.StatusInternalServerError && method == http.MethodGet || status == http.StatusTooManyRequests ||
		status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// stayOnHost follows redirects to the host they come from (a gateway that adds a slash, or moves http to https) and
// no other: the request carries credentials, and another host's answer says nothing about this JobManager.
func stayOnHost(next *http.Request, via []*http.Request) error {
	from := via[0].URL
	switch {
	case len(via) > mostRedirects:
		return fmt.Errorf("more than %d redirects", mostRedirects)
	case authority(next.URL) != authority(from):
		return fmt.Errorf("redirect to another host (%s) not followed", next.URL.Host)
	case from.Scheme == "https" && next.URL.Scheme != "https":
		return errors.New("redirect from https to http not followed")
	}
	return nil
}

// authority is host and port, the port only when it is not the scheme's own.
func authority(u *url.URL) string {
	port := u.Port()
	if u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
		port = ""
	}
	return u.Hostname() + ":" + port
}

// get decodes the JSON at a path below the root into answer, a pointer.
func (c *Client) get(ctx context.Context, path string, answer any) error {
	return c.call(ctx, http.MethodGet, path, nil, answer)
}

// call sends body, if there is one, as JSON and decodes the answer. Every call is repeated while that can help, so
// one that changes something must bear repetition.
func (c *Client) call(ctx context.Context, method, path string, body, answer any) error {
	return c.rest.Call(ctx, method, c.rest.URL(path), body, answer)
}

// lacks is the error for an answer that is JSON, but not what Flink sends at this path.
func (c *Client) lacks(path, field string) error {
	return &CallError{
		Method:   http.MethodGet,
		URL:      c.rest.URL(path),
		Attempts: 1,
		Err:      fmt.Errorf("answer is not a JobManager's: no %s in it", field),
	}
}
