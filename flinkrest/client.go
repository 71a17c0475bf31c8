// Package flinkrest asks a Flink JobManager about its jobs and their checkpoints.
//
// Start with [New], list the jobs with [Client.Jobs], and read a job's newest checkpoint with [Client.Checkpoints].
//
// Every call but [Client.Stop] and [Client.Cancel] only reads. Calls are bounded by [Config.Timeout], and repeated a few times when the
// JobManager refuses connections, drops one, or answers 502, 503 or 504, as it does while it starts or fails over.
// Nothing is guessed: an answer that is cut off, too large or not a JobManager's is [ErrUnavailable], so that a
// login page or a wrong port is never mistaken for a cluster without jobs.
//
// Answers of Flink 1.13 to 2.3 are understood. Fields that a release does not send keep their zero value; fields
// that this package does not know are ignored. A JobManager caches its answers for about 3 s
// (web.refresh-interval), so two calls may disagree by that much.
package flinkrest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

const (
	defaultTimeout   = 15 * time.Second
	defaultMaxBody   = 16 << 20
	defaultRetries   = 5
	defaultRetryWait = 250 * time.Millisecond
	longestRetryWait = 4 * time.Second
	mostRedirects    = 5
)

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
type Client struct {
	base        *url.URL
	http        *http.Client
	credentials credentials
	timeout     time.Duration
	retries     int
	retryWait   time.Duration
	maxBody     int64
	log         *slog.Logger
}

// New checks the settings and reads the files they name, without calling the JobManager. Its errors are [ErrConfig].
func New(config Config) (*Client, error) {
	base, credentials, err := parseURL(config.URL)
	if err != nil {
		return nil, err
	}
	if credentials, err = credentials.merge(config); err != nil {
		return nil, err
	}
	transport, err := newTransport(config)
	if err != nil {
		return nil, err
	}
	if config.Timeout < 0 || config.RetryWait < 0 || config.MaxBody < 0 {
		return nil, configError("timeout, retry wait and largest answer must not be negative")
	}
	client := &Client{
		base:        base,
		http:        &http.Client{Transport: transport, CheckRedirect: stayOnHost},
		credentials: credentials,
		timeout:     orDefault(config.Timeout, defaultTimeout),
		retries:     max(orDefault(config.Retries, defaultRetries), 0),
		retryWait:   orDefault(config.RetryWait, defaultRetryWait),
		maxBody:     orDefault(config.MaxBody, defaultMaxBody),
		log:         config.Logger,
	}
	if client.log == nil {
		client.log = slog.New(slog.DiscardHandler)
	}
	return client, nil
}

// Close gives idle connections up. It is for those who use many clients; this one can be used further.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// URL is the root that the client calls, without user information.
func (c *Client) URL() string { return c.base.String() }

func orDefault[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// parseURL splits a JobManager's URL into its root and the user information in it. Its errors never hold the latter.
func parseURL(text string) (*url.URL, credentials, error) {
	shown := strconv.Quote(text)
	if strings.ContainsAny(text, "@?#") {
		shown = "(not shown, it may hold credentials)"
	}
	parsed, err := url.Parse(text)
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Hostname() == "" {
		return nil, credentials{}, configError("URL %s does not have the form http://host:port or https://host:port", shown)
	}
	if parsed.RawQuery != "" || parsed.Fragment != "" {
		return nil, credentials{}, configError("URL of %s: leave out what begins with ? or #", parsed.Host)
	}
	var found credentials
	if parsed.User != nil {
		found.username = parsed.User.Username()
		found.password, _ = parsed.User.Password()
	}
	parsed.User, parsed.ForceQuery = nil, false
	return parsed, found, nil
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
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()

	call := &CallError{Method: method, URL: c.base.JoinPath(path).String()}
	var content any // a nil []byte would be a body, too
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return configError("request for %s: %w", call.URL, err)
		}
		content = encoded
	}
	request, err := retryablehttp.NewRequestWithContext(limited, call.Method, call.URL, content)
	if err != nil {
		return configError("request for %s: %w", call.URL, err)
	}
	request.Header.Set("Accept", "application/json")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if err := c.credentials.authorize(request.Request); err != nil {
		return err
	}
	request.SetResponseHandler(func(response *http.Response) error {
		defer response.Body.Close()
		return decode(response, c.maxBody, answer)
	})

	retrier := c.retrier(call)
	_, err = retrier.Do(request)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s %s: %w", call.Method, call.URL, ctx.Err())
	case limited.Err() != nil && call.Err != nil:
		call.Err = fmt.Errorf("no usable answer within %s, last: %w", c.timeout, call.Err)
	case limited.Err() != nil:
		call.Err = fmt.Errorf("no answer within %s", c.timeout)
	}
	return call
}

