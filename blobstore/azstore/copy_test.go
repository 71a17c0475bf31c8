package azstore_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/azstore"
	"github.com/chkpin/chkpin/blobstore/storetest/faults"
)

// The requests of a copy, as they look on the wire.
func copiesNow(r *http.Request) bool { return r.Header.Get("x-ms-requires-sync") == "true" }

func copiesInBackground(r *http.Request) bool {
	return r.Header.Get("x-ms-copy-source") != "" && !copiesNow(r) && !copiesBlock(r)
}

func copiesBlock(r *http.Request) bool {
	return r.Header.Get("x-ms-copy-source") != "" && r.URL.Query().Get("comp") == "block"
}

func steps(requests []faults.Request) (steps []string) {
	for _, r := range requests {
		switch {
		case r.Query.Get("comp") == "copy":
			steps = append(steps, "abort")
		case r.Header.Get("X-Ms-Requires-Sync") == "true":
			steps = append(steps, "copy now")
		case r.Header.Get("X-Ms-Copy-Source") != "" && r.Query.Get("comp") == "block":
			steps = append(steps, "copy block")
		case r.Query.Get("comp") == "blocklist":
			steps = append(steps, "commit")
		case r.Header.Get("X-Ms-Copy-Source") != "":
			steps = append(steps, "copy in background")
		default:
			steps = append(steps, r.Method)
		}
	}
	return steps
}

// copyStore is a store that is ready to copy app/source, through a proxy.
func copyStore(t *testing.T) (*azstore.Store, *faults.Proxy, blobstore.URI) {
	t.Helper()
	store, proxy, root := proxied(t)
	_, err := put(t, store, root.Join("source"), "content", blobstore.PutOptions{})
	require.NoError(t, err)
	proxy.Requests()
	return store, proxy, root
}

// A small object takes one request, also from container to container. Its source
// carries a permission of its own, which the real service asks for even within an
// account (Azurite does not).
func TestCopyIsOneRequest(t *testing.T) {
	t.Parallel()
	store, proxy, root := copyStore(t)
	for _, dst := range []blobstore.URI{root.Join("target"), blobstore.MustParse("abfss://other@devstoreaccount1.dfs.core.windows.net/target")} {
		obj, err := store.Copy(t.Context(), dst, root.Join("source"))
		require.NoError(t, err)
		assert.EqualValues(t, -1, obj.Size, "the service does not say; a listing will")
		requests := proxy.Requests()
		require.Equal(t, []string{"copy now"}, steps(requests))
		source, err := url.Parse(requests[0].Header.Get("X-Ms-Copy-Source"))
		require.NoError(t, err)
		assert.Equal(t, "r", source.Query().Get("sp"))
		assert.Equal(t, "b", source.Query().Get("sr"), "one blob, no more")
		assert.NotEmpty(t, source.Query().Get("sig"))
		assert.Equal(t, "content", read(t, store, dst))
		proxy.Requests()
	}
}

// A service that does not copy at once is asked to copy in the background, and one
// that does not copy at all is spared: the bytes stream.
func TestCopyFallsBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		now, background faults.Fault
		steps           []string
	}{
		"source is too large":    {faults.Answer(409, "InvalidSourceBlobSize"), nil, []string{"copy now", "copy in background"}},
		"source has a firewall":  {faults.Answer(403, "AuthorizationFailure"), nil, []string{"copy now", "copy in background"}},
		"source is not verified": {faults.Answer(403, "CannotVerifyCopySource"), nil, []string{"copy now", "copy in background"}},
		"neither is known": {faults.Answer(501, "APINotImplemented"), faults.Answer(501, "APINotImplemented"),
			[]string{"copy now", "copy in background", "GET", "PUT"}},
		"neither is allowed": {faults.Answer(400, "UnsupportedHeader"), faults.Answer(401, "CannotVerifyCopySource"),
			[]string{"copy now", "copy in background", "GET", "PUT"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, proxy, root := copyStore(t)
			proxy.Inject(1, copiesNow, c.now)
			if c.background != nil {
				proxy.Inject(1, copiesInBackground, c.background)
			}
			_, err := store.Copy(t.Context(), root.Join("target"), root.Join("source"))
			require.NoError(t, err)
			assert.Equal(t, c.steps, steps(proxy.Requests()))
			assert.Equal(t, "content", read(t, store, root.Join("target")))
		})
	}
}

