package azstore_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/azstore"
	"github.com/chkpin/chkpin/blobstore/storetest/faults"
)

// wire answers requests in the place of the network and keeps them.
type wire struct {
	mu     sync.Mutex
	seen   []*http.Request
	answer func(r *http.Request) (*http.Response, error)
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := r.Clone(r.Context())
	seen.Header = http.Header{}
	for name, values := range r.Header { // which the SDK spells as it likes
		seen.Header.Set(name, values[0])
	}
	w.seen = append(w.seen, seen)
	if w.answer != nil {
		return w.answer(r)
	}
	return response(r, http.StatusAccepted, ""), nil
}

func response(r *http.Request, status int, code string) *http.Response {
	if status == http.StatusAccepted && r.Method == http.MethodHead {
		status = http.StatusOK
	}
	return &http.Response{StatusCode: status, Header: http.Header{"X-Ms-Error-Code": {code}, "Etag": {`"1"`}}, Body: io.NopCloser(strings.NewReader("")), Request: r}
}

// one is asked for one object, and the only request that this takes is returned.
func one(t *testing.T, config azstore.Config, uri string) *http.Request {
	t.Helper()
	w := &wire{}
	config.Transport = w
	if config.Getenv == nil {
		config.Getenv = environment()
	}
	_, err := azstore.New(config).Stat(t.Context(), blobstore.MustParse(uri))
	require.NoError(t, err)
	require.Len(t, w.seen, 1)
	return w.seen[0]
}

const someKey = "c29tZSBrZXk="

// The blob service of an account is where its name says, by HTTPS whatever the
// scheme; the emulator is where Flink looks for it.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]string{
		"wasbs://state@acc.blob.core.windows.net/app/a":            "https://acc.blob.core.windows.net/state/app%2Fa",
		"wasb://state@acc.blob.core.windows.net/app":               "https://acc.blob.core.windows.net/state/app",
		"abfss://state@acc.dfs.core.windows.net/app":               "https://acc.blob.core.windows.net/state/app",
		"abfs://state@acc.dfs.core.chinacloudapi.cn/app":           "https://acc.blob.core.chinacloudapi.cn/state/app",
		"abfss://state@acc.z01.dfs.storage.azure.net/app":          "https://acc.z01.blob.storage.azure.net/state/app",
		"wasb://state@storageemulator/app":                         "http://127.0.0.1:10000/devstoreaccount1/state/app",
		"wasbs://state@Acc.blob.core.windows.net/a b%20c#d?e+f/ä.": "https://acc.blob.core.windows.net/state/a%20b%2520c%23d%3Fe+f%2F%C3%A4%5B%5B.%5D%5D",
	} {
		got := one(t, azstore.Config{Accounts: map[string]azstore.Access{"acc": {Key: someKey}}}, uri)
		assert.Equal(t, want, got.URL.String(), uri)
	}
	for endpoint, want := range map[string]string{
		"http://azurite:10000":      "http://azurite:10000/acc/state/app",
		"http://azurite:10000/":     "http://azurite:10000/acc/state/app",
		"http://azurite:10000/acc":  "http://azurite:10000/acc/state/app",
		"https://gateway/blob":      "https://gateway/blob/acc/state/app",
		"https://gateway/blob/acc/": "https://gateway/blob/acc/state/app",
	} {
		got := one(t, azstore.Config{Endpoint: endpoint, Anonymous: true}, "wasbs://state@acc.blob.core.windows.net/app")
		assert.Equal(t, want, got.URL.String(), endpoint)
	}
}

