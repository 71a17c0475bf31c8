package azstore_test

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/azstore"
	"github.com/chkpin/chkpin/blobstore/storetest"
	"github.com/chkpin/chkpin/blobstore/storetest/faults"
	"github.com/chkpin/chkpin/blobstore/storetest/servers"
)

// The contract holds on Azurite.
func TestContractOnAzurite(t *testing.T) {
	t.Parallel()
	server := servers.Azurite(t, "container")
	store := azstore.New(configFor(server, server.URL))
	storetest.Run(t, func(t *testing.T) (blobstore.Store, blobstore.URI) {
		return store, blobstore.MustParse("wasbs://container@devstoreaccount1.blob.core.windows.net").Join(rand.Text())
	}, storetest.Options{})
}

func configFor(server servers.Azure, url string) azstore.Config {
	return azstore.Config{
		Endpoint: url,
		Accounts: map[string]azstore.Access{server.Account: {Key: server.Key}, server.OtherAccount: {Key: server.OtherKey}},
		Getenv:   func(string) string { return "" },
	}
}

// proxied opens a store that reaches Azurite through a proxy.
func proxied(t *testing.T) (*azstore.Store, *faults.Proxy, blobstore.URI) {
	t.Helper()
	server := servers.Azurite(t, "container")
	proxy := faults.Start(t, server.URL)
	return azstore.New(configFor(server, proxy.URL)), proxy, blobstore.MustParse("wasbs://container@devstoreaccount1.blob.core.windows.net/app")
}

func put(t *testing.T, s blobstore.Store, u blobstore.URI, body string, opts blobstore.PutOptions) (blobstore.Object, error) {
	t.Helper()
	return s.Put(t.Context(), u, strings.NewReader(body), opts)
}

func read(t *testing.T, s blobstore.Store, u blobstore.URI) string {
	t.Helper()
	data, _, err := blobstore.ReadAll(t.Context(), s, u, 0)
	require.NoError(t, err)
	return string(data)
}
