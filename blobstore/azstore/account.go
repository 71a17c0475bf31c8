package azstore

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"

	"github.com/chkpin/chkpin/blobstore"
)

// The emulator's account and its key, which are the same everywhere
// (https://learn.microsoft.com/azure/storage/common/storage-connect-azurite), and
// the host name and address by which hadoop-azure knows it.
const (
	emulatorHost     = "storageemulator"
	emulatorAccount  = "devstoreaccount1"
	emulatorKey      = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
	emulatorEndpoint = "http://127.0.0.1:10000"
)

// account is a storage account and what proves to it who we are: one of key, sas
// and token, or none.
type account struct {
	name    string
	key     *service.SharedKeyCredential
	sas     url.Values
	token   azcore.TokenCredential
	service *service.Client
}

// container and blob speak to the account; both are cheap to make.
func (a *account) container(u blobstore.URI) *container.Client {
	return a.service.NewContainerClient(containerOf(u))
}

func (a *account) blob(u blobstore.URI) *blockblob.Client {
	return a.container(u).NewBlockBlobClient(keyOf(u))
}

func containerOf(u blobstore.URI) string {
	name, _, _ := strings.Cut(u.Container(), "@")
	return name
}

// hostOf is the host of the blob service of u's account.
func hostOf(u blobstore.URI) string {
	_, host, _ := strings.Cut(u.Container(), "@")
	return strings.Replace(strings.ToLower(host), ".dfs.", ".blob.", 1)
}

// account returns the account of u.
func (s *Store) account(u blobstore.URI) (*account, error) {
	host := hostOf(u)
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[host]; a != nil {
		return a, nil
	}
	a, err := s.config.open(host)
	if err != nil { // what fails is tried again by the next call
		return nil, fmt.Errorf("account %s: %w", host, err)
	}
	s.accounts[host] = a
	return a, nil
}

// open finds out where an account is and what opens it.
func (c Config) open(host string) (*account, error) {
	name, _, _ := strings.Cut(host, ".")
	if host == emulatorHost {
		name = emulatorAccount
	}
	a := &account{name: name}
	access, where, err := c.access(name)
	if err != nil {
		return nil, err
	}
	switch {
	case c.Endpoint != "":
		where, err = below(c.Endpoint, name)
	case where != "":
	case host == emulatorHost:
		where, err = below(emulatorEndpoint, name)
	case !strings.Contains(host, "."):
		err = fmt.Errorf("%w: it has no domain; write %s.blob.core.windows.net, or set the endpoint of a service that has it", blobstore.ErrURI, host)
	default:
		where = "https://" + host
	}
	if err != nil {
		return nil, err
	}

	options := &service.ClientOptions{ClientOptions: c.clientOptions()}
	switch {
	case c.Anonymous:
		a.service, err = service.NewClientWithNoCredential(where, options)
	case access.Key != "":
		if a.key, err = service.NewSharedKeyCredential(name, access.Key); err != nil {
			return nil, &Error{Err: errors.New("its key is not base64"), Advice: "give the account key as the portal shows it, with nothing around it"}
		}
		a.service, err = service.NewClientWithSharedKeyCredential(where, a.key, options)
	case access.SAS != "":
		token := strings.TrimPrefix(access.SAS, "?")
		if a.sas, err = url.ParseQuery(token); err != nil || !a.sas.Has("sig") {
			return nil, &Error{Err: errors.New("its shared access signature is none"), Advice: "a SAS token looks like sv=…&se=…&sp=…&sig=…"}
		}
		a.service, err = service.NewClientWithNoCredential(where+"?"+token, options)
	case strings.HasPrefix(where, "http:"):
		return nil, &Error{Err: errors.New("there is neither a key nor a SAS for it, and tokens are sent by HTTPS only"),
			Advice: "set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING for this account, or name Flink's configuration with --flink-conf"}
	default:
		if a.token = c.Credential; a.token == nil {
			if a.token, err = azidentity.NewDefaultAzureCredential(nil); err != nil {
				return nil, err
			}
		}
		a.service, err = service.NewClient(where, a.token, options)
	}
	return a, err
}

