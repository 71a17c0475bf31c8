package blobstore_test

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/storetest"
	"github.com/chkpin/chkpin/blobstore/storetest/volumes"
)

// limited is a store on a volume that cannot do everything: some system calls
// fail in its calls.
type limited struct {
	blobstore.Store
	refusals []volumes.Refusal
}

func (l limited) Put(ctx context.Context, u blobstore.URI, body io.Reader, opts blobstore.PutOptions) (obj blobstore.Object, err error) {
	volumes.Refusing(func() { obj, err = l.Store.Put(ctx, u, body, opts) }, l.refusals...)
	return obj, err
}

func (l limited) Copy(ctx context.Context, dst, src blobstore.URI) (obj blobstore.Object, err error) {
	volumes.Refusing(func() { obj, err = l.Store.Copy(ctx, dst, src) }, l.refusals...)
	return obj, err
}

func (l limited) Delete(ctx context.Context, u blobstore.URI) (err error) {
	volumes.Refusing(func() { err = l.Store.Delete(ctx, u) }, l.refusals...)
	return err
}

func on(refusals ...volumes.Refusal) limited {
	return limited{blobstore.NewFile(), refusals}
}

var (
	noLinks = volumes.Refusal{Call: "link", Errno: syscall.EPERM}
	noLocks = volumes.Refusal{Call: "flock", Errno: syscall.ENOLCK}
)

// The contract holds as far as the volume can keep it.
func TestFileOnLimitedVolumes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		store limited
		opts  storetest.Options
	}{
		"no links":          {on(noLinks), storetest.Options{}},
		"no locks":          {on(noLocks), storetest.Options{NoIfTag: true, NoPutBesideDelete: true}},
		"no links or locks": {on(noLinks, noLocks), storetest.Options{NoIfTag: true, NoIfAbsent: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.opts.NameOrFolder, c.opts.Objects = true, 50
			storetest.Run(t, onVolume(c.store), c.opts)
		})
	}
}

// EXDEV: another mount. EPERM: fs.protected_hardlinks and a file of another user,
// FAT and many FUSE volumes. EACCES: rules of a security module. EMLINK: the
// file has as many names as the volume allows. EOPNOTSUPP: SMB, such as Azure
// Files.
func TestFileCopiesBytesWhereLinksAreRefused(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EXDEV, syscall.EPERM, syscall.EACCES, syscall.EMLINK, syscall.EOPNOTSUPP, syscall.ENOSYS} {
		refusal := volumes.Refusal{Call: "link", Errno: errno}
		t.Run(refusal.String(), func(t *testing.T) {
			store, dir := on(refusal), folder(t)
			put(t, store, dir.Join("source"), "content")
			_, err := store.Copy(t.Context(), dir.Join("target"), dir.Join("source"))
			require.NoError(t, err)
			assert.Equal(t, "content", read(t, store, dir.Join("target")))
			assert.False(t, sameFile(t, dir.Join("source"), dir.Join("target")))

			absent := blobstore.PutOptions{IfAbsent: true}
			putIf(t, store, dir.Join("object"), "first", absent)
			_, err = store.Put(t.Context(), dir.Join("object"), strings.NewReader("second"), absent)
			require.ErrorIs(t, err, blobstore.ErrPrecondition)
			assert.Equal(t, []string{".lock", "object", "source", "target"}, entries(t, dir))
		})
	}
}

// An error that is no such rule is not taken for one.
func TestFileCopyFailsWhereLinksFail(t *testing.T) {
	store, dir := on(volumes.Refusal{Call: "link", Errno: syscall.ENOSPC}), folder(t)
	put(t, store, dir.Join("source"), "content")
	_, err := store.Copy(t.Context(), dir.Join("target"), dir.Join("source"))
	require.ErrorIs(t, err, blobstore.ErrFull)
	assert.EqualError(t, err, "copy "+dir.Join("target").String()+" from "+dir.Join("source").String()+
		": the volume is full: no space left on device")
	assert.Equal(t, []string{"source"}, entries(t, dir))
}

