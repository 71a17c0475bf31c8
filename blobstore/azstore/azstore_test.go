package azstore_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/stretchr/testify/assert"
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
	return impatient(t, 0)
}

// impatient is proxied with a store that gives up a request on which nothing moves
// for this time.
func impatient(t *testing.T, silence time.Duration) (*azstore.Store, *faults.Proxy, blobstore.URI) {
	t.Helper()
	proxy := faults.Start(t, azurite.URL)
	config := configFor(proxy.URL)
	config.Silence = silence
	return azstore.New(config), proxy, folder()
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

// others is how other programs see a container.
func others(t *testing.T) *container.Client {
	t.Helper()
	credential, err := container.NewSharedKeyCredential(azurite.Account, azurite.Key)
	require.NoError(t, err)
	client, err := container.NewClientWithSharedKeyCredential(azurite.URL+"/"+azurite.Account+"/container", credential, nil)
	require.NoError(t, err)
	return client
}

// Keys are those of Flink's filesystem: every character for itself, but the dot at
// the end of a name.
func TestKeysAreFlinks(t *testing.T) {
	t.Parallel()
	store, root := azstore.New(configFor(azurite.URL)), folder()
	paths := map[string]string{
		"a b%20c#d?e+f/ä":     "a b%20c#d?e+f/ä",
		"ends./in./dots..":    "ends[[.]]/in[[.]]/dots.[[.]]",
		".begins/.with/a.dot": ".begins/.with/a.dot",
		"amp&amp;<tag>\"'":    "amp&amp;<tag>\"'",
	}
	var want, got []string
	for path, key := range paths {
		_, err := put(t, store, root.Join(path), path, blobstore.PutOptions{})
		require.NoError(t, err)
		want = append(want, root.Key()+"/"+key)
	}
	prefix := root.Key() + "/"
	for pager := others(t).NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &prefix}); pager.More(); {
		page, err := pager.NextPage(t.Context())
		require.NoError(t, err)
		for _, b := range page.Segment.BlobItems {
			got = append(got, *b.Name)
		}
	}
	assert.ElementsMatch(t, want, got)

	found := map[string]string{}
	for obj, err := range store.List(t.Context(), root, blobstore.ListOptions{}) {
		require.NoError(t, err)
		path, _ := obj.URI.Rel(root)
		found[path] = read(t, store, obj.URI)
	}
	for path := range paths {
		assert.Equal(t, path, found[path])
	}
	assert.Len(t, found, len(paths))
}

// The blobs with which Hadoop and other programs mark folders are no state.
func TestFolderMarksAreNoObjects(t *testing.T) {
	t.Parallel()
	store, root := azstore.New(configFor(azurite.URL)), folder()
	mark := func(key string, metadata map[string]*string) {
		_, err := others(t).NewBlockBlobClient(root.Key()+key).UploadBuffer(t.Context(), nil, &blockblob.UploadBufferOptions{Metadata: metadata})
		require.NoError(t, err)
	}
	yes := "true"
	mark("", map[string]*string{"hdi_isfolder": &yes})
	mark("/chk-1", map[string]*string{"hdi_isfolder": &yes, "hdi_permission": &yes})
	mark("/old", map[string]*string{"asv_isfolder": &yes})
	mark("/portal/", nil)
	mark("/empty", map[string]*string{"hdi_permission": &yes})
	_, err := put(t, store, root.Join("chk-1/_metadata"), "x", blobstore.PutOptions{})
	require.NoError(t, err)

	names := func(opts blobstore.ListOptions) (names []string) {
		for obj, err := range store.List(t.Context(), root, opts) {
			require.NoError(t, err)
			name, _ := obj.URI.Rel(root)
			names = append(names, name)
		}
		return names
	}
	assert.ElementsMatch(t, []string{"chk-1/_metadata", "empty"}, names(blobstore.ListOptions{}))
	assert.ElementsMatch(t, []string{"chk-1", "empty", "portal"}, names(blobstore.ListOptions{Shallow: true}))
	for _, u := range []blobstore.URI{root, root.Join("chk-1"), root.Join("old"), root.Join("portal"), blobstore.MustParse("wasbs://container@devstoreaccount1.blob.core.windows.net")} {
		_, err := store.Stat(t.Context(), u)
		require.ErrorIs(t, err, blobstore.ErrNotExist, u.String())
		_, _, err = store.Open(t.Context(), u)
		require.ErrorIs(t, err, blobstore.ErrNotExist, u.String())
	}
}

