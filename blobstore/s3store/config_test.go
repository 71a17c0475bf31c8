package s3store_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/s3store"
)

// wire answers requests in the place of the network and keeps them.
type wire struct {
	mu     sync.Mutex
	seen   []*http.Request
	answer func(r *http.Request) *http.Response
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, r)
	if w.answer != nil {
		return w.answer(r), nil
	}
	return response(r, http.StatusOK, "<CopyObjectResult><ETag>\"1\"</ETag></CopyObjectResult>"), nil
}

func response(r *http.Request, status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{"Etag": {`"1"`}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}
}

// withoutEnvironment keeps the machine's own AWS settings out of a test.
func withoutEnvironment(t *testing.T) {
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	for _, name := range []string{"AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_CA_BUNDLE"} {
		t.Setenv(name, "")
	}
}

func TestEncryptionAndPayer(t *testing.T) {
	withoutEnvironment(t)
	w := &wire{}
	store := s3store.New(s3store.Config{
		AccessKey: "AKIA", SecretKey: "hush", SessionToken: "token", Transport: w,
		Encryption: "aws:kms", KMSKey: "key-1", RequestPayer: true,
	})
	u := blobstore.MustParse("s3://bucket/a")
	_, err := store.Put(t.Context(), u, bytes.NewReader(nil), blobstore.PutOptions{})
	require.NoError(t, err)
	_, err = store.Copy(t.Context(), u, blobstore.MustParse("s3://other/b"))
	require.NoError(t, err)
	require.Len(t, w.seen, 2)
	for _, r := range w.seen {
		assert.Equal(t, "aws:kms", r.Header.Get("X-Amz-Server-Side-Encryption"))
		assert.Equal(t, "key-1", r.Header.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"))
		assert.Equal(t, "requester", r.Header.Get("X-Amz-Request-Payer"))
		assert.Equal(t, "token", r.Header.Get("X-Amz-Security-Token"))
		assert.Contains(t, r.Header.Get("Authorization"), "Credential=AKIA/")
	}
}

func TestAnonymous(t *testing.T) {
	withoutEnvironment(t)
	w := &wire{}
	store := s3store.New(s3store.Config{Anonymous: true, Region: "eu-west-1", Transport: w})
	_, err := store.Stat(t.Context(), blobstore.MustParse("s3://bucket/a"))
	require.NoError(t, err)
	require.Len(t, w.seen, 1)
	assert.Empty(t, w.seen[0].Header.Get("Authorization"))
	assert.Equal(t, "bucket.s3.eu-west-1.amazonaws.com", w.seen[0].URL.Host)
}

func TestProfile(t *testing.T) {
	withoutEnvironment(t)
	config := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(config, []byte("[profile state]\nregion = eu-north-1\naws_access_key_id = AKIASTATE\naws_secret_access_key = hush\n"), 0o600))
	t.Setenv("AWS_CONFIG_FILE", config)
	w := &wire{}
	store := s3store.New(s3store.Config{Profile: "state", Transport: w})
	_, err := store.Stat(t.Context(), blobstore.MustParse("s3://bucket/a"))
	require.NoError(t, err)
	assert.Equal(t, "bucket.s3.eu-north-1.amazonaws.com", w.seen[0].URL.Host)
	assert.Contains(t, w.seen[0].Header.Get("Authorization"), "Credential=AKIASTATE/")
}

// A role is assumed with the credentials found, and used for S3.
func TestRole(t *testing.T) {
	withoutEnvironment(t)
	w := &wire{}
	w.answer = func(r *http.Request) *http.Response {
		if strings.HasPrefix(r.URL.Host, "sts.") {
			return response(r, http.StatusOK, `<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIAROLE</AccessKeyId>`+
				`<SecretAccessKey>hush</SecretAccessKey><SessionToken>token</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration>`+
				`</Credentials></AssumeRoleResult></AssumeRoleResponse>`)
		}
		return response(r, http.StatusOK, "")
	}
	store := s3store.New(s3store.Config{AccessKey: "AKIA", SecretKey: "hush", Region: "eu-west-1", Role: "arn:aws:iam::111122223333:role/pin", Transport: w})
	_, err := store.Stat(t.Context(), blobstore.MustParse("s3://bucket/a"))
	require.NoError(t, err)
	require.Len(t, w.seen, 2)
	assert.Contains(t, w.seen[1].Header.Get("Authorization"), "Credential=ASIAROLE/")
}