// What cannot be copied in any way is not tried in all of them.
func TestCopyFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault faults.Fault
		is    error
		steps []string
	}{
		"no such source":    {faults.Answer(404, "CannotVerifyCopySource"), blobstore.ErrNotExist, []string{"copy now"}},
		"no such container": {faults.Answer(404, "ContainerNotFound"), blobstore.ErrContainer, []string{"copy now"}},
		"no rights": {faults.Answer(403, "AuthorizationPermissionMismatch"), blobstore.ErrPermission,
			[]string{"copy now", "copy in background"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, proxy, root := copyStore(t)
			proxy.Inject(2, faults.Method(http.MethodPut), c.fault)
			_, err := store.Copy(t.Context(), root.Join("target"), root.Join("source"))
			require.ErrorIs(t, err, c.is)
			assert.ErrorContains(t, err, "copy "+root.Join("target").String()+" from "+root.Join("source").String())
			assert.Equal(t, c.steps, steps(proxy.Requests()))
		})
	}
}

// What a copy in the background replaces is gone from its beginning, and for good if
// it fails: what another chkpin may have published already is replaced at once, by a
// copy in blocks.
func TestCopyOntoAnObject(t *testing.T) {
	t.Parallel()
	proxy := faults.Start(t, azurite.URL)
	config := configFor(proxy.URL)
	config.CopyBlockSize = 3
	store, root := azstore.New(config), folder()
	for _, name := range []string{"source", "target"} {
		_, err := put(t, store, root.Join(name), map[string]string{"source": "content", "target": "before"}[name], blobstore.PutOptions{})
		require.NoError(t, err)
	}
	proxy.Requests()

	proxy.Inject(1, copiesNow, faults.Answer(409, "InvalidSourceBlobSize"))
	proxy.Inject(3, copiesBlock, copyBlock(t, root.Join("target").Key()))
	obj, err := store.Copy(t.Context(), root.Join("target"), root.Join("source"))
	require.NoError(t, err)
	assert.EqualValues(t, len("content"), obj.Size)
	requests := slices.DeleteFunc(proxy.Requests(), func(r faults.Request) bool { return r.Method == http.MethodGet }) // the service's own
	require.Equal(t, []string{"copy now", "copy in background", "HEAD", "copy block", "copy block", "copy block", "commit"}, steps(requests))
	assert.Equal(t, "*", requests[1].Header.Get("If-None-Match"))
	for _, r := range requests[3:6] {
		assert.NotEmpty(t, r.Header.Get("X-Ms-Source-If-Match"), "the source must not change between blocks")
	}
	now, err := store.Stat(t.Context(), root.Join("target"))
	require.NoError(t, err)
	assert.Equal(t, now.Tag, obj.Tag)
	assert.Equal(t, "content", read(t, store, root.Join("target")))

	// Where the service copies no blocks, as Azurite, or a firewall shuts it out, the
	// bytes stream.
	config.CopyBlockSize = 0
	store = azstore.New(config)
	for _, refusal := range []faults.Fault{faults.Answer(501, "NotImplemented"), faults.Answer(403, "AuthorizationFailure")} {
		proxy.Requests()
		proxy.Inject(1, copiesNow, faults.Answer(409, "InvalidSourceBlobSize"))
		proxy.Inject(1, copiesBlock, refusal)
		_, err = store.Copy(t.Context(), root.Join("target"), root.Join("source"))
		require.NoError(t, err)
		assert.Equal(t, []string{"copy now", "copy in background", "HEAD", "copy block", "GET", "PUT"}, steps(proxy.Requests()))
	}

	// So they do where the service does not say how many there are.
	proxy.Requests()
	proxy.Inject(1, copiesNow, faults.Answer(409, "InvalidSourceBlobSize"))
	proxy.Inject(1, faults.Method(http.MethodHead), faults.InChunks)
	_, err = store.Copy(t.Context(), root.Join("target"), root.Join("source"))
	require.NoError(t, err)
	assert.Equal(t, []string{"copy now", "copy in background", "HEAD", "GET", "PUT"}, steps(proxy.Requests()))

	// A source that vanishes leaves the target as it was.
	proxy.Inject(1, copiesNow, faults.Answer(409, "InvalidSourceBlobSize"))
	_, err = store.Copy(t.Context(), root.Join("target"), root.Join("nothing"))
	require.ErrorIs(t, err, blobstore.ErrNotExist)
	assert.Equal(t, "content", read(t, store, root.Join("target")))
}

