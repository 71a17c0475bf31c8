package s3store_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/s3store"
	"github.com/chkpin/chkpin/blobstore/storetest"
	"github.com/chkpin/chkpin/blobstore/storetest/faults"
	"github.com/chkpin/chkpin/blobstore/storetest/servers"
)

func configFor(server servers.S3, url string) s3store.Config {
	return s3store.Config{
		Endpoint: url, PathStyle: true, Region: "us-east-1",
		AccessKey: server.AccessKey, SecretKey: server.SecretKey,
	}
}

// proxied opens a store that reaches versitygw through a proxy.
func proxied(t *testing.T) (*s3store.Store, *faults.Proxy, blobstore.URI) {
	t.Helper()
	return impatient(t, 0)
}

// impatient is proxied with a store that gives up a request on which nothing moves
// for this time.
func impatient(t *testing.T, silence time.Duration) (*s3store.Store, *faults.Proxy, blobstore.URI) {
	t.Helper()
	server := servers.VersityGW(t, []string{"bucket", "other"})
	proxy := faults.Start(t, server.URL)
	config := configFor(server, proxy.URL)
	config.Silence = silence
	return s3store.New(config), proxy, blobstore.MustParse("s3://bucket/app")
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

// What passes with time is tried again: throttling, a conflict with another
// conditional writer, a broken connection.
func TestTransientFaultsAreRetried(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]faults.Fault{
		"throttled":            faults.Answer(503, "SlowDown", "Retry-After", "0"),
		"throttled by others":  faults.Answer(429, "TooManyRequests"),
		"conflict":             faults.Answer(409, "ConditionalRequestConflict"),
		"internal error":       faults.Answer(500, "InternalError"),
		"connection reset":     faults.Reset,
		"gateway has no words": faults.Answer(502, ""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, proxy, root := proxied(t)
			proxy.Inject(2, faults.Method(http.MethodPut), fault)
			_, err := put(t, store, root.Join("a"), "body", blobstore.PutOptions{})
			require.NoError(t, err)
			assert.Len(t, proxy.Requests(), 3)
			assert.Equal(t, "body", read(t, store, root.Join("a")))
		})
	}
}

// Who waits for a service that throttles can see it in the log.
func TestRetriesAreLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	server := servers.VersityGW(t, []string{"bucket"})
	proxy := faults.Start(t, server.URL)
	config := configFor(server, proxy.URL)
	config.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	proxy.Inject(1, faults.Method(http.MethodPut), faults.Answer(503, "SlowDown", "Retry-After", "0"))
	_, err := put(t, s3store.New(config), blobstore.MustParse("s3://bucket/app").Join("a"), "body", blobstore.PutOptions{})
	require.NoError(t, err)
	assert.Regexp(t, `level=DEBUG msg="S3 call failed, trying again" call=PutObject error=.*SlowDown`, log.String())
}

// A service that asks for patience gets it, if it asks for no more than there is.
// What it said is told then, and not that time ran out.
func TestServiceAsksForPatience(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]string{"more than any tick has": "3600", "more than this one has": "59"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, proxy, root := proxied(t)
			proxy.Inject(9, faults.Method(http.MethodPut), faults.Answer(503, "SlowDown", "Retry-After", wait))
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
			defer cancel()
			_, err := store.Put(ctx, root.Join("a"), strings.NewReader("body"), blobstore.PutOptions{})
			require.ErrorContains(t, err, "SlowDown")
			assert.Len(t, proxy.Requests(), 1)
		})
	}
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

func TestUnmetConditions(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	_, err := put(t, store, root.Join("a"), "one", blobstore.PutOptions{IfTag: `"d41d8cd98f00b204e9800998ecf8427e"`})
	require.ErrorIs(t, err, blobstore.ErrPrecondition, "an object that is not there")

	proxy.Inject(1, faults.Method(http.MethodPut), faults.Answer(412, "PreconditionFailed"))
	_, err = put(t, store, root.Join("a"), "one", blobstore.PutOptions{IfAbsent: true})
	require.ErrorIs(t, err, blobstore.ErrPrecondition)
}

// notS3 is what an ingress says that knows no backend.
func notS3(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	http.Error(w, "default backend - 404", http.StatusNotFound)
}