// A request that nobody could sign is not one that S3 denied.
func TestNoCredentials(t *testing.T) {
	withoutEnvironment(t)
	w := &wire{answer: func(r *http.Request) *http.Response { return response(r, http.StatusForbidden, "") }}
	for what, config := range map[string]s3store.Config{
		"no EC2 IMDS role found": {},
		"AssumeRole":             {AccessKey: "AKIA", SecretKey: "hush", Role: "arn:aws:iam::111122223333:role/pin"},
	} {
		config.Region, config.Transport = "eu-west-1", w
		_, err := s3store.New(config).Stat(t.Context(), blobstore.MustParse("s3://bucket/a"))
		require.ErrorIs(t, err, blobstore.ErrPermission)
		assert.ErrorContains(t, err, "no credentials: ")
		assert.ErrorContains(t, err, what)
		var hinted *s3store.Error
		require.ErrorAs(t, err, &hinted)
		assert.Contains(t, hinted.Hint(), "AWS_ACCESS_KEY_ID")
	}
}

// A tick begins with several calls at once. All of them learn where the bucket is.
func TestBucketInAnotherRegionForCallsAtOnce(t *testing.T) {
	withoutEnvironment(t)
	const calls = 3
	var sent sync.WaitGroup
	sent.Add(calls)
	store := s3store.New(s3store.Config{AccessKey: "AKIA", SecretKey: "hush", Region: "us-east-1", Transport: send(func(r *http.Request) *http.Response {
		if strings.Contains(r.URL.Host, "eu-central-1") {
			return response(r, http.StatusOK, "")
		}
		sent.Done()
		sent.Wait()
		answer := response(r, http.StatusMovedPermanently, "")
		answer.Header.Set("X-Amz-Bucket-Region", "eu-central-1")
		return answer
	})})
	var done sync.WaitGroup
	for range calls {
		done.Go(func() {
			_, err := store.Stat(t.Context(), blobstore.MustParse("s3://bucket/a"))
			assert.NoError(t, err)
		})
	}
	done.Wait()
}

// Nobody waits long for the end of an upload that has failed: a service that does not answer would hold up a tick
// that is over, or a process that was told to end.
func TestAbortIsNotWaitedForLong(t *testing.T) {
	withoutEnvironment(t)
	synctest.Test(t, func(t *testing.T) {
		store := s3store.New(s3store.Config{AccessKey: "AKIA", SecretKey: "hush", Region: "eu-west-1", UploadPartSize: 1 << 10, Transport: silent(http.MethodDelete)})
		broken := errors.New("the source broke off")
		began := time.Now()
		_, err := store.Put(t.Context(), blobstore.MustParse("s3://bucket/a"), io.MultiReader(bytes.NewReader(make([]byte, 3<<10)), errorReader{broken}), blobstore.PutOptions{})
		require.ErrorContains(t, err, broken.Error())
		assert.LessOrEqual(t, time.Since(began), 10*time.Second)
	})
}

// silent never answers requests with this method.
type silent string

func (s silent) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == string(s) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	return response(r, http.StatusOK, "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"), nil
}

// send answers requests in the place of the network, many at once.
type send func(r *http.Request) *http.Response

func (s send) RoundTrip(r *http.Request) (*http.Response, error) { return s(r), nil }

// A bucket in another region than configured is found once and remembered.
func TestBucketElsewhere(t *testing.T) {
	withoutEnvironment(t)
	w := &wire{}
	w.answer = func(r *http.Request) *http.Response {
		if strings.Contains(r.URL.Host, "eu-central-1") {
			return response(r, http.StatusOK, "")
		}
		answer := response(r, http.StatusMovedPermanently, "<Error><Code>PermanentRedirect</Code></Error>")
		answer.Header.Set("X-Amz-Bucket-Region", "eu-central-1")
		return answer
	}
	store := s3store.New(s3store.Config{AccessKey: "AKIA", SecretKey: "hush", Region: "us-east-1", Transport: w})
	for range 2 {
		_, err := store.Stat(t.Context(), blobstore.MustParse("s3://bucket/a"))
		require.NoError(t, err)
	}
	require.Len(t, w.seen, 3, "one in the wrong place, two in the right one")
	assert.Equal(t, "bucket.s3.eu-central-1.amazonaws.com", w.seen[2].URL.Host)
}

// What cannot be loaded now may be there for the next call.
func TestConfigurationIsTriedAgain(t *testing.T) {
	withoutEnvironment(t)
	w := &wire{}
	store := s3store.New(s3store.Config{Profile: "late", Region: "eu-west-1", Transport: w})
	_, err := store.Stat(t.Context(), blobstore.MustParse("s3://bucket/a"))
	require.ErrorContains(t, err, "late")
	config := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(config, []byte("[profile late]\naws_access_key_id = AKIALATE\naws_secret_access_key = hush\n"), 0o600))
	t.Setenv("AWS_CONFIG_FILE", config)
	_, err = store.Stat(t.Context(), blobstore.MustParse("s3://bucket/a"))
	require.NoError(t, err)
}
