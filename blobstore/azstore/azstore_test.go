package azstore_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/azstore"
	"github.com/chkpin/chkpin/blobstore/storetest"
	"github.com/chkpin/chkpin/blobstore/storetest/faults"
	"github.com/chkpin/chkpin/blobstore/storetest/servers"
)

// azurite serves all tests of this package; each has a folder of its own.
var azurite servers.Azure

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "azstore-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		server, stop, err := servers.StartAzurite(dir, "container", "other")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer stop()
		azurite = server
		return m.Run()
	}())
}

// The contract holds on Azurite.
func TestContractOnAzurite(t *testing.T) {
	t.Parallel()
	config := configFor(azurite.URL)
	config.PageSize = 100
	store := azstore.New(config)
	storetest.Run(t, func(t *testing.T) (blobstore.Store, blobstore.URI) { return store, folder() },
		storetest.Options{Objects: 350})
}

// folder is one that holds nothing.
func folder() blobstore.URI {
	return blobstore.MustParse("wasbs://container@devstoreaccount1.blob.core.windows.net").Join(rand.Text())
}

func configFor(url string) azstore.Config {
	return azstore.Config{
		Endpoint:     url,
		Accounts:     map[string]azstore.Access{azurite.Account: {Key: azurite.Key}, azurite.OtherAccount: {Key: azurite.OtherKey}},
		PollInterval: time.Millisecond,
		Getenv:       environment(),
	}
}

// environment is one of these variables alone, as NAME=value.
func environment(variables ...string) func(string) string {
	return func(name string) string {
		for _, v := range variables {
			if value, ok := strings.CutPrefix(v, name+"="); ok {
				return value
			}
		}
		return ""
	}
}

// proxied opens a store that reaches Azurite through a proxy.
func proxied(t *testing.T) (*azstore.Store, *faults.Proxy, blobstore.URI) {
	t.Helper()
	proxy := faults.Start(t, azurite.URL)
	return azstore.New(configFor(proxy.URL)), proxy, folder()
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
