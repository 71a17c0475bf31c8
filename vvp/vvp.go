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
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/chkpin/chkpin/internal/rest"
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

	// RetryWait is the wait before the first repetition; it doubles up to 4 s. Zero means 250 ms. A server's
	// Retry-After is honoured instead; a wait that would outlast Timeout ends the call at once.
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
type Client struct{ rest *rest.Client }

// New checks the settings and reads the files they name, without calling the platform. Its errors are [ErrConfig].
func New(config Config) (*Client, error) {
	if strings.ContainsAny(config.URL, "@?#") {
		return nil, configError("the platform's URL must be host and port alone, credentials go into a token")
	}
	client, err := rest.New(rest.Config{
		URL:       config.URL,
		Timeout:   config.Timeout,
		Retries:   config.Retries,
		RetryWait: config.RetryWait,
		Token:     config.Token,
		TokenFile: config.TokenFile,
		CAFile:    config.CAFile,
		Logger:    config.Logger,
	}, rest.Server{
		Name:      "Ververica Platform",
		ErrConfig: ErrConfig,
		Decode:    decode,
		Again:     again,
		// Following a redirect would turn PATCH into GET, and a login page into an answer.
		Redirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Failed:   func(call rest.Call) error { return &CallError{call.Method, call.URL, call.Err} },
	})
	if err != nil {
		return nil, err
	}
	return &Client{client}, nil
}

// decode reads an answer that has content; 204 has none.
func decode(from rest.Answer, into any) error {
	switch {
	case from.Status/100 != 2:
		return newStatusError(from.Status, from.Body)
	case len(bytes.TrimSpace(from.Body)) == 0:
		return nil
	}
	return from.JSON(into)
}

func again(_ string, status int) bool {
	return status == http.StatusTooManyRequests || status/100 == 5 && status != http.StatusNotImplemented
}
