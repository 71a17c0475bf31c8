package rest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chkpin/chkpin/internal/rest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// write makes a file in a folder of the test.
func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(file, content, 0o600))
	return file
}

func TestSettingsAreChecked(t *testing.T) {
	empty := write(t, "empty", nil)
	secret := write(t, "secret", []byte("plugh\n"))
	twoLines := write(t, "two-lines", []byte("plugh\nxyzzy\n"))
	missing := filepath.Join(t.TempDir(), "missing")
	const url = "http://server:8081"

	for name, config := range map[string]rest.Config{
		"no URL":              {},
		"no scheme":           {URL: "server:8081"},
		"host alone":          {URL: "server"},
		"another scheme":      {URL: "ftp://server"},
		"no host":             {URL: "http://"},
		"port is a word":      {URL: "http://server:rest"},
		"password with slash": {URL: "http://reader:plugh/xyzzy@server:8081"},
		"query":               {URL: "http://server/?token=plugh"},
		"address of the page": {URL: "http://server:8081/#/overview"},
		"two users":           {URL: "http://reader:plugh@server", Username: "reader"},
		"user and token":      {URL: url, Username: "reader", Token: "plugh"},
		"two passwords":       {URL: url, Username: "reader", Password: "plugh", PasswordFile: secret},
		"two tokens":          {URL: url, Token: "plugh", TokenFile: secret},
		"password alone":      {URL: url, Password: "plugh"},
		"password missing":    {URL: url, Username: "reader", PasswordFile: missing},
		"token missing":       {URL: url, TokenFile: missing},
		"token empty":         {URL: url, TokenFile: empty},
		"token of two lines":  {URL: url, TokenFile: twoLines},
		"two lines":           {URL: url, Token: "plugh\nxyzzy"},
		"CA missing":          {URL: url, CAFile: missing},
		"CA is none":          {URL: url, CAFile: secret},
		"certificate alone":   {URL: url, CertFile: secret},
		"certificate is none": {URL: url, CertFile: secret, KeyFile: secret},
		"two transports":      {URL: url, CAFile: secret, Transport: http.DefaultTransport},
		"negative timeout":    {URL: url, Timeout: -1},
		"negative wait":       {URL: url, RetryWait: -1},
		"negative size":       {URL: url, MaxBody: -1},
	} {
		client, err := open(config)
		assert.Nil(t, client, name)
		require.ErrorIs(t, err, errConfig, name)
		assert.NotErrorIs(t, err, errUnavailable, name)
		assert.NotContains(t, err.Error(), "plugh", name)
		assert.NotContains(t, err.Error(), "xyzzy", name)
	}
}

func TestCredentials(t *testing.T) {
	var authorization string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorization = r.Header.Get("Authorization")
		answer(200, "{}")(w, r)
	}))
	t.Cleanup(server.Close)
	const basic = "Basic cmVhZGVyOnBsdWdo" // reader:plugh
	secret := write(t, "secret", []byte("plugh\n"))
	for name, test := range map[string]struct {
		config rest.Config
		sent   string
	}{
		"none":          {rest.Config{}, ""},
		"password":      {rest.Config{Username: "reader", Password: "plugh"}, basic},
		"password file": {rest.Config{Username: "reader", PasswordFile: secret}, basic},
		"token":         {rest.Config{Token: "plugh"}, "Bearer plugh"},
		"token file":    {rest.Config{TokenFile: secret}, "Bearer plugh"},
		"token's line":  {rest.Config{Token: "plugh\n"}, "Bearer plugh"}, // as of a Secret that was made from a file
		"their lines":   {rest.Config{Username: "reader", Password: "plugh\r\n"}, basic},
		"URL":           {rest.Config{URL: "http://reader:plugh@" + server.Listener.Addr().String()}, basic},
	} {
		if test.config.URL == "" {
			test.config.URL = server.URL
		}
		err := connect(t, test.config).call(t.Context())
		require.NoError(t, err, name)
		assert.Equal(t, test.sent, authorization, name)
	}
}

