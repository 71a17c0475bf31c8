package blobstore_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// entries are the names in a folder of the machine, also those that the store
// keeps to itself.
func entries(t *testing.T, dir blobstore.URI) (names []string) {
	t.Helper()
	found, err := os.ReadDir(dir.Path())
	require.NoError(t, err)
	for _, e := range found {
		names = append(names, e.Name())
	}
	return names
}

func TestFilesAreWhereTheURISays(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	put(t, store, dir.Join("a/b c/_metadata"), "content")
	data, err := os.ReadFile(filepath.Join(dir.Path(), "a", "b c", "_metadata"))
	require.NoError(t, err)
	assert.Equal(t, "content", string(data))
	assert.Equal(t, []string{"_metadata"}, entries(t, dir.Join("a/b c")), "and nothing else")

	for _, spelled := range []string{"", "file:", "file://", "file://localhost"} {
		assert.Equal(t, "content", read(t, store, blobstore.MustParse(spelled+dir.Path()+"/a/b c/_metadata")))
	}
}

func sameFile(t *testing.T, a, b blobstore.URI) bool {
	t.Helper()
	one, err := os.Lstat(a.Path())
	require.NoError(t, err)
	other, err := os.Lstat(b.Path())
	require.NoError(t, err)
	return os.SameFile(one, other)
}

func TestFileCopyWithoutLinksIsAnotherFile(t *testing.T) {
	store, dir := &blobstore.File{NoLinks: true}, folder(t)
	put(t, store, dir.Join("source"), "content")
	obj, err := store.Copy(t.Context(), dir.Join("pin/target"), dir.Join("source"))
	require.NoError(t, err)
	assert.EqualValues(t, len("content"), obj.Size)
	assert.False(t, sameFile(t, dir.Join("source"), dir.Join("pin/target")))
	assert.Equal(t, "content", read(t, store, dir.Join("pin/target")))
}

// rename(2) between two links to one file does nothing and leaves both names.
func TestFileCopyOntoItsOwnLinkLeavesNothing(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	put(t, store, dir.Join("source"), "content")
	for range 3 {
		_, err := store.Copy(t.Context(), dir.Join("target"), dir.Join("source"))
		require.NoError(t, err)
		_, err = store.Copy(t.Context(), dir.Join("source"), dir.Join("source"))
		require.NoError(t, err)
	}
	assert.Equal(t, []string{"source", "target"}, entries(t, dir))
	assert.Equal(t, "content", read(t, store, dir.Join("target")))
}

func TestFileFollowsSymbolicLinks(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	put(t, store, dir.Join("volume/sub/file"), "content")
	require.NoError(t, os.Symlink("volume", dir.Join("app").Path()))
	assert.Equal(t, "content", read(t, store, dir.Join("app/sub/file")))
	assert.Equal(t, []string{"sub/file"}, names(t, store, dir.Join("app")))
	assert.Equal(t, []string{"app/sub/file", "volume/sub/file"}, names(t, store, dir))
	require.NoError(t, store.Delete(t.Context(), dir.Join("app")), "a folder is no object")
	assert.Equal(t, "content", read(t, store, dir.Join("app/sub/file")))
}

// Links that lead nowhere, or back, do not keep a listing from its end.
func TestFileListSurvivesSymbolicLinks(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	put(t, store, dir.Join("a/b/object"), "x")
	for name, to := range map[string]string{
		"a/b/up": "..", "a/b/here": ".", "a/again": "../a", "top": ".", "nowhere": "nothing",
	} {
		require.NoError(t, os.Symlink(to, dir.Join(name).Path()))
	}
	assert.Equal(t, []string{"a/b/object"}, names(t, store, dir))

	require.NoError(t, os.Symlink("loop", dir.Join("loop").Path()))
	var errs []error
	for _, err := range store.List(t.Context(), dir, blobstore.ListOptions{Shallow: true}) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	require.Len(t, errs, 1, "what cannot be told is not left out")
	assert.ErrorContains(t, errs[0], "list "+dir.Join("loop").String())
	_, err := store.Stat(t.Context(), dir.Join("loop"))
	require.Error(t, err)
	assert.NotErrorIs(t, err, blobstore.ErrNotExist)
}

