package blobstore_test

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

func TestFileCopyIsAHardLink(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	put(t, store, dir.Join("source"), "content")
	_, err := store.Copy(t.Context(), dir.Join("pin/target"), dir.Join("source"))
	require.NoError(t, err)
	assert.True(t, sameFile(t, dir.Join("source"), dir.Join("pin/target")))
	assert.Equal(t, []string{"target"}, entries(t, dir.Join("pin")))
}

// Flink appends to a merged file of which a checkpoint names the first part.
func TestFileCopyGrowsWithItsSource(t *testing.T) {
	for name, c := range map[string]struct {
		store *blobstore.File
		want  string
	}{
		"linked": {blobstore.NewFile(), "first second"},
		"copied": {&blobstore.File{NoLinks: true}, "first"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			source, target := dir.Join("source"), dir.Join("target")
			merged, err := os.Create(source.Path())
			require.NoError(t, err)
			defer merged.Close()
			_, err = merged.WriteString("first")
			require.NoError(t, err)

			obj, err := c.store.Copy(t.Context(), target, source)
			require.NoError(t, err)
			assert.EqualValues(t, len("first"), obj.Size)
			_, err = merged.WriteString(" second")
			require.NoError(t, err)
			assert.Equal(t, c.want, read(t, c.store, target))

			obj, err = c.store.Copy(t.Context(), target, source)
			require.NoError(t, err)
			assert.EqualValues(t, len("first second"), obj.Size)
			assert.Equal(t, "first second", read(t, c.store, target), "a second copy has all of it")
			assert.Subset(t, []string{".lock", "source", "target"}, entries(t, dir), "nothing is left behind")
		})
	}
}

// What a symbolic link leads to is copied, not the link.
func TestFileCopyOfASymbolicLink(t *testing.T) {
	for name, store := range map[string]*blobstore.File{"linked": {}, "copied": {NoLinks: true}} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			put(t, store, dir.Join("volume/file"), "content")
			require.NoError(t, os.Symlink("volume", dir.Join("folder").Path()))
			require.NoError(t, os.Symlink("folder/file", dir.Join("source").Path()))

			obj, err := store.Copy(t.Context(), dir.Join("target"), dir.Join("source"))
			require.NoError(t, err)
			assert.EqualValues(t, len("content"), obj.Size)
			assert.Equal(t, !store.NoLinks, sameFile(t, dir.Join("volume/file"), dir.Join("target")))
			require.NoError(t, os.RemoveAll(dir.Join("volume").Path()))
			assert.Equal(t, "content", read(t, store, dir.Join("target")))
		})
	}
}

// Procfs has no links to elsewhere, nor can its files be synced.
func TestFileCopyFromAnotherVolume(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	want, err := os.ReadFile("/proc/version")
	require.NoError(t, err)
	obj, err := store.Copy(t.Context(), dir.Join("target"), blobstore.MustParse("file:/proc/version"))
	require.NoError(t, err)
	assert.EqualValues(t, len(want), obj.Size)
	assert.Equal(t, string(want), read(t, store, dir.Join("target")))
	assert.Equal(t, []string{".lock", "target"}, entries(t, dir))
}

// Garbage collection spares what is young: a link must not look as old as the
// file it was made from.
func TestFileModTimeIsThatOfTheLink(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	put(t, store, dir.Join("source"), "content")
	old := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	require.NoError(t, os.Chtimes(dir.Join("source").Path(), old, old))
	before := put(t, store, dir.Join("before"), "x")

	copied, err := store.Copy(t.Context(), dir.Join("target"), dir.Join("source"))
	require.NoError(t, err)
	stat, err := store.Stat(t.Context(), dir.Join("target"))
	require.NoError(t, err)
	_, opened, err := blobstore.ReadAll(t.Context(), store, dir.Join("target"), 0)
	require.NoError(t, err)
	for _, obj := range []blobstore.Object{copied, stat, opened} {
		assert.False(t, obj.ModTime.Before(before.ModTime), "%s", obj.ModTime)
	}
	info, err := os.Stat(dir.Join("target").Path())
	require.NoError(t, err)
	assert.True(t, info.ModTime().Equal(old), "the content is as old as ever")
}

// The same bytes keep their tag when somebody links to them.
func TestFileTagSurvivesLinks(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	source := put(t, store, dir.Join("source"), "content")
	copied, err := store.Copy(t.Context(), dir.Join("target"), dir.Join("source"))
	require.NoError(t, err)
	stat, err := store.Stat(t.Context(), dir.Join("source"))
	require.NoError(t, err)
	assert.Equal(t, source.Tag, stat.Tag)
	assert.Equal(t, source.Tag, copied.Tag)
}