// retrier repeats one call while that can help, and notes in it the attempts and what went wrong last.
func (c *Client) retrier(call *CallError) *retryablehttp.Client {
	retrier := &retryablehttp.Client{
		HTTPClient:   c.http,
		RetryMax:     c.retries,
		RetryWaitMin: c.retryWait,
		RetryWaitMax: max(c.retryWait, longestRetryWait),
		Backoff:      retryablehttp.DefaultBackoff,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
	retrier.RequestLogHook = func(_ retryablehttp.Logger, _ *http.Request, retry int) {
		call.Attempts = retry + 1
	}
	retrier.CheckRetry = func(ctx context.Context, response *http.Response, err error) (bool, error) {
		if err == nil || ctx.Err() != nil {
			return false, nil
		}
		call.Err = withoutURL(err)
		if !transient(err) || call.Attempts > c.retries {
			return false, nil
		}
		wait := retrier.Backoff(retrier.RetryWaitMin, retrier.RetryWaitMax, call.Attempts-1, response)
		if deadline, limited := ctx.Deadline(); limited && time.Until(deadline) <= wait {
			return false, nil
		}
		c.log.DebugContext(ctx, "JobManager call failed, trying again",
			"url", call.URL, "attempt", call.Attempts, "wait", wait, "error", call.Err)
		return true, nil
	}
	return retrier
}

// transient says whether the same request may well succeed a moment later.
func transient(err error) bool {
	if status, ok := errors.AsType[*StatusError](err); ok {
		switch status.Code {
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	for _, lost := range []error{
		io.EOF, io.ErrUnexpectedEOF,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.EHOSTUNREACH,
	} {
		if errors.Is(err, lost) {
			return true
		}
	}
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// withoutURL drops the layer of net/http that repeats the URL: a redirect's may hold secrets.
func withoutURL(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

// decode reads an answer of at most limit bytes.
func decode(response *http.Response, limit int64, answer any) error {
	body, err := io.ReadAll(http.MaxBytesReader(nil, response.Body, limit))
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusAccepted {
		// Whatever arrived of an error's text is good enough.
		var flink struct {
			Errors []string `json:"errors"`
		}
		if json.Unmarshal(body, &flink) != nil {
			flink.Errors = nil
		}
		return &StatusError{Code: response.StatusCode, Messages: flink.Errors}
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return fmt.Errorf("answer is larger than %d bytes", limit)
	}
	if err != nil {
		return fmt.Errorf("answer is cut off after %d bytes: %w", len(body), err)
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("answer (%s) is not a JobManager's: %w", firstLine(response.Header.Get("Content-Type")), err)
	}
	return nil
}

// lacks is the error for an answer that is JSON, but not what Flink sends at this path.
func (c *Client) lacks(path, field string) error {
	return &CallError{
		Method:   http.MethodGet,
		URL:      c.base.JoinPath(path).String(),
		Attempts: 1,
		Err:      fmt.Errorf("answer is not a JobManager's: no %s in it", field),
	}
}