// access finds the credentials of an account, none if a token has to do, and its
// endpoint if that is told with them.
func (c Config) access(name string) (access Access, endpoint string, err error) {
	getenv := c.Getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	if known := c.Accounts[name]; known != (Access{}) {
		return known, "", nil
	}
	if text := getenv("AZURE_STORAGE_CONNECTION_STRING"); text != "" {
		s, err := parseConnectionString(text)
		if err != nil {
			return access, "", err
		}
		if s.account == name {
			return s.access, s.endpoint, nil
		}
	}
	if n := getenv("AZURE_STORAGE_ACCOUNT"); n == "" || n == name {
		access = Access{Key: getenv("AZURE_STORAGE_KEY")}
		if access.Key == "" {
			access.SAS = getenv("AZURE_STORAGE_SAS_TOKEN")
		}
	}
	if access == (Access{}) && name == emulatorAccount {
		access.Key = emulatorKey
	}
	return access, "", nil
}

// connectionString is what the portal shows under that name.
type connectionString struct {
	account  string
	endpoint string // "" is the account's own
	access   Access
}

func parseConnectionString(text string) (connectionString, error) {
	fields := map[string]string{}
	for field := range strings.SplitSeq(strings.TrimSpace(text), ";") {
		name, value, _ := strings.Cut(field, "=")
		fields[strings.ToLower(strings.TrimSpace(name))] = value
	}
	s := connectionString{
		account:  fields["accountname"],
		endpoint: strings.TrimSuffix(fields["blobendpoint"], "/"),
		access:   Access{Key: fields["accountkey"], SAS: fields["sharedaccesssignature"]},
	}
	if fields["usedevelopmentstorage"] == "true" {
		s.account, s.endpoint, s.access.Key = emulatorAccount, emulatorEndpoint+"/"+emulatorAccount, emulatorKey
	}
	if s.account == "" {
		s.account = accountAt(s.endpoint)
	}
	if s.access.Key != "" {
		s.access.SAS = ""
	}
	if s.account == "" || s.access == (Access{}) {
		return s, &Error{Err: errors.New("AZURE_STORAGE_CONNECTION_STRING names no account, or has neither key nor signature"),
			Advice: "copy it from the account's access keys in the portal: DefaultEndpointsProtocol=https;AccountName=…;AccountKey=…;EndpointSuffix=core.windows.net"}
	}
	if suffix := fields["endpointsuffix"]; s.endpoint == "" && suffix != "" {
		s.endpoint = "https://" + s.account + ".blob." + suffix
	}
	return s, nil
}

// accountAt is the account that an endpoint is of: the first part of the host, or
// the path of an address.
func accountAt(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	if net.ParseIP(u.Hostname()) != nil {
		return path.Base(u.Path)
	}
	name, _, _ := strings.Cut(u.Hostname(), ".")
	return name
}

// below is the URL of an account at a service in which accounts are folders.
func below(endpoint, name string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return "", &Error{Err: errors.New("the endpoint is not a URL"), Advice: "write it like http://azurite:10000"}
	}
	if path.Base(u.Path) != name {
		u = u.JoinPath(name)
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

// maxAttempts bounds the tries of one request, longestWait what the service may
// ask for between two; when it asks for more, there is no other try.
const (
	maxAttempts = 6
	longestWait = time.Minute
)

func (c Config) clientOptions() azcore.ClientOptions {
	return azcore.ClientOptions{
		Transport: &http.Client{Transport: c.Transport},
		Retry: policy.RetryOptions{
			MaxRetries:    maxAttempts - 1,
			RetryDelay:    200 * time.Millisecond,
			MaxRetryDelay: longestWait,
			ShouldRetry:   c.again,
		},
	}
}

// again is [passes], and tells the log. The SDK asks after the last try, too.
func (c Config) again(r *http.Response, err error) bool {
	if !passes(r, err) {
		return false
	}
	log := cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if sent, ok := errors.AsType[*url.Error](err); ok { // URLs may be signed
		err = sent.Err
	}
	if err != nil {
		log.Debug("Azure call failed, and may be tried again", "error", err)
		return true
	}
	log.DebugContext(r.Request.Context(), "Azure call failed, and may be tried again",
		"method", r.Request.Method, "path", r.Request.URL.Path, "error", cmp.Or(r.Header.Get("x-ms-error-code"), r.Status))
	return true
}

// passes reports whether what went wrong may pass with time. That a host does not
// exist will not: it is the account's name that is wrong.
func passes(r *http.Response, err error) bool {
	if err != nil {
		dns, ok := errors.AsType[*net.DNSError](err)
		return !ok || !dns.IsNotFound
	}
	switch r.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}
