// Package vvp asks a Ververica Platform about its deployments and changes their desired state.
//
// Start with [New], read a deployment with [Client.Deployment], change what it should be with [Client.SetState].
//
// The platform's server is not public. What is used of it comes from its public documentation: the page "REST API" of
// releases 2.x (deployments are addressed by name below /api/v1/namespaces/{namespace}/deployments) and "API
// Tokens" (bearer authentication), and the OpenAPI description of the Application Manager 2.1.0 (the states, PATCH with
// application/json, the answers 200, 204, 401, 403 and 404).
package vvp

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

const (
	defaultTimeout   = 15 * time.Second
	defaultRetries   = 5
	defaultRetryWait = 250 * time.Millisecond
	longestRetryWait = 4 * time.Second
	largestAnswer    = 16 << 20
)

// Config says how to reach a platform. Only URL is required.
type Config struct {
	// URL is the platform's root, such as http://ververica-platform or https://vvp.example.com:8443.
	URL string

	// Timeout bounds one call with all its retries. Zero means 15 s.
	Timeout time.Duration

	// Retries is how often a call is repeated while the platform refuses connections, drops them or answers 429 or
	// 5xx. Every call here bears it. Zero means 5, a negative number means never.
	Retries int

	// RetryWait is the wait before the first repetition; it doubles up to 4 s, and Retry-After is honoured. Zero means
	// 250 ms.
	RetryWait time.Duration

	// Token authenticates as the API token whose secret it is. TokenFile holds it instead, and is read anew for each
	// call, because mounted secrets rotate. The token stands in no error and no log.
	Token     string
	TokenFile string

	// CAFile names a PEM file of the only authorities to trust instead of the system's.
	CAFile string

	// Logger hears about retries, at debug level. Nil means silence.
	Logger *slog.Logger
}

// Client speaks to one platform. It is safe for concurrent use.
type Client struct {
	base      *url.URL
	http      *http.Client
	timeout   time.Duration
	retries   int
	retryWait time.Duration
	token     string
	tokenFile string
	log       *slog.Logger
}

// New checks the settings and reads the files they name, without calling the platform. Its errors are [ErrConfig].
func New(config Config) (*Client, error) {
	base, err := parseURL(config.URL)
	if err != nil {
		return nil, err
	}
	if config.Timeout < 0 || config.RetryWait < 0 {
		return nil, configError("timeout and retry wait must not be negative")
	}
	if config.Token != "" && config.TokenFile != "" {
		return nil, configError("give a token or a token file, not both")
	}
	certificates := &tls.Config{MinVersion: tls.VersionTLS12}
	if config.CAFile != "" {
		pem, err := os.ReadFile(config.CAFile)
		if err != nil {
			return nil, configError("CA file: %w", err)
		}
		certificates.RootCAs = x509.NewCertPool()
		if !certificates.RootCAs.AppendCertsFromPEM(pem) {
			return nil, configError("CA file %s holds no PEM certificate", config.CAFile)
		}
	}
	c := &Client{
		base: base,
		http: &http.Client{
			Transport: &http.Transport{
				Proxy:               http.ProxyFromEnvironment,
				DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
				TLSClientConfig:     certificates,
				TLSHandshakeTimeout: 5 * time.Second,
				ForceAttemptHTTP2:   true,
				IdleConnTimeout:     30 * time.Second,
			},
			// Following a redirect would turn PATCH into GET, and a login page into an answer.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		timeout:   cmp.Or(config.Timeout, defaultTimeout),
		retries:   max(cmp.Or(config.Retries, defaultRetries), 0),
		retryWait: cmp.Or(config.RetryWait, defaultRetryWait),
		token:     config.Token,
		tokenFile: config.TokenFile,
		log:       config.Logger,
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if _, err := c.authorization(); err != nil {
		return nil, err
	}
	return c, nil
}

func parseURL(text string) (*url.URL, error) {
	if strings.ContainsAny(text, "@?#") {
		return nil, configError("the platform's URL must be host and port alone, credentials go into a token")
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, configError("URL %q does not have the form http://host:port or https://host:port", text)
	}
	return u, nil
}

// authorization is the value of the header, empty without a token.
func (c *Client) authorization() (string, error) {
	token := c.token
	if c.tokenFile != "" {
		content, err := os.ReadFile(c.tokenFile)
		if err != nil {
			return "", configError("token file: %w", err)
		}
		token = strings.TrimRight(string(content), "\r\n")
		if token == "" || strings.ContainsAny(token, "\r\n") {
			return "", configError("token file %s must hold one line", c.tokenFile)
		}
	}
	if token == "" {
		return "", nil
	}
	return "Bearer " + token, nil
}

// call sends body, if there is one, as JSON, and decodes an answer that has content.
func (c *Client) call(ctx context.Context, method string, at *url.URL, body, answer any) error {
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	call := &CallError{Method: method, URL: at.String()}
	var content any // a nil []byte would be a body, too
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return configError("request for %s: %w", call.URL, err)
		}
		content = encoded
	}
	request, err := retryablehttp.NewRequestWithContext(limited, method, call.URL, content)
	if err != nil {
		return configError("request for %s: %w", call.URL, err)
	}
	request.Header.Set("Accept", "application/json")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	authorization, err := c.authorization()
	if err != nil {
		return err
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}

	response, err := c.retrier(call).Do(request)
	if response != nil {
		defer response.Body.Close()
		err = read(response, answer)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s %s: %w", call.Method, call.URL, ctx.Err())
	case limited.Err() != nil && call.Err != nil:
		call.Err = fmt.Errorf("no usable answer within %s, last: %w", c.timeout, call.Err)
	case limited.Err() != nil:
		call.Err = fmt.Errorf("no answer within %s", c.timeout)
	default:
		call.Err = withoutURL(err)
	}
	return call
}

// retrier repeats one call while that can help, and notes in it what went wrong last.
func (c *Client) retrier(call *CallError) *retryablehttp.Client {
	return &retryablehttp.Client{
		HTTPClient:   c.http,
		RetryMax:     c.retries,
		RetryWaitMin: c.retryWait,
		RetryWaitMax: max(c.retryWait, longestRetryWait),
		Backoff:      retryablehttp.DefaultBackoff,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		CheckRetry: func(ctx context.Context, response *http.Response, err error) (bool, error) {
			again, checkErr := retryablehttp.DefaultRetryPolicy(ctx, response, err)
			switch {
			case !again:
				return false, checkErr
			case err != nil:
				call.Err = withoutURL(err)
			default:
				call.Err = &StatusError{Code: response.StatusCode}
			}
			c.log.DebugContext(ctx, "platform call failed", "method", call.Method, "url", call.URL, "error", call.Err)
			return true, nil
		},
	}
}

// withoutURL drops the layer of net/http that repeats the URL.
func withoutURL(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

func read(response *http.Response, answer any) error {
	body, err := io.ReadAll(http.MaxBytesReader(nil, response.Body, largestAnswer))
	if response.StatusCode/100 != 2 {
		return newStatusError(response.StatusCode, body) // whatever arrived of its text is good enough
	}
	if err != nil {
		return fmt.Errorf("answer is cut off after %d bytes: %w", len(body), err)
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("answer (%s) is not a Ververica Platform's: %w", line(response.Header.Get("Content-Type")), err)
	}
	return nil
}
