package cdkstore_test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/blob/memblob"
	"gocloud.dev/blob/s3blob"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/cdkstore"
	"github.com/chkpin/chkpin/blobstore/s3store"
	"github.com/chkpin/chkpin/blobstore/storetest"
	"github.com/chkpin/chkpin/blobstore/storetest/servers"
)

// folder is a bucket of the files in a folder, as fileblob sees them.
func folder(t *testing.T, dir string) *blob.Bucket {
	t.Helper()
	bucket, err := fileblob.OpenBucket(dir, &fileblob.Options{NoTempDir: true, Metadata: fileblob.MetadataDontWrite})
	require.NoError(t, err)
	t.Cleanup(func() { bucket.Close() })
	return bucket
}

// onS3 is a bucket of a server, as s3blob sees it.
func onS3(t *testing.T, server servers.S3) *blob.Bucket {
	t.Helper()
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String(server.URL), Region: "us-east-1", UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(server.AccessKey, server.SecretKey, ""),
	})
	bucket, err := s3blob.OpenBucketV2(t.Context(), client, "bucket", nil)
	require.NoError(t, err)
	t.Cleanup(func() { bucket.Close() })
	return bucket
}

func memory(t *testing.T, opts cdkstore.Options) (*cdkstore.Store, blobstore.URI) {
	bucket := memblob.OpenBucket(nil)
	t.Cleanup(func() { bucket.Close() })
	root := blobstore.MustParse("gs://bucket")
	return cdkstore.New(bucket, root, opts), root
}

func TestInMemory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (blobstore.Store, blobstore.URI) {
		store, root := memory(t, cdkstore.Options{})
		return store, root.Join("app")
	}, storetest.Options{NoIfTag: true, Breaks: []string{"the copy is as young as the copying"}})
}

func TestInAFolder(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (blobstore.Store, blobstore.URI) {
		root := blobstore.MustParse("files://bucket/prefix")
		return cdkstore.New(folder(t, t.TempDir()), root, cdkstore.Options{}), root
	}, storetest.Options{NoIfTag: true, NoIfAbsent: true, NameOrFolder: true, Objects: 300, Breaks: []string{
		"a folder is no object and stays",
		"and no removing",
		"readers see one whole version while Puts replace it",
		"readers see one whole version while Copies replace it",
		"a listing has what was there all along",
	}})
}

func TestOnS3(t *testing.T) {
	bucket := onS3(t, servers.FakeS3(t, "bucket"))
	storetest.Run(t, func(t *testing.T) (blobstore.Store, blobstore.URI) {
		root := blobstore.MustParse("s3://bucket")
		return cdkstore.New(bucket, root, cdkstore.Options{}), root.Join(t.Name())
	}, storetest.Options{NoIfTag: true, NoIfAbsent: true, Objects: 300, Breaks: []string{
		"also in copies", // the server takes a source's "?" for a query
	}})
}

// What chkpin's stores write, others read: gocloud's drivers share no code with
// them but the SDK.
func TestOthersReadWhatFileWrites(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (blobstore.Store, blobstore.URI) {
		return blobstore.NewFile(), blobstore.MustParse("file://" + t.TempDir())
	}, storetest.Options{
		NameOrFolder: true, Objects: 100,
		Reader: cdkstore.New(folder(t, "/"), blobstore.MustParse("file:///"), cdkstore.Options{}),
	})
}

func TestOthersReadWhatS3StoreWrites(t *testing.T) {
	server := servers.FakeS3(t, "bucket")
	store := s3store.New(s3store.Config{
		Endpoint: server.URL, PathStyle: true, Region: "us-east-1", AccessKey: server.AccessKey, SecretKey: server.SecretKey,
	})
	storetest.Run(t, func(t *testing.T) (blobstore.Store, blobstore.URI) {
		return store, blobstore.MustParse("s3://bucket").Join(t.Name())
	}, storetest.Options{
		NoIfTag: true, NoIfAbsent: true, Objects: 100,
		Reader: cdkstore.New(onS3(t, server), blobstore.MustParse("s3://bucket"), cdkstore.Options{}),
	})
}

