package rest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// credentials are what a request is signed with: a user, a token, or nothing.
type credentials struct {
	username, password, passwordFile string
	token, tokenFile                 string
}

// merge adds the settings to the user information of the URL, and refuses two answers to one question.
func (c credentials) merge(config Config) (credentials, error) {
	inURL := c.username != "" || c.password != ""
	user := config.Username != "" || config.Password != "" || config.PasswordFile != ""
	token := config.Token != "" || config.TokenFile != ""
	switch {
	case inURL && user || inURL && token || user && token:
		return c, errors.New("give one of user information in the URL, user name and password, or token")
	case config.Password != "" && config.PasswordFile != "":
		return c, errors.New("give a password or a password file, not both")
	case config.Token != "" && config.TokenFile != "":
		return c, errors.New("give a token or a token file, not both")
	case user && config.Username == "":
		return c, errors.New("a password needs a user name")
	}
	if user {
		c.username, c.password, c.passwordFile = config.Username, config.Password, config.PasswordFile
	}
	c.token, c.tokenFile = config.Token, config.TokenFile
	// A try on a request that is never sent finds unreadable files before the first call.
	return c, c.authorize(&http.Request{Header: http.Header{}})
}

// authorize signs a request.
func (c credentials) authorize(request *http.Request) error {
	password, err := secret(c.password, c.passwordFile, "password")
	if err != nil {
		return err
	}
	token, err := secret(c.token, c.tokenFile, "token")
	if err != nil {
		return err
	}
	switch {
	case token != "":
		request.Header.Set("Authorization", "Bearer "+token)
	case c.username != "" || password != "":
		request.SetBasicAuth(c.username, password)
	}
	return nil
}

// secret is the given value, or else what its file holds now, without the end of its line.
func secret(value, file, what string) (string, error) {
	if file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("%s file: %w", what, err)
		}
		value = string(content)
	}
	value = strings.TrimRight(value, "\r\n")
	switch oneLine := !strings.ContainsAny(value, "\r\n"); {
	case file != "" && (value == "" || !oneLine):
		return "", fmt.Errorf("%s file %s must hold one line", what, file)
	case !oneLine:
		return "", fmt.Errorf("a %s must be one line", what)
	}
	return value, nil
}

// newTransport is the caller's transport, or one with the proxy of the environment and the certificates of config.
func newTransport(config Config) (http.RoundTripper, error) {
	if config.Transport != nil {
		if config.CAFile != "" || config.CertFile != "" || config.KeyFile != "" {
			return nil, errors.New("certificate files need the client's own transport")
		}
		return config.Transport, nil
	}
	certificates, err := newTLS(config)
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSClientConfig:     certificates,
		TLSHandshakeTimeout: 5 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConns:        4,
		IdleConnTimeout:     30 * time.Second,
	}, nil
}

func newTLS(config Config) (*tls.Config, error) {
	certificates := &tls.Config{MinVersion: tls.VersionTLS12}
	if config.CAFile != "" {
		content, err := os.ReadFile(config.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		certificates.RootCAs = x509.NewCertPool()
		if !certificates.RootCAs.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("CA file %s holds no PEM certificate", config.CAFile)
		}
	}
	if config.CertFile == "" && config.KeyFile == "" {
		return certificates, nil
	}
	if config.CertFile == "" || config.KeyFile == "" {
		return nil, errors.New("a client certificate needs both its certificate and its key file")
	}
	load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(config.CertFile, config.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		return &pair, nil
	}
	if _, err := load(nil); err != nil {
		return nil, err
	}
	certificates.GetClientCertificate = load
	return certificates, nil
}