// Errors name the operation, the URI, the service's code and the request, and
// know a way out.
func TestErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault   faults.Fault
		is      error
		message string
		hint    string
	}{
		"denied":         {faults.Answer(403, "AccessDenied"), blobstore.ErrPermission, "AccessDenied", "s3:ListBucket"},
		"bad bucket":     {faults.Answer(400, "InvalidBucketName"), blobstore.ErrContainer, "InvalidBucketName", "3 to 63"},
		"elsewhere":      {faults.Answer(302, "Found"), nil, "Found", "sends requests elsewhere"},
		"throttled":      {faults.Answer(429, "TooManyRequests", "Retry-After", "61"), nil, "TooManyRequests", "throttles"},
		"expired token":  {faults.Answer(400, "ExpiredToken"), blobstore.ErrPermission, "ExpiredToken", "renew"},
		"missing bucket": {faults.Answer(404, "NoSuchBucket"), blobstore.ErrContainer, "NoSuchBucket", "create the bucket"},
		"clock skew":     {faults.Answer(403, "RequestTimeTooSkewed"), nil, "RequestTimeTooSkewed", "clock"},
		"wrong region":   {faults.Answer(301, "PermanentRedirect"), nil, "PermanentRedirect", "--s3-region"},
		"no S3":          {notS3, nil, "NotFound", "is the endpoint"},
		"no If-Match":    {faults.Answer(501, "NotImplemented"), nil, "NotImplemented", "If-Match"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, proxy, root := proxied(t)
			proxy.Inject(9, faults.Method(http.MethodGet), c.fault)
			_, _, err := store.Open(t.Context(), root.Join("a"))
			require.Error(t, err)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			assert.NotErrorIs(t, err, blobstore.ErrNotExist)
			var e *blobstore.Error
			require.ErrorAs(t, err, &e)
			assert.Equal(t, "open", e.Op)
			assert.Contains(t, err.Error(), "s3://bucket/app/a")
			assert.Contains(t, err.Error(), c.message)
			if name != "no S3" {
				assert.Contains(t, err.Error(), "request id INJECTED")
			}
			var s3err *s3store.Error
			require.ErrorAs(t, err, &s3err)
			assert.Contains(t, s3err.Hint(), c.hint)
		})
	}
}

// Where nobody listens, the error is what the network says and no more.
func TestNobodyListens(t *testing.T) {
	t.Parallel()
	store := s3store.New(s3store.Config{Endpoint: "http://127.0.0.1:1", PathStyle: true, Region: "us-east-1", AccessKey: "a", SecretKey: "b"})
	_, _, err := store.Open(t.Context(), blobstore.MustParse("s3://bucket/a"))
	require.EqualError(t, err, "open s3://bucket/a: dial tcp 127.0.0.1:1: connect: connection refused")
	assert.NotErrorIs(t, err, blobstore.ErrNotExist)
}

func TestMissingBucketIsNotAMissingObject(t *testing.T) {
	t.Parallel()
	store, _, _ := proxied(t)
	_, _, err := store.Open(t.Context(), blobstore.MustParse("s3://nowhere/app/a"))
	require.ErrorIs(t, err, blobstore.ErrContainer)
	assert.NotErrorIs(t, err, blobstore.ErrNotExist)
}

// A bucket is no object: what looks for one under an application's own name is
// to go on.
func TestABucketIsNoObject(t *testing.T) {
	t.Parallel()
	store, _, _ := proxied(t)
	bucket := blobstore.MustParse("s3://bucket")
	_, _, err := store.Open(t.Context(), bucket)
	require.ErrorIs(t, err, blobstore.ErrNotExist)
	_, err = store.Stat(t.Context(), bucket)
	require.ErrorIs(t, err, blobstore.ErrNotExist)
}

// A body that breaks off is taken up where it broke, but not with the bytes of
// another object, and not without end.
func TestBodyBreaksOff(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	content := strings.Repeat("0123456789abcdef", 1<<16)
	_, err := put(t, store, root.Join("a"), content, blobstore.PutOptions{})
	require.NoError(t, err)
	proxy.Inject(5, faults.Method(http.MethodGet), faults.CutAfter(1001))
	assert.True(t, content == read(t, store, root.Join("a")))
	proxy.Inject(1, faults.Method(http.MethodGet), faults.CutAfter(len(content)))
	assert.True(t, content == read(t, store, root.Join("a")))

	proxy.Inject(4, faults.Method(http.MethodGet), faults.CutAfter(0))
	_, _, err = blobstore.ReadAll(t.Context(), store, root.Join("a"), 0)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)

	proxy.Inject(1, faults.Method(http.MethodGet), faults.CutAfter(1001))
	r, _, err := store.Open(t.Context(), root.Join("a"))
	require.NoError(t, err)
	defer r.Close()
	_, err = put(t, store, root.Join("a"), strings.Repeat("y", 1<<20), blobstore.PutOptions{})
	require.NoError(t, err)
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, blobstore.ErrPrecondition)
}