// Without locks the conditions are still checked, only not in one step with the
// write: the last writer wins. A log says so once, however much is written.
func TestFileSaysOnceThatThereAreNoLocks(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOLCK, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EINVAL} {
		refusal := volumes.Refusal{Call: "flock", Errno: errno}
		t.Run(refusal.String(), func(t *testing.T) {
			var log strings.Builder
			dir := folder(t)
			store := limited{&blobstore.File{Logger: slog.New(slog.NewTextHandler(&log, nil))}, []volumes.Refusal{refusal}}
			first := put(t, store, dir.Join("object"), "first")
			assert.Empty(t, log.String(), "nothing needed a lock")
			second := putIf(t, store, dir.Join("object"), "second", blobstore.PutOptions{IfTag: first.Tag})
			_, err := store.Put(t.Context(), dir.Join("object"), strings.NewReader("x"), blobstore.PutOptions{IfTag: first.Tag})
			require.ErrorIs(t, err, blobstore.ErrPrecondition)
			putIf(t, store, dir.Join("object"), "third", blobstore.PutOptions{IfTag: second.Tag})
			assert.Equal(t, "third", read(t, store, dir.Join("object")))
			assert.Equal(t, 1, strings.Count(log.String(), "\n"), "%s", log.String())
			assert.Contains(t, log.String(), "level=WARN msg=\"this volume has no locks: of two chkpins that publish at once the last one wins")
		})
	}
}

// The lock of another user can be read, not written: it excludes all the same.
func TestFileLockOfAnotherUser(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	obj := put(t, store, dir.Join("object"), "old")
	require.NoError(t, os.WriteFile(dir.Join(".lock").Path(), nil, 0o444))
	require.NoError(t, os.Chmod(dir.Join(".lock").Path(), 0o444)) // whatever the umask of this test
	asUser := func(f func()) { f() }
	if os.Getuid() == 0 { // who may write any file
		require.NoError(t, os.Chmod(dir.Path(), 0o777))
		require.NoError(t, os.Chmod(path.Dir(dir.Path()), 0o755))
		asUser = func(f func()) { volumes.As(65532, f) }
	}
	var err error
	asUser(func() {
		_, err = store.Put(t.Context(), obj.URI, strings.NewReader("new"), blobstore.PutOptions{IfTag: obj.Tag})
	})
	require.NoError(t, err)
	assert.Equal(t, "new", read(t, store, obj.URI))

	held, err := os.Open(dir.Join(".lock").Path())
	require.NoError(t, err)
	defer held.Close()
	require.NoError(t, syscall.Flock(int(held.Fd()), syscall.LOCK_EX))
	ctx, cancel := context.WithCancel(t.Context())
	asUser(func() {
		_, err = store.Put(whenAsked{ctx, cancel}, obj.URI, strings.NewReader("x"), blobstore.PutOptions{IfTag: "other"})
	})
	require.ErrorIs(t, err, context.Canceled)
}

// Volumes over a network may say only here that they are full, or broken: then
// nothing was published.
func TestFileThatCannotBeSyncedIsNotPublished(t *testing.T) {
	for errno, want := range map[syscall.Errno]error{
		syscall.EIO:    syscall.EIO,
		syscall.ENOSPC: blobstore.ErrFull,
		syscall.EDQUOT: blobstore.ErrFull,
	} {
		refusal := volumes.Refusal{Call: "fsync", Errno: errno}
		t.Run(refusal.String(), func(t *testing.T) {
			store, dir := on(refusal), folder(t)
			old := put(t, blobstore.NewFile(), dir.Join("object"), "old")
			put(t, blobstore.NewFile(), dir.Join("source"), "x")
			for _, opts := range []blobstore.PutOptions{{}, {IfTag: old.Tag}} {
				_, err := store.Put(t.Context(), old.URI, strings.NewReader("new"), opts)
				require.ErrorIs(t, err, want)
			}
			_, err := store.Put(t.Context(), dir.Join("absent"), strings.NewReader("new"), blobstore.PutOptions{IfAbsent: true})
			require.ErrorIs(t, err, want)
			_, err = store.Copy(t.Context(), dir.Join("copy"), dir.Join("source"))
			require.ErrorIs(t, err, want)
			assert.Equal(t, "old", read(t, store, old.URI))
			assert.Equal(t, []string{"object", "source"}, entries(t, dir))
		})
	}
}