func put(t *testing.T, store blobstore.Store, u blobstore.URI, body string, opts blobstore.PutOptions) error {
	t.Helper()
	_, err := store.Put(t.Context(), u, strings.NewReader(body), opts)
	return err
}

func read(t *testing.T, store blobstore.Store, u blobstore.URI) string {
	t.Helper()
	data, _, err := blobstore.ReadAll(t.Context(), store, u, 0)
	require.NoError(t, err)
	return string(data)
}

// Nobody publishes with less than the contract asks for unless he says so.
func TestLastWriterWinsOnlyIfAllowed(t *testing.T) {
	store, root := memory(t, cdkstore.Options{})
	object := root.Join("app/_metadata")
	require.NoError(t, put(t, store, object, "old", blobstore.PutOptions{IfAbsent: true}))
	obj, err := store.Stat(t.Context(), object)
	require.NoError(t, err)

	err = put(t, store, object, "new", blobstore.PutOptions{IfTag: obj.Tag})
	require.ErrorIs(t, err, cdkstore.ErrNoIfTag)
	assert.EqualError(t, err, "put gs://bucket/app/_metadata: unsupported operation: the Go CDK has no write on the condition "+
		"that an object is unchanged; Options.AllowLastWriterWins does without it")
	assert.Equal(t, "old", read(t, store, object))
}

func TestAllowLastWriterWins(t *testing.T) {
	store, root := memory(t, cdkstore.Options{AllowLastWriterWins: true})
	object := root.Join("app/_metadata")
	require.NoError(t, put(t, store, object, "old", blobstore.PutOptions{IfAbsent: true}))
	obj, err := store.Stat(t.Context(), object)
	require.NoError(t, err)

	require.NoError(t, put(t, store, object, "newer", blobstore.PutOptions{IfTag: obj.Tag}))
	assert.Equal(t, "newer", read(t, store, object))
	require.ErrorIs(t, put(t, store, object, "x", blobstore.PutOptions{IfTag: obj.Tag}), blobstore.ErrPrecondition)
	require.ErrorIs(t, put(t, store, root.Join("nothing"), "x", blobstore.PutOptions{IfTag: obj.Tag}), blobstore.ErrPrecondition)
	assert.Equal(t, "newer", read(t, store, object))
}

// The bucket is not everything: what its URI does not cover is elsewhere.
func TestOutsideOfTheBucket(t *testing.T) {
	store, root := memory(t, cdkstore.Options{})
	other := blobstore.MustParse("gs://other/object")
	require.NoError(t, put(t, store, root.Join("object"), "x", blobstore.PutOptions{}))

	_, err := store.Stat(t.Context(), other)
	require.ErrorIs(t, err, blobstore.ErrContainer)
	assert.EqualError(t, err, "stat gs://other/object: no such bucket or container: it is not in gs://bucket")
	require.ErrorIs(t, put(t, store, other, "x", blobstore.PutOptions{}), blobstore.ErrContainer)
	_, err = store.Copy(t.Context(), root.Join("copy"), other)
	require.ErrorIs(t, err, blobstore.ErrContainer)
	for _, err := range store.List(t.Context(), other, blobstore.ListOptions{}) {
		require.ErrorIs(t, err, blobstore.ErrContainer)
	}
	_, err = store.Stat(t.Context(), root)
	require.ErrorIs(t, err, blobstore.ErrNotExist, "the bucket is no object")
}

// What a prefixed bucket stands for is a folder.
func TestPrefixedBucket(t *testing.T) {
	bucket := memblob.OpenBucket(nil)
	root := blobstore.MustParse("gs://bucket")
	whole := cdkstore.New(bucket, root, cdkstore.Options{})
	require.NoError(t, put(t, whole, root.Join("team/app/object"), "x", blobstore.PutOptions{}))
	team := cdkstore.New(blob.PrefixedBucket(bucket, "team/"), root.Join("team"), cdkstore.Options{})
	assert.Equal(t, "x", read(t, team, root.Join("team/app/object")))
}