// A listing that breaks off is asked for again, and what is no listing is told in one line.
func TestListingBreaksOff(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	_, err := put(t, store, root.Join("a"), "body", blobstore.PutOptions{})
	require.NoError(t, err)
	proxy.Inject(1, faults.Method(http.MethodGet), faults.CutAfter(150))
	var names []string
	for o, err := range store.List(t.Context(), root, blobstore.ListOptions{}) {
		require.NoError(t, err)
		names = append(names, o.URI.Base())
	}
	assert.Equal(t, []string{"a"}, names)

	proxy.Inject(1, faults.Method(http.MethodGet), func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		_, _ = w.Write([]byte("\x1f\x8b\nnot XML"))
	})
	for _, err := range store.List(t.Context(), root, blobstore.ListOptions{}) {
		require.ErrorContains(t, err, "list s3://bucket/app: the answer cannot be read: XML syntax error")
		assert.NotContains(t, err.Error(), "\n")
	}
}

// A success without a list, as of a portal that asks to log in, is an error, and no
// empty folder.
func TestAnswerWithoutAList(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	proxy.Inject(1, faults.Method(http.MethodGet), func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.WriteHeader(http.StatusOK)
	})
	for _, err := range store.List(t.Context(), root, blobstore.ListOptions{}) {
		require.ErrorContains(t, err, "the answer is no list")
		var e *s3store.Error
		require.ErrorAs(t, err, &e)
		assert.Contains(t, e.Hint(), "is the endpoint")
	}
	assert.Len(t, proxy.Requests(), 1)
}

// An answer in chunks does not say how long it is.
func TestAnswerInChunks(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	_, err := put(t, store, root.Join("a"), "body", blobstore.PutOptions{})
	require.NoError(t, err)
	proxy.Inject(1, faults.Method(http.MethodGet), faults.InChunks)
	assert.Equal(t, "body", read(t, store, root.Join("a")))
	proxy.Inject(1, faults.Method(http.MethodHead), faults.InChunks)
	obj, err := store.Stat(t.Context(), root.Join("a"))
	require.NoError(t, err)
	assert.EqualValues(t, -1, obj.Size)
}

// A proxy may call tags weak, which by the rules of HTTP meet no condition of a Put.
func TestWeakTags(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	strong, err := put(t, store, root.Join("a"), "old", blobstore.PutOptions{})
	require.NoError(t, err)
	weak := faults.Headers("ETag", "W/"+strong.Tag)
	proxy.Inject(1, faults.Method(http.MethodHead), weak)
	obj, err := store.Stat(t.Context(), root.Join("a"))
	require.NoError(t, err)
	assert.Equal(t, strong.Tag, obj.Tag)
	proxy.Inject(1, faults.Method(http.MethodGet), weak)
	_, obj, err = blobstore.ReadAll(t.Context(), store, root.Join("a"), 0)
	require.NoError(t, err)
	assert.Equal(t, strong.Tag, obj.Tag)
	_, err = put(t, store, root.Join("a"), "new", blobstore.PutOptions{IfTag: obj.Tag})
	require.NoError(t, err)
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

// An object above the service's limit for one copy is copied in parts, and
// stays whole; the limit of AWS is 5 GiB, here it is 5 MiB.
func TestCopyAboveTheLimit(t *testing.T) {
	t.Parallel()
	server := servers.VersityGW(t, []string{"bucket", "other"}, "--copy-object-threshold", "5242880")
	proxy := faults.Start(t, server.URL)
	config := configFor(server, proxy.URL)
	config.CopyPartSize = 5 << 20
	store := s3store.New(config)
	src, dst := blobstore.MustParse("s3://bucket/app/large"), blobstore.MustParse("s3a://other/copy of large")
	body := bytes.Repeat([]byte("0123456789abcdef"), 11<<20/16)
	_, err := store.Put(t.Context(), src, bytes.NewReader(body), blobstore.PutOptions{})
	require.NoError(t, err)
	proxy.Requests()

	obj, err := store.Copy(t.Context(), dst, src)
	require.NoError(t, err)
	assert.EqualValues(t, len(body), obj.Size)
	copied, got, err := blobstore.ReadAll(t.Context(), store, dst, 0)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(body, copied))
	assert.Equal(t, got.Tag, obj.Tag)

	var parts int
	for _, r := range proxy.Requests() {
		if r.Query.Has("partNumber") {
			parts++
			assert.NotEmpty(t, r.Header.Get("X-Amz-Copy-Source-If-Match"), "the source must not change between parts")
		}
	}
	assert.Equal(t, 3, parts)
}

