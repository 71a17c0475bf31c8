package blobstore_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) (blobstore.Store, blobstore.URI) {
		return blobstore.NewMemory(), blobstore.MustParse("mem://test/root")
	}, storetest.Options{})
}

// These wait for a disk most of the time, so they wait together.

func TestFile(t *testing.T) {
	t.Parallel()
	storetest.Run(t, onVolume(blobstore.NewFile()), storetest.Options{NameOrFolder: true, Objects: fewFiles})
}

func TestFileWithoutLinks(t *testing.T) {
	t.Parallel()
	storetest.Run(t, onVolume(&blobstore.File{NoLinks: true}), storetest.Options{NameOrFolder: true, Objects: fewFiles})
}

// fewFiles are enough: the listing of a volume has no pages.
const fewFiles = 300

// onVolume opens a store on an empty folder of this machine.
func onVolume(store blobstore.Store) func(t *testing.T) (blobstore.Store, blobstore.URI) {
	return func(t *testing.T) (blobstore.Store, blobstore.URI) { return store, folder(t) }
}

func folder(t *testing.T) blobstore.URI {
	t.Helper()
	return blobstore.MustParse("file://" + t.TempDir())
}

func put(t *testing.T, store blobstore.Store, u blobstore.URI, content string) blobstore.Object {
	t.Helper()
	return putIf(t, store, u, content, blobstore.PutOptions{})
}

func putIf(t *testing.T, store blobstore.Store, u blobstore.URI, content string, opts blobstore.PutOptions) blobstore.Object {
	t.Helper()
	obj, err := store.Put(t.Context(), u, strings.NewReader(content), opts)
	require.NoError(t, err)
	return obj
}

func read(t *testing.T, store blobstore.Store, u blobstore.URI) string {
	t.Helper()
	data, _, err := blobstore.ReadAll(t.Context(), store, u, 0)
	require.NoError(t, err)
	return string(data)
}

// names are those of all objects below a folder.
func names(t *testing.T, store blobstore.Store, dir blobstore.URI) (names []string) {
	t.Helper()
	for obj, err := range store.List(t.Context(), dir, blobstore.ListOptions{}) {
		require.NoError(t, err)
		rel, _ := obj.URI.Rel(dir)
		names = append(names, rel)
	}
	return names
}

func TestZeroStoresAreReady(t *testing.T) {
	u := blobstore.MustParse("mem://name/a")
	memory := &blobstore.Memory{}
	assert.Empty(t, names(t, memory, u.Dir()))
	put(t, memory, u, "x")
	assert.Equal(t, "x", read(t, memory, u))

	dir := folder(t)
	file := &blobstore.File{}
	put(t, file, dir.Join("a"), "x")
	_, err := file.Copy(t.Context(), dir.Join("b"), dir.Join("a"))
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b"}, names(t, file, dir))
}

func TestMemoryKnowsObjectsByIdentity(t *testing.T) {
	store := blobstore.NewMemory()
	put(t, store, blobstore.MustParse("s3://bucket/a/b"), "x")
	assert.Equal(t, "x", read(t, store, blobstore.MustParse("s3a://bucket/a//b")))
	for obj, err := range store.List(t.Context(), blobstore.MustParse("s3p://bucket/a"), blobstore.ListOptions{}) {
		require.NoError(t, err)
		assert.Equal(t, "s3p://bucket/a/b", obj.URI.String(), "spelled like the folder")
	}
}

func TestMemoryClock(t *testing.T) {
	store := blobstore.NewMemory()
	store.Now = func() time.Time { return time.Unix(1234, 0) }
	u := blobstore.MustParse("mem://name/a")
	put(t, store, u, "x")
	obj, err := store.Stat(t.Context(), u)
	require.NoError(t, err)
	assert.Equal(t, time.Unix(1234, 0), obj.ModTime)
}

// sizeless is a store whose service does not say how long an object is.
type sizeless struct{ blobstore.Store }

func (s sizeless) Open(ctx context.Context, u blobstore.URI) (io.ReadCloser, blobstore.Object, error) {
	r, obj, err := s.Store.Open(ctx, u)
	obj.Size = -1
	return r, obj, err
}

func TestReadAll(t *testing.T) {
	memory := blobstore.NewMemory()
	u := blobstore.MustParse("mem://name/a")
	stores := map[string]blobstore.Store{"size known": memory, "size unknown": sizeless{memory}}
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			for _, content := range []string{"", "123456789"} {
				want := put(t, store, u, content)
				for _, limit := range []int64{0, 9, 100} {
					data, obj, err := blobstore.ReadAll(t.Context(), store, u, limit)
					require.NoError(t, err, "limit %d", limit)
					assert.Equal(t, content, string(data))
					assert.Equal(t, want.Tag, obj.Tag)
				}
			}

			_, _, err := blobstore.ReadAll(t.Context(), store, u, 8)
			var e *blobstore.Error
			require.ErrorAs(t, err, &e)
			assert.Equal(t, "read", e.Op)
			assert.ErrorContains(t, err, "read mem://name/a: more than the 8 bytes expected at most")

			_, _, err = blobstore.ReadAll(t.Context(), store, u.Join("nothing"), 0)
			assert.ErrorIs(t, err, blobstore.ErrNotExist)
		})
	}
}

// truncated is a store whose connection breaks off.
type truncated struct{ blobstore.Store }

func (s truncated) Open(ctx context.Context, u blobstore.URI) (io.ReadCloser, blobstore.Object, error) {
	r, obj, err := s.Store.Open(ctx, u)
	return io.NopCloser(io.LimitReader(r, 3)), obj, err
}

func TestReadAllIsAllOrNothing(t *testing.T) {
	memory := blobstore.NewMemory()
	u := blobstore.MustParse("mem://name/a")
	put(t, memory, u, "123456789")
	data, _, err := blobstore.ReadAll(t.Context(), truncated{memory}, u, 0)
	assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.Empty(t, data)
}

func TestErrorNamesCallAndObjects(t *testing.T) {
	a, b := blobstore.MustParse("s3://bucket/a"), blobstore.MustParse("s3://bucket/b")
	assert.EqualError(t, &blobstore.Error{Op: "stat", URI: a, Err: blobstore.ErrNotExist},
		"stat s3://bucket/a: file does not exist")
	assert.EqualError(t, &blobstore.Error{Op: "copy", URI: a, Src: b, Err: blobstore.ErrContainer},
		"copy s3://bucket/a from s3://bucket/b: no such bucket or container")
	assert.ErrorIs(t, &blobstore.Error{Op: "put", URI: a, Err: blobstore.ErrContainer}, blobstore.ErrContainer)
}