// copyBlock does for Azurite, which cannot, what the service does when it is asked
// to copy a block.
func copyBlock(t *testing.T, key string) faults.Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		get, err := http.NewRequestWithContext(r.Context(), http.MethodGet, r.Header.Get("x-ms-copy-source"), nil)
		assert.NoError(t, err)
		get.Header.Set("Range", r.Header.Get("x-ms-source-range"))
		answer, err := http.DefaultClient.Do(get)
		if !assert.NoError(t, err) {
			return
		}
		defer answer.Body.Close()
		block, err := io.ReadAll(answer.Body)
		assert.NoError(t, err)
		assert.Equal(t, http.StatusPartialContent, answer.StatusCode, "%s", block)
		_, err = others(t).NewBlockBlobClient(key).StageBlock(r.Context(), r.URL.Query().Get("blockid"), streaming.NopCloser(bytes.NewReader(block)), nil)
		assert.NoError(t, err)
		w.WriteHeader(http.StatusCreated)
	}
}

// A copy that pends is waited for, and its size is known then.
func TestPendingCopy(t *testing.T) {
	t.Parallel()
	store, proxy, root := copyStore(t)
	proxy.Inject(1, copiesNow, faults.Answer(409, "InvalidSourceBlobSize"))
	proxy.Inject(1, copiesInBackground, faults.Headers("x-ms-copy-status", "pending"))
	proxy.Inject(3, faults.Method(http.MethodHead), faults.Headers("x-ms-copy-status", "pending"))
	obj, err := store.Copy(t.Context(), root.Join("target"), root.Join("source"))
	require.NoError(t, err)
	assert.EqualValues(t, len("content"), obj.Size)
	assert.Equal(t, []string{"copy now", "copy in background", "HEAD", "HEAD", "HEAD", "HEAD"}, steps(proxy.Requests()))
}

func TestPendingCopyFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault   faults.Fault
		is      error
		message string
		last    string
	}{
		"the service gives up": {faults.Headers("x-ms-copy-status", "failed", "x-ms-copy-status-description", "500 InternalServerError"),
			nil, "failed: 500 InternalServerError", "HEAD"},
		"the source is deleted": {faults.Headers("x-ms-copy-status", "failed", "x-ms-copy-status-description", `404 BlobNotFound "Copy failed when reading the source."`),
			blobstore.ErrNotExist, "failed: 404 BlobNotFound", "HEAD"},
		"somebody aborts it":  {faults.Headers("x-ms-copy-status", "aborted"), nil, "aborted", "HEAD"},
		"it cannot be seen":   {faults.Answer(403, "AuthorizationPermissionMismatch"), blobstore.ErrPermission, "AuthorizationPermissionMismatch", "abort"},
		"the target vanishes": {faults.Answer(404, "BlobNotFound"), blobstore.ErrNotExist, "BlobNotFound", "abort"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, proxy, root := copyStore(t)
			proxy.Inject(1, copiesNow, faults.Answer(409, "InvalidSourceBlobSize"))
			proxy.Inject(1, copiesInBackground, faults.Headers("x-ms-copy-status", "pending"))
			proxy.Inject(1, faults.Method(http.MethodHead), c.fault)
			_, err := store.Copy(t.Context(), root.Join("target"), root.Join("source"))
			require.ErrorContains(t, err, c.message)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			done := steps(proxy.Requests())
			assert.Equal(t, c.last, done[len(done)-1])
		})
	}
}

// Who does not wait any more for a copy ends it.
func TestPendingCopyIsAborted(t *testing.T) {
	t.Parallel()
	store, proxy, root := copyStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	proxy.Inject(1, copiesNow, faults.Answer(409, "InvalidSourceBlobSize"))
	proxy.Inject(1, copiesInBackground, faults.Headers("x-ms-copy-status", "pending"))
	proxy.Inject(1, faults.Method(http.MethodHead), func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		faults.Headers("x-ms-copy-status", "pending")(w, r, forward)
		cancel()
	})
	_, err := store.Copy(ctx, root.Join("target"), root.Join("source"))
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, []string{"copy now", "copy in background", "HEAD", "abort"}, steps(proxy.Requests()))
}