// What passes with time is tried again.
func TestTransientFaultsAreRetried(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]faults.Fault{
		"busy":                 faults.Answer(503, "ServerBusy"),
		"internal error":       faults.Answer(500, "InternalError"),
		"timed out":            faults.Answer(500, "OperationTimedOut"),
		"connection reset":     faults.Reset,
		"gateway has no words": faults.Answer(502, ""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, proxy, root := proxied(t)
			proxy.Inject(1, faults.Method(http.MethodPut), fault)
			_, err := put(t, store, root.Join("a"), "body", blobstore.PutOptions{})
			require.NoError(t, err)
			assert.Len(t, proxy.Requests(), 2)
			assert.Equal(t, "body", read(t, store, root.Join("a")))
		})
	}
}

// Who waits for a service that throttles can see it in the log.
func TestRetriesAreLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	proxy := faults.Start(t, azurite.URL)
	config := configFor(proxy.URL)
	config.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	proxy.Inject(1, faults.Method(http.MethodPut), faults.Answer(503, "ServerBusy"))
	_, err := put(t, azstore.New(config), folder().Join("a"), "body", blobstore.PutOptions{})
	require.NoError(t, err)
	assert.Regexp(t, `level=DEBUG msg="Azure call failed, and may be tried again" method=PUT path=/\S+/a error=ServerBusy`, log.String())
}

// A service that asks for patience gets it, if it asks for no more than a tick has.
func TestServiceAsksForAnHour(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	proxy.Inject(9, faults.Method(http.MethodPut), faults.Answer(503, "ServerBusy", "Retry-After", "3600"))
	_, err := put(t, store, root.Join("a"), "body", blobstore.PutOptions{})
	require.ErrorContains(t, err, "ServerBusy")
	assert.Len(t, proxy.Requests(), 1)
}

// A conditional write whose answer is lost is sent again and then finds its own
// object: the caller must look, and does (checkpoint: lostRace).
func TestLostAnswerOfConditionalPut(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	proxy.Inject(1, faults.Method(http.MethodPut), faults.Lost)
	_, err := put(t, store, root.Join("a"), "body", blobstore.PutOptions{IfAbsent: true})
	require.ErrorIs(t, err, blobstore.ErrPrecondition)
	assert.Equal(t, "body", read(t, store, root.Join("a")))
}

