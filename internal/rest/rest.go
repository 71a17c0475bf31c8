// Package rest is what the clients of REST servers have in common: they reach one server, sign requests, repeat
// calls within a deadline, read bounded answers, and let no secret into an error or a log. What an answer means is
// for each client to say, in a [Server].
package rest

import (
	"cmp"
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
)

// Config says how to reach a server. Only URL is required.
//
// Credentials are one of: user information in URL; Username with Password or PasswordFile; Token or TokenFile.
// Files are read anew for each call, because mounted secrets rotate; a line end after the secret is not part of it.
type Config struct {
	URL       string
	Timeout   time.Duration // of one call with all its retries; zero means 15 s
	Retries   int           // zero means 5, a negative number means never
	RetryWait time.Duration // before the first retry; doubles up to 4 s; zero means 250 ms
	MaxBody   int64         // bytes; zero means 16 MiB

	CAFile   string // PEM; the only authorities trusted instead of the system's; read by New
	CertFile string // PEM client certificate, with KeyFile; both are read anew for each connection
	KeyFile  string

	Username     string // basic authentication
	Password     string
	PasswordFile string
	Token        string // bearer authentication
	TokenFile    string

	Transport http.RoundTripper // instead of one with the environment's proxy; excludes CAFile, CertFile and KeyFile
	Logger    *slog.Logger      // hears about retries, at debug level; nil means silence
}

// Server is what a client knows of its kind of server.
type Server struct {
	// Name stands in messages: "answer is not a …'s".
	Name string

	// ErrConfig is wrapped by every error about a Config.
	ErrConfig error

	// Decode reads an answer, or says why it is none. It is asked about every status.
	Decode func(from Answer, into any) error

	// Again says whether a call of this method that got this status may well succeed a moment later.
	Again func(method string, status int) bool

	// Redirect is [http.Client.CheckRedirect].
	Redirect func(next *http.Request, via []*http.Request) error

	// Failed makes the error of a call that brought no usable answer.
	Failed func(Call) error
}

// Call is one call to a server and what became of it.
type Call struct {
	Method   string
	URL      string // without user information
	Attempts int    // requests sent, retries included
	Err      error  // of Server.Decode, or what went wrong on the way
}

// Client calls one server. It is safe for concurrent use.
type Client struct {
	server      Server
	base        *url.URL
	http        *http.Client
	credentials credentials
	timeout     time.Duration
	retries     int
	retryWait   time.Duration
	maxBody     int64
	log         *slog.Logger
}

// New checks the settings and reads the files they name, without calling the server. Its errors are
// server.ErrConfig.
func New(config Config, server Server) (*Client, error) {
	client, err := newClient(config, server)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", server.ErrConfig, err)
	}
	return client, nil
}

func newClient(config Config, server Server) (*Client, error) {
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
	if config.Timeout < 0 || config.RetryWait < 0 {
		return nil, errors.New("timeout and retry wait must not be negative")
	}
	if config.MaxBody < 0 {
		return nil, errors.New("largest answer must not be negative")
	}
	return &Client{
		server:      server,
		base:        base,
		http:        &http.Client{Transport: transport, CheckRedirect: server.Redirect},
		credentials: credentials,
		timeout:     cmp.Or(config.Timeout, defaultTimeout),
		retries:     max(cmp.Or(config.Retries, defaultRetries), 0),
		retryWait:   cmp.Or(config.RetryWait, defaultRetryWait),
		maxBody:     cmp.Or(config.MaxBody, defaultMaxBody),
		log:         cmp.Or(config.Logger, slog.New(slog.DiscardHandler)),
	}, nil
}

// parseURL splits a server's URL into its root and the user information in it. Its errors never hold the latter.
func parseURL(text string) (*url.URL, credentials, error) {
	shown := strconv.Quote(text)
	if strings.ContainsAny(text, "@?#") {
		shown = "(not shown, it may hold credentials)"
	}
	parsed, err := url.Parse(text)
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Hostname() == "" {
		return nil, credentials{}, fmt.Errorf("URL %s does not have the form http://host:port or https://host:port", shown)
	}
	if parsed.RawQuery != "" || parsed.Fragment != "" {
		return nil, credentials{}, fmt.Errorf("URL of %s: leave out what begins with ? or #", parsed.Host)
	}
	var found credentials
	if parsed.User != nil {
		found.username = parsed.User.Username()
		found.password, _ = parsed.User.Password()
	}
	parsed.User, parsed.ForceQuery = nil, false
	return parsed, found, nil
}

// Close gives idle connections up; the client can be used further.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// URL is that of a path below the server's root, without user information.
func (c *Client) URL(path ...string) string {
	if len(path) == 0 {
		return c.base.String()
	}
	return c.base.JoinPath(path...).String()
}

// Call sends body, if there is one, as JSON to a URL of [Client.URL], and has the answer decoded into answer, a
// pointer. Every call is repeated while that can help, so one that changes something must bear repetition.
//
// Errors are those of Server.Failed, Server.ErrConfig for what cannot be sent, or ctx's own.
func (c *Client) Call(ctx context.Context, method, to string, body, answer any) error {
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()

	call := &Call{Method: method, URL: to}
	request, err := c.request(limited, call, body)
	if err != nil {
		return fmt.Errorf("%w: %w", c.server.ErrConfig, err)
	}
	request.SetResponseHandler(func(response *http.Response) error {
		defer response.Body.Close()
		return c.read(response, answer)
	})

	_, err = c.retrier(call).Do(request)
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
	return c.server.Failed(*call)
}

func (c *Client) request(ctx context.Context, call *Call, body any) (*retryablehttp.Request, error) {
	var content any // a nil []byte would be a body, too
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("request for %s: %w", call.URL, err)
		}
		content = encoded
	}
	request, err := retryablehttp.NewRequestWithContext(ctx, call.Method, call.URL, content)
	if err != nil {
		return nil, fmt.Errorf("request for %s: %w", call.URL, err)
	}
	request.Header.Set("Accept", "application/json")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	return request, c.credentials.authorize(request.Request)
}

// retrier repeats one call while that can help, and notes in it the attempts and what went wrong last.
func (c *Client) retrier(call *Call) *retryablehttp.Client {
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
		again := lost(err) || response != nil && c.server.Again(call.Method, response.StatusCode)
		if !again || call.Attempts > c.retries {
			return false, nil
		}
		wait := retrier.Backoff(retrier.RetryWaitMin, retrier.RetryWaitMax, call.Attempts-1, response)
		if deadline, limited := ctx.Deadline(); limited && time.Until(deadline) <= wait {
			return false, nil
		}
		c.log.DebugContext(ctx, c.server.Name+" call failed, trying again",
			"method", call.Method, "url", call.URL, "attempt", call.Attempts, "wait", wait, "error", call.Err)
		return true, nil
	}
	return retrier
}

// lost says whether the way to the server failed as it does for a moment.
func lost(err error) bool {
	for _, lost := range []error{
		io.EOF, io.ErrUnexpectedEOF,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.EHOSTUNREACH, syscall.ENETUNREACH,
	} {
		if errors.Is(err, lost) {
			return true
		}
	}
	if name, ok := errors.AsType[*net.DNSError](err); ok && name.IsTemporary { // as when a cluster's DNS restarts
		return true
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