// A copy that a killed chkpin left behind is waited for before the next begins.
func TestCopyOntoPendingCopy(t *testing.T) {
	t.Parallel()
	store, proxy, root := copyStore(t)
	_, err := put(t, store, root.Join("target"), "half", blobstore.PutOptions{})
	require.NoError(t, err)
	proxy.Requests()
	proxy.Inject(1, copiesNow, faults.Answer(409, "PendingCopyOperation"))
	proxy.Inject(2, faults.Method(http.MethodHead), faults.Headers("x-ms-copy-status", "pending"))
	_, err = store.Copy(t.Context(), root.Join("target"), root.Join("source"))
	require.NoError(t, err)
	assert.Equal(t, []string{"copy now", "HEAD", "HEAD", "HEAD", "copy now"}, steps(proxy.Requests()))
	assert.Equal(t, "content", read(t, store, root.Join("target")))
}

// What a copy has not filled yet, or never will, has the right size and no bytes:
// it is no object.
func TestTargetOfUnfinishedCopyIsNoObject(t *testing.T) {
	t.Parallel()
	store, proxy, root := copyStore(t)
	for _, status := range []string{"pending", "failed", "aborted"} {
		proxy.Inject(1, faults.Method(http.MethodHead), faults.Headers("x-ms-copy-status", status))
		_, err := store.Stat(t.Context(), root.Join("source"))
		require.ErrorIs(t, err, blobstore.ErrNotExist, status)
		proxy.Inject(1, faults.Method(http.MethodGet), faults.Headers("x-ms-copy-status", status))
		_, _, err = store.Open(t.Context(), root.Join("source"))
		require.ErrorIs(t, err, blobstore.ErrNotExist, status)

		proxy.Inject(1, faults.Method(http.MethodGet), func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			assert.Contains(t, r.URL.Query().Get("include"), "copy")
			_, _ = w.Write([]byte(strings.NewReplacer("STATUS", status, "DIR", root.Key()).Replace(listed)))
		})
		var names []string
		for obj, err := range store.List(t.Context(), root, blobstore.ListOptions{}) {
			require.NoError(t, err)
			names = append(names, obj.URI.Base())
		}
		assert.Equal(t, []string{"whole"}, names)
	}
}

// listed is a listing as the real service writes one: ETags without quotes.
const listed = `<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>
<Blob><Name>DIR/unfinished</Name><Properties><Last-Modified>Wed, 09 Sep 2026 09:20:02 GMT</Last-Modified><Etag>0x8CBFF45D8A29A19</Etag>
 <Content-Length>7</Content-Length><CopyStatus>STATUS</CopyStatus></Properties></Blob>
<Blob><Name>DIR/whole</Name><Properties><Last-Modified>Wed, 09 Sep 2026 09:20:03 GMT</Last-Modified><Etag>0x8CBFF45D8A29A20</Etag>
 <Content-Length>7</Content-Length><CopyStatus>success</CopyStatus></Properties></Blob>
</Blobs><NextMarker /></EnumerationResults>`

// Accounts have keys of their own, also in one process, and know nothing of each
// other: what goes from one to the other streams.
func TestCopyAcrossAccounts(t *testing.T) {
	t.Parallel()
	store, proxy, root := copyStore(t)
	dst := blobstore.MustParse("wasbs://container@otheraccount.blob.core.windows.net/app/target")
	obj, err := store.Copy(t.Context(), dst, root.Join("source"))
	require.NoError(t, err)
	assert.EqualValues(t, len("content"), obj.Size)
	requests := proxy.Requests()
	require.Equal(t, []string{"GET", "PUT"}, steps(requests))
	assert.True(t, strings.HasPrefix(requests[0].Header.Get("Authorization"), "SharedKey devstoreaccount1:"))
	assert.True(t, strings.HasPrefix(requests[1].Header.Get("Authorization"), "SharedKey otheraccount:"))
	assert.Equal(t, "content", read(t, store, dst))

	_, err = store.Copy(t.Context(), dst, root.Join("nothing"))
	require.ErrorIs(t, err, blobstore.ErrNotExist)
	assert.ErrorContains(t, err, "open "+root.Join("nothing").String(), "which side it is")
}