// Where credentials come from, and which of them win.
func TestCredentials(t *testing.T) {
	t.Parallel()
	const uri = "wasbs://state@acc.blob.core.windows.net/app"
	const signature = "sv=2024-11-04&sp=rl&sig=c2ln"
	known := map[string]azstore.Access{"acc": {Key: someKey}}
	token := tokens("from the credential")
	for name, c := range map[string]struct {
		config        azstore.Config
		authorization string // how the header begins
		query         string
		url           string // "" is the account's own
	}{
		"key of the configuration": {azstore.Config{Accounts: known, Getenv: environment("AZURE_STORAGE_SAS_TOKEN=" + signature)}, "SharedKey acc:", "", ""},
		"SAS of the configuration": {azstore.Config{Accounts: map[string]azstore.Access{"acc": {SAS: "?" + signature}}}, "", signature, ""},
		"key of the environment":   {azstore.Config{Getenv: environment("AZURE_STORAGE_ACCOUNT=acc", "AZURE_STORAGE_KEY="+someKey)}, "SharedKey acc:", "", ""},
		"key for any account":      {azstore.Config{Getenv: environment("AZURE_STORAGE_KEY=" + someKey)}, "SharedKey acc:", "", ""},
		"SAS of the environment":   {azstore.Config{Getenv: environment("AZURE_STORAGE_SAS_TOKEN=?" + signature)}, "", signature, ""},
		"another account's key": {azstore.Config{Credential: token, Getenv: environment("AZURE_STORAGE_ACCOUNT=other", "AZURE_STORAGE_KEY="+someKey)},
			"Bearer from the credential", "", ""},
		"connection string": {azstore.Config{Getenv: environment(
			"AZURE_STORAGE_CONNECTION_STRING=DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=" + someKey + ";EndpointSuffix=core.windows.net")},
			"SharedKey acc:", "", ""},
		"connection string with SAS": {azstore.Config{Getenv: environment(
			"AZURE_STORAGE_CONNECTION_STRING=BlobEndpoint=https://acc.blob.core.windows.net/;SharedAccessSignature=" + signature)},
			"", signature, ""},
		"connection string with endpoint": {azstore.Config{Getenv: environment(
			"AZURE_STORAGE_CONNECTION_STRING=AccountName=acc;AccountKey=" + someKey + ";BlobEndpoint=https://blobs.example.org")},
			"SharedKey acc:", "", "https://blobs.example.org/state/app"},
		"another account's connection string": {azstore.Config{Credential: token, Getenv: environment(
			"AZURE_STORAGE_CONNECTION_STRING=AccountName=other;AccountKey=" + someKey)}, "Bearer from the credential", "", ""},
		"nothing":   {azstore.Config{Credential: token}, "Bearer from the credential", "", ""},
		"anonymous": {azstore.Config{Anonymous: true, Accounts: known}, "", "", ""},
	} {
		got := one(t, c.config, uri)
		assert.True(t, strings.HasPrefix(got.Header.Get("Authorization"), c.authorization), "%s: %s", name, got.Header.Get("Authorization"))
		assert.Equal(t, c.authorization == "", got.Header.Get("Authorization") == "", name)
		want, err := url.ParseQuery(c.query)
		require.NoError(t, err)
		assert.Equal(t, want, got.URL.Query(), name)
		got.URL.RawQuery = ""
		if c.url == "" {
			c.url = "https://acc.blob.core.windows.net/state/app"
		}
		assert.Equal(t, c.url, got.URL.String(), name)
	}
	emulator := one(t, azstore.Config{Credential: token}, "wasb://state@storageemulator/app")
	assert.True(t, strings.HasPrefix(emulator.Header.Get("Authorization"), "SharedKey devstoreaccount1:"), "its key is known")
}

// tokens is a credential, as the SDK gets from a workload or managed identity.
type tokens string