// What the kernel is told, in its order: bytes are durable before they have
// their name, copies before the next object, names before Put returns.
func TestFileSyncsBeforeItNames(t *testing.T) {
	dir := folder(t)
	put(t, blobstore.NewFile(), dir.Join("checkpoint/source"), "content")
	put(t, blobstore.NewFile(), dir.Join("state/old"), "x")
	old := put(t, blobstore.NewFile(), dir.Join("pin/_metadata"), "old")

	for name, c := range map[string]struct {
		store *blobstore.File
		copy  []string
	}{
		"links":  {&blobstore.File{}, []string{"link source TEMP", "fsync source", "rename TEMP "}},
		"copies": {&blobstore.File{NoLinks: true}, []string{"fsync TEMP", "rename TEMP "}},
	} {
		t.Run(name, func(t *testing.T) {
			target := dir.Join("state", name)
			c.copy[len(c.copy)-1] += name
			var err error
			assert.Equal(t, c.copy, callsOf(func() { _, err = c.store.Copy(t.Context(), target, dir.Join("checkpoint/source")) }))
			require.NoError(t, err)

			var obj blobstore.Object
			publish := func() {
				obj, err = c.store.Put(t.Context(), old.URI, strings.NewReader("new"), blobstore.PutOptions{IfTag: old.Tag})
			}
			assert.Equal(t, []string{"fsync TEMP", "fsync state", "rename TEMP _metadata", "fsync pin"}, callsOf(publish))
			require.NoError(t, err)
			old = obj
			assert.Equal(t, []string{"fsync TEMP", "rename TEMP _metadata", "fsync pin"}, callsOf(publish)[:3], "nothing was copied since")
			require.NoError(t, err)
			old = obj
		})
	}

	store := blobstore.NewFile()
	assert.Equal(t, []string{"fsync " + dir.Base(), "fsync new", "fsync TEMP", "link TEMP object", "fsync folder"}, callsOf(func() {
		putIf(t, store, dir.Join("new/folder/object"), "x", blobstore.PutOptions{IfAbsent: true})
	}), "folders are named durably, from the top")
}

var tempName = regexp.MustCompile(`\.chkpin-[A-Z0-9]+\.tmp`)

// callsOf is what f tells the kernel, with TEMP for all temporary names.
func callsOf(f func()) (calls []string) {
	for _, call := range volumes.Calls(f) {
		calls = append(calls, tempName.ReplaceAllString(call, "TEMP"))
	}
	return calls
}

// A volume with an fsGroup has that group and the set-group-id bit on its top.
func TestFileKeepsTheGroupOfItsFolder(t *testing.T) {
	for _, umask := range []int{0o022, 0o077} {
		store, dir := &blobstore.File{NoLinks: true}, folder(t)
		require.NoError(t, os.Chmod(dir.Path(), os.ModeSetgid|0o770))
		group := os.Getgid()
		if os.Getuid() == 0 {
			group = 2000
			require.NoError(t, os.Chown(dir.Path(), -1, group))
		}
		old := syscall.Umask(umask)
		defer syscall.Umask(old)
		put(t, store, dir.Join("pin/state/file"), "x")
		syscall.Umask(old)

		for _, name := range []string{"pin", "pin/state", "pin/state/file"} {
			info, err := os.Stat(dir.Join(name).Path())
			require.NoError(t, err)
			assert.EqualValues(t, group, info.Sys().(*syscall.Stat_t).Gid, name)
			assert.Equal(t, info.IsDir(), info.Mode()&os.ModeSetgid != 0, "%s is %s", name, info.Mode())
			assert.NotZero(t, info.Mode()&0o040, "%s is %s", name, info.Mode())
		}
	}
}

// Two mounts of one volume, as subPaths of one claim are, have one device and
// still no hard links between them: the kernel's number of the mount counts.
func TestFileMount(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	here, err := store.Mount(t.Context(), dir)
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(dir.Path(), here), "%s is on %s", dir, here)
	for _, name := range []string{"app", "app/with space"} {
		there, err := store.Mount(t.Context(), dir.Join(name))
		require.NoError(t, err, "what will be made is on the mount of the folder it will be in")
		assert.Equal(t, here, there)
		require.NoError(t, os.Mkdir(dir.Join(name).Path(), 0o777))
	}
	require.NoError(t, os.Mkdir(dir.Join("secret").Path(), 0o300))
	there, err := store.Mount(t.Context(), dir.Join("secret/app"))
	require.NoError(t, err, "the folder need not be readable")
	assert.Equal(t, here, there)
	for _, other := range []string{"/proc", "/proc/nothing"} {
		there, err := store.Mount(t.Context(), blobstore.MustParse("file:"+other))
		require.NoError(t, err)
		assert.Equal(t, "/proc", there)
	}

	_, err = store.Mount(t.Context(), dir.Join("not/mounted/app"))
	require.ErrorIs(t, err, blobstore.ErrContainer)
	assert.EqualError(t, err, "stat "+dir.Join("not/mounted/app").String()+
		": no such bucket or container: there is no folder "+dir.Join("not/mounted").Path())
	mux := blobstore.Mux{blobstore.FamilyFile: store, blobstore.FamilyMemory: blobstore.NewMemory()}
	there, err = mux.Mount(t.Context(), dir)
	require.NoError(t, err)
	assert.Equal(t, here, there)
	there, err = mux.Mount(t.Context(), blobstore.MustParse("mem://name/app"))
	require.NoError(t, err)
	assert.Empty(t, there, "no volume")
}