// A failed copy in parts leaves no upload behind that costs money.
func TestFailedPartsAreAborted(t *testing.T) {
	t.Parallel()
	server := servers.VersityGW(t, []string{"bucket"}, "--copy-object-threshold", "5242880")
	proxy := faults.Start(t, server.URL)
	store := s3store.New(configFor(server, proxy.URL))
	src := blobstore.MustParse("s3://bucket/app/large")
	_, err := store.Put(t.Context(), src, bytes.NewReader(make([]byte, 6<<20)), blobstore.PutOptions{})
	require.NoError(t, err)
	proxy.Inject(1, func(r *http.Request) bool { return r.URL.Query().Has("partNumber") }, faults.Answer(403, "AccessDenied"))
	proxy.Requests()
	_, err = store.Copy(t.Context(), blobstore.MustParse("s3://bucket/app/copy"), src)
	require.ErrorIs(t, err, blobstore.ErrPermission)
	requests := proxy.Requests()
	last := requests[len(requests)-1]
	assert.Equal(t, http.MethodDelete, last.Method)
	assert.True(t, last.Query.Has("uploadId"))
}

// withLarge opens a store that has an object above the service's limit for one copy.
func withLarge(t *testing.T) (*s3store.Store, *faults.Proxy, blobstore.URI) {
	t.Helper()
	server := servers.VersityGW(t, []string{"bucket"}, "--copy-object-threshold", "5242880")
	proxy := faults.Start(t, server.URL)
	config := configFor(server, proxy.URL)
	config.CopyPartSize = 5 << 20
	store := s3store.New(config)
	src := blobstore.MustParse("s3://bucket/app/large")
	_, err := store.Put(t.Context(), src, bytes.NewReader(make([]byte, 6<<20)), blobstore.PutOptions{})
	require.NoError(t, err)
	return store, proxy, src
}

// The answer to the last request of a copy in parts is lost, and a service that has
// done what it was asked says that there is no such upload any more: nothing is
// missing, as it would be if Flink had deleted the source.
func TestLostAnswerOfACopyInParts(t *testing.T) {
	t.Parallel()
	store, proxy, src := withLarge(t)
	last := func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Query().Has("uploadId") }
	proxy.Inject(1, last, faults.Lost)
	proxy.Inject(1, last, faults.Answer(404, "NoSuchUpload"))
	_, err := store.Copy(t.Context(), blobstore.MustParse("s3://bucket/app/copy"), src)
	require.ErrorContains(t, err, "NoSuchUpload")
	assert.NotErrorIs(t, err, blobstore.ErrNotExist)
}

// What a service leaves out of its answers is an error, and no reason to break down.
func TestCopyInPartsWithPoorAnswers(t *testing.T) {
	t.Parallel()
	store, proxy, src := withLarge(t)
	proxy.Inject(1, faults.Method(http.MethodHead), faults.InChunks)
	_, err := store.Copy(t.Context(), blobstore.MustParse("s3://bucket/app/copy"), src)
	require.ErrorContains(t, err, "does not say how large")
	proxy.Inject(1, func(r *http.Request) bool { return r.URL.Query().Has("partNumber") }, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.WriteHeader(http.StatusOK)
	})
	_, err = store.Copy(t.Context(), blobstore.MustParse("s3://bucket/app/copy"), src)
	require.ErrorContains(t, err, "does not say what it copied")
}