func TestFileDeleteRemovesTheFolderItEmpties(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	for _, name := range []string{"generations/1/_metadata", "generations/1/pin.json", "generations/2/_metadata"} {
		put(t, store, dir.Join(name), "x")
	}
	require.NoError(t, store.Delete(t.Context(), dir.Join("generations/1/_metadata")))
	assert.Equal(t, []string{"pin.json"}, entries(t, dir.Join("generations/1")), "what is not empty stays")
	require.NoError(t, store.Delete(t.Context(), dir.Join("generations/1/pin.json")))
	assert.Equal(t, []string{"2"}, entries(t, dir.Join("generations")))
}

// A file in the place of a folder is a fault of the target, never "not there":
// callers take that for a source that vanished.
func TestFileInThePlaceOfAFolder(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	put(t, store, dir.Join("file"), "x")
	below := dir.Join("file/below/object")

	_, err := store.Put(t.Context(), below, strings.NewReader("x"), blobstore.PutOptions{})
	require.Error(t, err)
	assert.NotErrorIs(t, err, fs.ErrNotExist)
	assert.ErrorContains(t, err, "put "+below.String())

	_, err = store.Copy(t.Context(), below, dir.Join("file"))
	require.Error(t, err)
	assert.NotErrorIs(t, err, fs.ErrNotExist)
	assert.ErrorContains(t, err, "copy "+below.String()+" from "+dir.Join("file").String())
	assert.Equal(t, []string{"file"}, entries(t, dir))
}

func TestFolderInThePlaceOfAnObject(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	put(t, store, dir.Join("folder/object"), "x")
	put(t, store, dir.Join("source"), "x")

	_, err := store.Put(t.Context(), dir.Join("folder"), strings.NewReader("x"), blobstore.PutOptions{})
	require.ErrorIs(t, err, fs.ErrExist)
	_, err = store.Copy(t.Context(), dir.Join("folder"), dir.Join("source"))
	require.ErrorIs(t, err, fs.ErrExist)
	assert.Equal(t, []string{"folder", "source"}, entries(t, dir))
	assert.Equal(t, []string{"object"}, entries(t, dir.Join("folder")))
}

// Inode numbers come back, so that times alone keep tags apart: they go on also
// when the clock does not.
func TestFileTagsDoNotComeBack(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	object := dir.Join("object")
	put(t, store, object, "0")
	ahead := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	require.NoError(t, os.Chtimes(object.Path(), ahead, ahead))

	last, seen := ahead, map[string]bool{}
	for i := range 20 {
		obj := put(t, store, object, fmt.Sprint(i%10))
		info, err := os.Stat(object.Path())
		require.NoError(t, err)
		assert.True(t, info.ModTime().After(last), "%s after %s", info.ModTime(), last)
		assert.False(t, seen[obj.Tag], "tag %s again", obj.Tag)
		stat, err := store.Stat(t.Context(), object)
		require.NoError(t, err)
		assert.Equal(t, stat.Tag, obj.Tag)
		last, seen[obj.Tag] = info.ModTime(), true
	}
}

// Nobody mounted the volume to which the app's folder links.
func TestFileInALinkToNowhere(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	require.NoError(t, os.Symlink("volume", dir.Join("app").Path()))
	put(t, store, dir.Join("source"), "x")

	_, err := store.Stat(t.Context(), dir.Join("app/object"))
	require.ErrorIs(t, err, blobstore.ErrNotExist)
	_, err = store.Put(t.Context(), dir.Join("app/object"), strings.NewReader("x"), blobstore.PutOptions{})
	require.ErrorIs(t, err, blobstore.ErrContainer)
	assert.NotErrorIs(t, err, blobstore.ErrNotExist)
	_, err = store.Copy(t.Context(), dir.Join("app/object"), dir.Join("source"))
	require.ErrorIs(t, err, blobstore.ErrContainer)
	assert.NotErrorIs(t, err, blobstore.ErrNotExist)
	assert.Equal(t, []string{"app", "source"}, entries(t, dir))
}

// The machine's path is the URI's: it is not said twice.
func TestFileErrorsSayThePathOnce(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	_, err := store.Stat(t.Context(), dir.Join("nothing"))
	assert.EqualError(t, err, "stat "+dir.Join("nothing").String()+": no such file or directory")
	_, _, err = store.Open(t.Context(), dir)
	assert.EqualError(t, err, "open "+dir.String()+": file does not exist (it is a folder)")
	put(t, store, dir.Join("file"), "x")
	_, err = store.Stat(t.Context(), dir.Join("file/below"))
	assert.EqualError(t, err, "stat "+dir.Join("file/below").String()+": file does not exist (a part of the path is a file)")
}
