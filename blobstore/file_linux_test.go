package blobstore_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// Sysfs lets nobody make files, not even root.
func TestFileDeniedIsErrPermission(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	put(t, store, dir.Join("source"), "x")
	for _, text := range []string{"file:/sys/chkpin", "file:/sys/chkpin/folder/object"} {
		denied := blobstore.MustParse(text)
		for _, opts := range []blobstore.PutOptions{{}, {IfAbsent: true}, {IfTag: "tag"}} {
			_, err := store.Put(t.Context(), denied, strings.NewReader("x"), opts)
			require.ErrorIs(t, err, blobstore.ErrPermission)
			assert.ErrorContains(t, err, "put "+text)
		}
		_, err := store.Copy(t.Context(), denied, dir.Join("source"))
		require.ErrorIs(t, err, blobstore.ErrPermission)
		assert.ErrorContains(t, err, "copy "+text)
	}
	err := store.Delete(t.Context(), blobstore.MustParse("file:/proc/version"))
	require.ErrorIs(t, err, blobstore.ErrPermission)
	assert.ErrorContains(t, err, "delete file:/proc/version")
}

// The group reads whatever is made, since Flink may be another user of it; all
// other rights are those of the umask.
func TestFileRightsAreThoseOfTheUmask(t *testing.T) {
	for umask, want := range map[int]struct{ file, folder fs.FileMode }{
		0o000: {0o666, 0o777},
		0o022: {0o644, 0o755},
		0o027: {0o640, 0o750},
		0o077: {0o640, 0o750},
		0o007: {0o660, 0o770},
	} {
		store, dir := &blobstore.File{NoLinks: true}, folder(t)
		old := syscall.Umask(umask)
		defer syscall.Umask(old)
		obj := putIf(t, store, dir.Join("a/b/put"), "x", blobstore.PutOptions{IfAbsent: true})
		putIf(t, store, obj.URI, "y", blobstore.PutOptions{IfTag: obj.Tag})
		_, err := store.Copy(t.Context(), dir.Join("c/copy"), obj.URI)
		require.NoError(t, err)
		syscall.Umask(old)

		for name, mode := range map[string]fs.FileMode{
			"a": want.folder, "a/b": want.folder, "c": want.folder,
			"a/b/put": want.file, "c/copy": want.file, "a/b/.lock": want.file,
		} {
			info, err := os.Stat(dir.Join(name).Path())
			require.NoError(t, err)
			assert.Equal(t, mode, info.Mode().Perm(), "%s with umask %03o", name, umask)
		}
	}
}

// The lock belongs to the store: it is no object, and goes with its folder.
func TestFileLockIsNotListed(t *testing.T) {
	store, dir := &blobstore.File{NoLinks: true}, folder(t)
	putIf(t, store, dir.Join("pin/object"), "x", blobstore.PutOptions{IfAbsent: true})
	require.Equal(t, []string{".lock", "object"}, entries(t, dir.Join("pin")))
	assert.Equal(t, []string{"pin/object"}, names(t, store, dir))
	require.NoError(t, store.Delete(t.Context(), dir.Join("pin/object")))
	assert.Empty(t, entries(t, dir))

	store.NoLinks = false // where links work, IfAbsent needs no lock
	putIf(t, store, dir.Join("pin/object"), "x", blobstore.PutOptions{IfAbsent: true})
	assert.Equal(t, []string{"object"}, entries(t, dir.Join("pin")))
}

// whenAsked is a context that ends when somebody waits for its end.
type whenAsked struct {
	context.Context
	cancel context.CancelFunc
}

func (c whenAsked) Done() <-chan struct{} {
	c.cancel()
	return c.Context.Done()
}

// Somebody who holds the lock, say a stopped process, does not hold up others
// beyond their deadline.
func TestFileWaitForTheLockEndsWithTheContext(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	obj := put(t, store, dir.Join("object"), "old")
	lock, err := os.Create(dir.Join(".lock").Path())
	require.NoError(t, err)
	defer lock.Close()
	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))

	ctx, cancel := context.WithCancel(t.Context())
	unchanged := blobstore.PutOptions{IfTag: obj.Tag}
	_, err = store.Put(whenAsked{ctx, cancel}, obj.URI, strings.NewReader("new"), unchanged)
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, "old", read(t, store, obj.URI))

	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_UN))
	putIf(t, store, obj.URI, "new", unchanged)
	assert.Equal(t, []string{".lock", "object"}, entries(t, dir))
}

// A volume whose server is gone keeps whoever asks; a pipe that nobody writes to
// does the same.
func TestFileThatHangsEndsWithTheContext(t *testing.T) {
	dir := folder(t)
	pipe := dir.Join("hangs")
	require.NoError(t, syscall.Mkfifo(pipe.Path(), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	_, _, err := blobstore.NewFile().Open(whenAsked{ctx, cancel}, pipe)
	require.ErrorIs(t, err, context.Canceled)

	w, err := os.OpenFile(pipe.Path(), os.O_WRONLY, 0) // waits for the one that went on opening
	require.NoError(t, err)
	defer w.Close()
	require.Eventually(t, func() bool {
		_, err := w.WriteString("x")
		return errors.Is(err, syscall.EPIPE)
	}, time.Minute, time.Millisecond, "what was opened too late is closed")
}