func (c tokens) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if len(o.Scopes) != 1 || o.Scopes[0] != "https://storage.azure.com/.default" {
		panic(o.Scopes)
	}
	return azcore.AccessToken{Token: string(c), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// With tokens, the source of a copy is opened by one, too. With a SAS, that goes
// along.
func TestCopyNamesItsSource(t *testing.T) {
	t.Parallel()
	src, dst := blobstore.MustParse("wasbs://state@acc.blob.core.windows.net/a b+c%20d#e?f=g ü"), blobstore.MustParse("wasbs://state@acc.blob.core.windows.net/b")
	const source = "https://acc.blob.core.windows.net/state/a%20b+c%2520d%23e%3Ff=g%20%C3%BC"

	w := &wire{}
	_, err := azstore.New(azstore.Config{Credential: tokens("t"), Transport: w, Getenv: environment()}).Copy(t.Context(), dst, src)
	require.NoError(t, err)
	require.Len(t, w.seen, 1)
	assert.Equal(t, "Bearer t", w.seen[0].Header.Get("x-ms-copy-source-authorization"))
	assert.Equal(t, source, w.seen[0].Header.Get("x-ms-copy-source"))

	w = &wire{}
	_, err = azstore.New(azstore.Config{Accounts: map[string]azstore.Access{"acc": {SAS: "sp=rw&sig=c2ln"}}, Transport: w, Getenv: environment()}).Copy(t.Context(), dst, src)
	require.NoError(t, err)
	assert.Equal(t, source+"?sp=rw&sig=c2ln", w.seen[0].Header.Get("x-ms-copy-source"))
}

// signature makes a SAS of the emulator's account.
func signature(t *testing.T, start, expiry time.Time) string {
	t.Helper()
	credential, err := service.NewSharedKeyCredential(azurite.Account, azurite.Key)
	require.NoError(t, err)
	client, err := service.NewClientWithSharedKeyCredential(azurite.URL+"/"+azurite.Account, credential, nil)
	require.NoError(t, err)
	signed, err := client.GetSASURL(sas.AccountResourceTypes{Container: true, Object: true},
		sas.AccountPermissions{Read: true, Write: true, Create: true, Add: true, Delete: true, List: true}, expiry, &service.GetSASURLOptions{StartTime: &start})
	require.NoError(t, err)
	_, token, _ := strings.Cut(signed, "?")
	return token
}

// A SAS does all that a key does.
func TestSharedAccessSignature(t *testing.T) {
	t.Parallel()
	config := configFor(azurite.URL)
	config.Accounts = map[string]azstore.Access{azurite.Account: {SAS: signature(t, time.Time{}, time.Now().Add(time.Hour))}}
	store, root := azstore.New(config), folder()
	obj, err := put(t, store, root.Join("a"), "one", blobstore.PutOptions{IfAbsent: true})
	require.NoError(t, err)
	_, err = put(t, store, root.Join("a"), "two", blobstore.PutOptions{IfTag: obj.Tag})
	require.NoError(t, err)
	_, err = store.Copy(t.Context(), root.Join("b"), root.Join("a"))
	require.NoError(t, err)
	assert.Equal(t, "two", read(t, store, root.Join("b")))
	require.NoError(t, store.Delete(t.Context(), root.Join("a")))
	var names []string
	for o, err := range store.List(t.Context(), root, blobstore.ListOptions{}) {
		require.NoError(t, err)
		names = append(names, o.URI.Base())
	}
	assert.Equal(t, []string{"b"}, names)
}

// What the user got wrong is told with the way out, and without secrets.
func TestMistakes(t *testing.T) {
	t.Parallel()
	const uri = "wasbs://container@devstoreaccount1.blob.core.windows.net/app"
	expired := signature(t, time.Time{}, time.Now().Add(-time.Minute))
	early := signature(t, time.Now().Add(time.Hour), time.Now().Add(2*time.Hour))
	wrong := strings.Replace(signature(t, time.Time{}, time.Now().Add(time.Hour)), "sig=", "sig=x", 1)
	access := func(a azstore.Access) azstore.Config {
		config := configFor(azurite.URL)
		config.Accounts = map[string]azstore.Access{azurite.Account: a}
		return config
	}
	for name, c := range map[string]struct {
		config  azstore.Config
		uri     string
		is      error
		message string
		hint    string
	}{
		"wrong key":     {access(azstore.Access{Key: someKey}), uri, blobstore.ErrPermission, "Server failed to authenticate the request", "the key is not one of account devstoreaccount1"},
		"no key at all": {access(azstore.Access{Key: "hush, hush"}), uri, nil, "account devstoreaccount1.blob.core.windows.net: its key is not base64", "as the portal shows it"},
		"expired SAS":   {access(azstore.Access{SAS: expired}), uri, blobstore.ErrPermission, "Server failed to authenticate the request", "expired at "},
		"early SAS":     {access(azstore.Access{SAS: early}), uri, blobstore.ErrPermission, "Server failed to authenticate the request", "not valid before "},
		"wrong SAS":     {access(azstore.Access{SAS: wrong}), uri, blobstore.ErrPermission, "Server failed to authenticate the request", "it has sp=rwdlac"},
		"no SAS at all": {access(azstore.Access{SAS: "hush"}), uri, nil, "its shared access signature is none", "sig="},
		"missing container": {configFor(azurite.URL), "wasbs://nowhere@devstoreaccount1.blob.core.windows.net/app", blobstore.ErrContainer, "ContainerNotFound",
			"create the container"},
		"no domain":          {azstore.Config{Getenv: environment()}, "wasbs://container@acc/app", blobstore.ErrURI, "write acc.blob.core.windows.net", ""},
		"endpoint is no URL": {azstore.Config{Endpoint: "azurite", Getenv: environment()}, uri, nil, "the endpoint is not a URL", "http://azurite:10000"},
		"connection string": {azstore.Config{Getenv: environment("AZURE_STORAGE_CONNECTION_STRING=hush")}, uri, nil,
			"AZURE_STORAGE_CONNECTION_STRING names no account", "AccountKey=…"},
		"no such account": {azstore.Config{Accounts: map[string]azstore.Access{"typo": {SAS: "sig=hush"}}, Getenv: environment(), Transport: &wire{answer: noSuchHost}},
			"wasbs://container@typo.blob.core.windows.net/app", nil, "lookup typo.blob.core.windows.net: no such host", "is the name of the account right?"},
		"no credentials for an emulator": {azstore.Config{Endpoint: "http://azurite:10000", Getenv: environment()}, "wasbs://container@acc.blob.core.windows.net/app", nil,
			"neither a key nor a SAS", "AZURE_STORAGE_KEY"},
		"no credentials": {azstore.Config{Getenv: environment(), Credential: nobody{}}, "wasbs://container@acc.blob.core.windows.net/app", blobstore.ErrPermission,
			"account acc: no identity: tried two ways", "--flink-conf"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, u := azstore.New(c.config), blobstore.MustParse(c.uri).Join("a")
			_, _, opening := store.Open(t.Context(), u)
			_, listing := listOne(t.Context(), store, u.Dir())
			_, putting := put(t, store, u, "x", blobstore.PutOptions{})
			_, copying := store.Copy(t.Context(), u, u.Dir().Join("b"))
			for op, err := range map[string]error{"open": opening, "list": listing, "put": putting, "copy": copying} {
				require.ErrorContains(t, err, c.message, op)
				if c.is != nil {
					require.ErrorIs(t, err, c.is, op)
				}
				assert.NotErrorIs(t, err, blobstore.ErrNotExist, op)
				assert.True(t, strings.HasPrefix(err.Error(), op+" "+c.uri), err)
				assert.NotContains(t, err.Error(), "\n")
				assert.NotContains(t, err.Error(), "hush")
				assert.NotContains(t, err.Error(), "sig=")
				var e *azstore.Error
				if c.hint != "" && assert.ErrorAs(t, err, &e, op) {
					assert.Contains(t, e.Hint(), c.hint, op)
				}
			}
		})
	}
}