// Copies name their source percent-encoded, ask for no tags, and say which side
// is missing.
func TestCopyRequest(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	src := root.Join("a b+c%20d#e?f=g ü")
	_, err := put(t, store, src, "body", blobstore.PutOptions{})
	require.NoError(t, err)
	proxy.Requests()
	obj, err := store.Copy(t.Context(), root.Join("copy"), src)
	require.NoError(t, err)
	assert.EqualValues(t, -1, obj.Size, "S3 does not say; a listing will")
	requests := proxy.Requests()
	require.Len(t, requests, 1)
	assert.Equal(t, "bucket/app/a%20b%2Bc%2520d%23e%3Ff%3Dg%20%C3%BC", requests[0].Header.Get("X-Amz-Copy-Source"))
	assert.Equal(t, "REPLACE", requests[0].Header.Get("X-Amz-Tagging-Directive"))
	assert.Equal(t, "body", read(t, store, root.Join("copy")))

	_, err = store.Copy(t.Context(), root.Join("copy"), root.Join("missing"))
	require.ErrorIs(t, err, blobstore.ErrNotExist)
	assert.Contains(t, err.Error(), "copy s3://bucket/app/copy from s3://bucket/app/missing")
}

// A body of unknown length streams in parts; the condition holds for the whole.
func TestStreamedPut(t *testing.T) {
	t.Parallel()
	server := servers.VersityGW(t, []string{"bucket"})
	config := configFor(server, server.URL)
	config.UploadPartSize = 5 << 20
	store := s3store.New(config)
	u := blobstore.MustParse("s3://bucket/large")
	body := bytes.Repeat([]byte("x"), 12<<20)
	obj, err := store.Put(t.Context(), u, io.MultiReader(bytes.NewReader(body)), blobstore.PutOptions{IfAbsent: true})
	require.NoError(t, err)
	assert.EqualValues(t, len(body), obj.Size)
	got, err := store.Stat(t.Context(), u)
	require.NoError(t, err)
	assert.Equal(t, obj.Size, got.Size)
	assert.Equal(t, obj.Tag, got.Tag)
	_, err = store.Put(t.Context(), u, io.MultiReader(bytes.NewReader(body)), blobstore.PutOptions{IfAbsent: true})
	require.ErrorIs(t, err, blobstore.ErrPrecondition)

	broken := errors.New("the source broke off")
	_, err = store.Put(t.Context(), u, io.MultiReader(bytes.NewReader(body), errorReader{broken}), blobstore.PutOptions{})
	require.ErrorContains(t, err, broken.Error())
	now, err := store.Stat(t.Context(), u)
	require.NoError(t, err)
	assert.Equal(t, obj.Tag, now.Tag, "the old object stays")
}

// An object that breaks off while it is copied to a volume is read again, some
// times, and never half a copy.
func TestCopyToAVolumeThatBreaksOff(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	mux := blobstore.Mux{blobstore.FamilyFile: blobstore.NewFile(), blobstore.FamilyS3: store}
	body := strings.Repeat("0123456789abcdef", 10_000)
	_, err := put(t, store, root.Join("a"), body, blobstore.PutOptions{})
	require.NoError(t, err)
	target := blobstore.MustParse("file://" + t.TempDir()).Join("a")

	proxy.Inject(12, faults.Method("GET"), faults.CutAfter(0)) // each time it is read, it is taken up three times
	_, err = mux.Copy(t.Context(), target, root.Join("a"))
	require.ErrorContains(t, err, "read s3://bucket/app/a: ")
	_, err = mux.Stat(t.Context(), target)
	require.ErrorIs(t, err, blobstore.ErrNotExist)

	proxy.Inject(8, faults.Method("GET"), faults.CutAfter(0))
	_, err = mux.Copy(t.Context(), target, root.Join("a"))
	require.NoError(t, err)
	assert.True(t, body == read(t, mux, target))
}

// A body that can be read anywhere, such as a file, is sent from where it is, in
// parts when it is large, and each with its checksum.
func TestPutOfALargeFile(t *testing.T) {
	t.Parallel()
	server := servers.FakeS3(t, "bucket")
	proxy := faults.Start(t, server.URL)
	config := configFor(server, proxy.URL)
	config.UploadPartSize = 64 << 10
	store := s3store.New(config)
	body := make([]byte, 1200<<10)
	_, err := rand.Read(body)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "large")
	require.NoError(t, os.WriteFile(path, body, 0o666))
	mux := blobstore.Mux{blobstore.FamilyFile: blobstore.NewFile(), blobstore.FamilyS3: store}
	u := blobstore.MustParse("s3://bucket/large")
	obj, err := mux.Copy(t.Context(), u, blobstore.MustParse("file://"+path))
	require.NoError(t, err)
	assert.EqualValues(t, len(body), obj.Size)
	assert.True(t, string(body) == read(t, store, u))
	var parts int
	for _, r := range proxy.Requests() {
		if r.Query.Has("partNumber") {
			parts++
			assert.Regexp(t, "^[0-9a-f]{64}$", r.Header.Get("X-Amz-Content-Sha256"))
		}
	}
	assert.Equal(t, 3, parts)

	there, err := store.Stat(t.Context(), u) // gofakes3 has answered another tag than it keeps
	require.NoError(t, err)
	_, err = store.Put(t.Context(), u, bytes.NewReader(body), blobstore.PutOptions{IfTag: there.Tag})
	require.NoError(t, err)
	for _, r := range proxy.Requests() {
		assert.False(t, r.Query.Has("uploads"), "a condition on an upload in parts is unknown to many services")
	}
}