// A mounted secret that changes is used from the next call on; one that vanishes is not the server's fault.
func TestCredentialsRotate(t *testing.T) {
	var authorization string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorization = r.Header.Get("Authorization")
		answer(200, "{}")(w, r)
	}))
	t.Cleanup(server.Close)
	file := write(t, "token", []byte("old"))
	client := connect(t, rest.Config{URL: server.URL, TokenFile: file})

	require.NoError(t, os.WriteFile(file, []byte("new\n"), 0o600))
	err := client.call(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "Bearer new", authorization)

	require.NoError(t, os.Remove(file))
	err = client.call(t.Context())
	require.ErrorIs(t, err, errConfig)
	assert.NotErrorIs(t, err, errUnavailable)
}

// authority is a certificate authority of the test.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	file        string // PEM
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "authority of a test"},
		NotAfter:              time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return authority{certificate, key, write(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

// issue makes a certificate for 127.0.0.1 and its key, in PEM.
func (a authority) issue(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key)
	require.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

// serveTLS starts a server behind TLS that asks for client certificates of clients, if given.
func (a authority) serveTLS(t *testing.T, clients *authority) string {
	t.Helper()
	pair, err := tls.X509KeyPair(a.issue(t))
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(answer(200, "{}"))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	if clients != nil {
		server.TLS.ClientAuth = tls.RequireAndVerifyClientCert
		server.TLS.ClientCAs = x509.NewCertPool()
		server.TLS.ClientCAs.AddCert(clients.certificate)
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what the tests are about
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

func TestCertificateAuthority(t *testing.T) {
	// Reading the system's authorities took a loaded machine longer than a handshake may, which is worth another attempt.
	_, err := x509.SystemCertPool()
	require.NoError(t, err)
	ours, others := newAuthority(t), newAuthority(t)
	url := ours.serveTLS(t, nil)

	err = connect(t, rest.Config{URL: url, CAFile: ours.file}).call(t.Context())
	require.NoError(t, err)

	for name, caFile := range map[string]string{"another authority": others.file, "the system's": ""} {
		err = connect(t, rest.Config{URL: url, CAFile: caFile}).call(t.Context())
		require.ErrorIs(t, err, errUnavailable, name)
		assert.ErrorContains(t, err, "certificate", name)
		var call *failure
		require.ErrorAs(t, err, &call, name)
		assert.Equal(t, 1, call.Attempts, "%s: asking again makes no certificate good", name)
	}
}

func TestClientCertificate(t *testing.T) {
	servers, clients := newAuthority(t), newAuthority(t)
	url := servers.serveTLS(t, &clients)

	err := connect(t, rest.Config{URL: url, CAFile: servers.file}).call(t.Context())
	require.ErrorIs(t, err, errUnavailable)

	certificate, key := clients.issue(t)
	certFile, keyFile := write(t, "client.pem", certificate), write(t, "client.key", key)
	client := connect(t, rest.Config{URL: url, CAFile: servers.file, CertFile: certFile, KeyFile: keyFile})
	err = client.call(t.Context())
	require.NoError(t, err)
}

// A client certificate that is replaced on disk serves the next connection.
func TestClientCertificateRotates(t *testing.T) {
	servers, clients, others := newAuthority(t), newAuthority(t), newAuthority(t)
	url := servers.serveTLS(t, &clients)
	certificate, key := others.issue(t)
	certFile, keyFile := write(t, "client.pem", certificate), write(t, "client.key", key)
	client := connect(t, rest.Config{URL: url, CAFile: servers.file, CertFile: certFile, KeyFile: keyFile})

	err := client.call(t.Context())
	require.ErrorIs(t, err, errUnavailable)

	certificate, key = clients.issue(t)
	require.NoError(t, os.WriteFile(certFile, certificate, 0o600))
	require.NoError(t, os.WriteFile(keyFile, key, 0o600))
	err = client.call(t.Context())
	require.NoError(t, err)
}