func listOne(ctx context.Context, store blobstore.Store, dir blobstore.URI) (blobstore.Object, error) {
	for obj, err := range store.List(ctx, dir, blobstore.ListOptions{}) {
		return obj, err
	}
	return blobstore.Object{}, nil
}

func noSuchHost(r *http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: r.URL.Hostname(), IsNotFound: true}}
}

// nobody is a machine without an identity.
type nobody struct{}

func (nobody) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{}, noToken{}
}

type noToken struct{}

func (noToken) Error() string { return "no identity:\n\ttried\n\ttwo ways" }
func (noToken) NonRetriable() {}

// Errors name the operation, the URI, the service's code and the request, and
// know a way out. Only a missing object is one.
func TestErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault faults.Fault
		is    error
		hint  string
	}{
		"missing role":            {faults.Answer(403, "AuthorizationPermissionMismatch"), blobstore.ErrPermission, ""},
		"firewall":                {faults.Answer(403, "AuthorizationFailure"), blobstore.ErrPermission, "firewall"},
		"keys are off":            {faults.Answer(403, "KeyBasedAuthenticationNotPermitted"), blobstore.ErrPermission, "identity"},
		"no credentials":          {faults.Answer(409, "PublicAccessNotPermitted"), blobstore.ErrPermission, "credentials"},
		"private container":       {faults.Answer(404, "ResourceNotFound"), blobstore.ErrContainer, "credentials"},
		"container being deleted": {faults.Answer(409, "ContainerBeingDeleted"), blobstore.ErrContainer, "create"},
		"bad container name":      {faults.Answer(400, "InvalidResourceName"), blobstore.ErrContainer, "lower-case"},
		"leased":                  {faults.Answer(412, "LeaseIdMissing"), nil, "lease"},
		"immutable":               {faults.Answer(409, "BlobImmutableDueToPolicy"), blobstore.ErrPermission, "immutability"},
		"clock":                   {faults.Answer(403, "AuthenticationFailed", "Date", "Mon, 02 Jan 2006 15:04:05 GMT"), blobstore.ErrPermission, "clock"},
		"not Azure":               {faults.Answer(404, ""), nil, "endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, proxy, root := proxied(t)
			proxy.Inject(9, faults.Method(http.MethodPut), c.fault)
			_, err := put(t, store, root.Join("a"), "x", blobstore.PutOptions{IfAbsent: true})
			require.Error(t, err)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			assert.NotErrorIs(t, err, blobstore.ErrNotExist)
			assert.NotErrorIs(t, err, blobstore.ErrPrecondition)
			assert.Contains(t, err.Error(), "put "+root.Join("a").String())
			assert.Contains(t, err.Error(), "request id INJECTED")
			var e *azstore.Error
			require.ErrorAs(t, err, &e)
			assert.Contains(t, e.Hint(), c.hint)
			assert.Len(t, proxy.Requests(), 1, "it will not pass")
		})
	}
}