type errorReader struct{ err error }

func (e errorReader) Read([]byte) (int, error) { return 0, e.err }

// The contract holds on a server that keeps to S3's semantics. Its objects are
// files: a name cannot be an object and a folder at once, a Put that meets the
// removal of an empty folder is refused at times, and one answer can hold the
// bytes of one version and the tag of the next.
func TestContractOnVersityGW(t *testing.T) {
	t.Parallel()
	server := servers.VersityGW(t, []string{"bucket"})
	store := s3store.New(configFor(server, server.URL))
	storetest.Run(t, func(t *testing.T) (blobstore.Store, blobstore.URI) {
		return store, blobstore.MustParse("s3://bucket").Join(rand.Text())
	}, storetest.Options{NameOrFolder: true, NoPutBesideDelete: true, LooseTags: true, Breaks: []string{
		"Puts and Deletes in one folder do not meet",
	}})
}

// gofakes3 is quick and lax; it shows that nothing of AWS alone is needed.
func TestContractOnGoFakeS3(t *testing.T) {
	t.Parallel()
	server := servers.FakeS3(t, "bucket")
	store := s3store.New(configFor(server, server.URL))
	storetest.Run(t, func(t *testing.T) (blobstore.Store, blobstore.URI) {
		return store, blobstore.MustParse("s3://bucket").Join(rand.Text())
	}, storetest.Options{})
}

// A folder of very many files is listed in parts at once, and every name comes
// just once: those between, before and after the digits too.
func TestListInParts(t *testing.T) {
	t.Parallel()
	server := servers.FakeS3(t, "bucket")
	proxy := faults.Start(t, server.URL)
	config := configFor(server, proxy.URL)
	config.SpreadPages = 3
	store := s3store.New(config)
	dir := blobstore.MustParse("s3://bucket/app/state")
	want := map[string]bool{".first": true, "README": true, "_last": true, "z": true, "a": true, "f": true}
	for i := range 6_000 {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		want[hex.EncodeToString(sum[:20])] = true
	}
	var g errgroup.Group
	g.SetLimit(16)
	for name := range want {
		g.Go(func() error {
			_, err := store.Put(t.Context(), dir.Join(name), bytes.NewReader(nil), blobstore.PutOptions{})
			return err
		})
	}
	require.NoError(t, g.Wait())

	for _, spread := range []bool{false, true} {
		proxy.Requests()
		found := map[string]bool{}
		for o, err := range store.List(t.Context(), dir, blobstore.ListOptions{Shallow: true, Spread: spread}) {
			require.NoError(t, err)
			require.False(t, found[o.URI.Base()], "%s came twice", o.URI)
			found[o.URI.Base()] = true
		}
		require.Equal(t, want, found)
		pages := len(proxy.Requests())
		assert.LessOrEqual(t, pages, 7+map[bool]int{true: 16}[spread])
	}

	n := 0
	for _, err := range store.List(t.Context(), dir, blobstore.ListOptions{Shallow: true, Spread: true}) {
		require.NoError(t, err)
		if n++; n == 2500 {
			break
		}
	}
	assert.Equal(t, 2500, n, "stopping early ends the other parts")

	proxy.Inject(99, func(r *http.Request) bool { return r.URL.Query().Has("start-after") }, faults.Answer(403, "AccessDenied"))
	var failed error
	for _, err := range store.List(t.Context(), dir, blobstore.ListOptions{Shallow: true, Spread: true}) {
		failed = err
	}
	require.ErrorIs(t, failed, blobstore.ErrPermission)
}