// The forms in which services say that a condition is not met.
func TestUnmetConditions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault faults.Fault
		opts  blobstore.PutOptions
	}{
		"it exists":          {faults.Answer(409, "BlobAlreadyExists"), blobstore.PutOptions{IfAbsent: true}},
		"it exists, by time": {faults.Answer(412, "ConditionNotMet"), blobstore.PutOptions{IfAbsent: true}},
		"another tag":        {faults.Answer(412, "ConditionNotMet"), blobstore.PutOptions{IfTag: `"0x1"`}},
		"another tag now":    {faults.Answer(412, "TargetConditionNotMet"), blobstore.PutOptions{IfTag: `"0x1"`}},
		"none has the tag":   {faults.Answer(404, "BlobNotFound"), blobstore.PutOptions{IfTag: `"0x1"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, proxy, root := proxied(t)
			proxy.Inject(1, faults.Method(http.MethodPut), c.fault)
			_, err := put(t, store, root.Join("a"), "one", c.opts)
			require.ErrorIs(t, err, blobstore.ErrPrecondition)
			assert.NotErrorIs(t, err, blobstore.ErrNotExist)
			assert.Len(t, proxy.Requests(), 1)
		})
	}
}

// Bodies that are larger than a block are sent in blocks, each with a checksum,
// whether they can be read anywhere or not; the condition holds for the whole.
func TestPutInBlocks(t *testing.T) {
	t.Parallel()
	proxy := faults.Start(t, azurite.URL)
	config := configFor(proxy.URL)
	config.UploadBlockSize = 1 << 20
	store, root := azstore.New(config), folder()
	for name, c := range map[string]struct {
		size     int
		requests []string
	}{
		"nothing":          {0, []string{""}},
		"less":             {1<<20 - 1, []string{""}},
		"one block":        {1 << 20, []string{""}},
		"several":          {5 << 20 / 2, []string{"block", "block", "block", "blocklist"}},
		"several and none": {2 << 20, []string{"block", "block", "blocklist"}},
	} {
		content := strings.Repeat("0123456789abcdef", c.size/16+1)[:c.size]
		for form, body := range map[string]io.Reader{
			"section": io.NewSectionReader(strings.NewReader(content), 0, int64(c.size)),
			"stream":  io.MultiReader(strings.NewReader(content)),
		} {
			u := root.Join(name, form)
			obj, err := store.Put(t.Context(), u, body, blobstore.PutOptions{IfAbsent: true})
			require.NoError(t, err)
			assert.EqualValues(t, c.size, obj.Size)
			var requests []string
			for _, r := range proxy.Requests() {
				requests = append(requests, r.Query.Get("comp"))
				assert.Equal(t, r.Query.Get("comp") != "blocklist", r.Header.Get("Content-Md5") != "", "the service checks what it gets")
			}
			if name != "one block" || form != "stream" { // of which nobody knows yet that it ends there
				assert.Equal(t, c.requests, requests, "%s, %s", name, form)
			}
			assert.Equal(t, content, read(t, store, u))
			proxy.Requests()
		}
	}
}

// A body that cannot be sent whole leaves the object that was there.
func TestPutOfAStreamIsAtomic(t *testing.T) {
	t.Parallel()
	proxy := faults.Start(t, azurite.URL)
	config := configFor(proxy.URL)
	config.UploadBlockSize = 1 << 20
	store, u := azstore.New(config), folder().Join("large")
	content := strings.Repeat("0123456789abcdef", 5<<20/2/16)
	body := func() io.Reader { return io.MultiReader(strings.NewReader(content)) }
	obj, err := store.Put(t.Context(), u, body(), blobstore.PutOptions{IfAbsent: true})
	require.NoError(t, err)

	_, err = store.Put(t.Context(), u, body(), blobstore.PutOptions{IfAbsent: true})
	require.ErrorIs(t, err, blobstore.ErrPrecondition)
	proxy.Inject(1, func(r *http.Request) bool { return r.URL.Query().Get("comp") == "block" }, faults.Answer(403, "AuthorizationPermissionMismatch"))
	_, err = store.Put(t.Context(), u, body(), blobstore.PutOptions{})
	require.ErrorIs(t, err, blobstore.ErrPermission)
	now, err := store.Stat(t.Context(), u)
	require.NoError(t, err)
	assert.Equal(t, obj.Tag, now.Tag, "the old object stays")
}

// A body that breaks off is taken up where it broke, but not with the bytes of
// another object.
func TestBodyBreaksOff(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	content := strings.Repeat("x", 1<<20)
	_, err := put(t, store, root.Join("a"), content, blobstore.PutOptions{})
	require.NoError(t, err)
	proxy.Inject(1, faults.Method(http.MethodGet), faults.CutAfter(1000))
	assert.Equal(t, content, read(t, store, root.Join("a")))

	proxy.Inject(1, faults.Method(http.MethodGet), faults.CutAfter(1000))
	r, _, err := store.Open(t.Context(), root.Join("a"))
	require.NoError(t, err)
	defer r.Close()
	_, err = put(t, store, root.Join("a"), strings.Repeat("y", 1<<20), blobstore.PutOptions{})
	require.NoError(t, err)
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, blobstore.ErrPrecondition)
}

// A request that a service takes and never answers is tried again, and an answer
// that stops is taken up where it stopped.
func TestSilence(t *testing.T) {
	t.Parallel()
	store, proxy, root := impatient(t, 2*time.Second)
	content := strings.Repeat("x", 1<<20)
	_, err := put(t, store, root.Join("a"), content, blobstore.PutOptions{})
	require.NoError(t, err)

	proxy.Inject(1, faults.Method(http.MethodGet), faults.Hold(nil))
	assert.Equal(t, content, read(t, store, root.Join("a")))

	proxy.Inject(1, faults.Method(http.MethodGet), faults.HoldAfter(1000))
	assert.Equal(t, content, read(t, store, root.Join("a")))
}

func TestSilenceWithoutEnd(t *testing.T) {
	t.Parallel()
	store, proxy, root := impatient(t, 20*time.Millisecond)
	proxy.Inject(99, faults.Method(http.MethodHead), faults.Hold(nil))
	_, err := store.Stat(t.Context(), root.Join("a"))
	require.EqualError(t, err, "stat "+root.Join("a").String()+": no answer within 20ms")
	assert.NotErrorIs(t, err, blobstore.ErrNotExist)
}

func TestCancelWhileWaiting(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	proxy.Inject(9, faults.Method(http.MethodGet), faults.Hold(nil))
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	_, _, err := store.Open(ctx, root.Join("a"))
	require.ErrorIs(t, err, context.Canceled)
}

// A success without a list, as of a portal that asks to log in, is an error, and no
// empty folder.
func TestAnswerWithoutAList(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	for _, opts := range []blobstore.ListOptions{{}, {Shallow: true}} {
		proxy.Inject(1, faults.Method(http.MethodGet), func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusOK)
		})
		for _, err := range store.List(t.Context(), root, opts) {
			require.ErrorContains(t, err, "the answer is no list")
		}
		assert.Len(t, proxy.Requests(), 1)
	}
}

// A proxy that may change how a body is sent calls ETags weak; no weak one meets
// If-Match.
func TestWeakTags(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	obj, err := put(t, store, root.Join("a"), "one", blobstore.PutOptions{})
	require.NoError(t, err)
	proxy.Inject(1, faults.Method(http.MethodHead), faults.Headers("ETag", "W/"+obj.Tag))
	weak, err := store.Stat(t.Context(), root.Join("a"))
	require.NoError(t, err)
	assert.Equal(t, obj.Tag, weak.Tag)
}
