package blobstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// File is a store on mounted volumes: file:///path is the file /path.
//
//   - Put writes aside in the same folder, syncs, renames and syncs the folder.
//     Folders are made as needed. What a killed writer leaves behind is named
//     ".chkpin-*.tmp" and appears in listings like any object.
//   - PutOptions.IfAbsent is a hard link that must not replace anything, where
//     links work. PutOptions.IfTag, and IfAbsent without links, compare and
//     rename under an flock on the file ".lock" of the same folder, a name that
//     the store keeps for itself and does not list. Where flock does not work
//     either (some network volumes) the last writer wins.
//   - Copy makes a hard link where the volume allows it, so that no bytes move
//     and a file that its owner still appends to goes on growing in the copy;
//     elsewhere it copies bytes.
//   - Tags are made of inode, size and modification time. Put makes the time
//     later than that of the file it replaces.
//   - What it makes, the group can read, whatever the umask, but not write unless
//     the umask allows that: Flink may be another user of the same fsGroup. A hard
//     link has the owner and mode of its source. Folders keep the set-group-id bit
//     of the one above.
//   - A name is a file or a folder, never both: once there is a/b, a Put to a
//     fails.
//
// The zero File is ready for use.
type File struct {
	// NoLinks makes Copy and Put do without hard links, as on volumes that
	// have none.
	NoLinks bool

	// Logger is told once when a volume has no locks; nil is silent.
	Logger *slog.Logger

	unlocked sync.Once
	mu       sync.Mutex
	unsynced map[string]bool // folders in which Copy made names that are not durable yet
}

// NewFile returns a store on the volumes of this machine.
func NewFile() *File { return &File{} }

const (
	tempPrefix = ".chkpin-"
	tempSuffix = ".tmp"
	lockName   = ".lock"
)

// IsTemporary reports whether u is what a killed writer of a [File] store left
// behind, or one that is at work.
func IsTemporary(u URI) bool {
	return strings.HasPrefix(u.Base(), tempPrefix) && strings.HasSuffix(u.Base(), tempSuffix)
}

func object(u URI, info fs.FileInfo) Object {
	changed, inode := inodeOf(info)
	return Object{
		URI:     u,
		Size:    info.Size(),
		ModTime: changed,
		Tag:     fmt.Sprintf("%x-%x-%x", inode, info.Size(), info.ModTime().UnixNano()),
	}
}

// Stat implements [Store].
func (f *File) Stat(ctx context.Context, u URI) (Object, error) {
	if err := ctx.Err(); err != nil {
		return Object{}, &Error{Op: "stat", URI: u, Err: err}
	}
	info, err := stat(ctx, u)
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%w (it is a folder)", ErrNotExist)
	}
	if err != nil {
		return Object{}, fileError("stat", u, err)
	}
	return object(u, info), nil
}

func stat(ctx context.Context, u URI) (fs.FileInfo, error) {
	return wait(ctx, func() (fs.FileInfo, error) { return os.Stat(cmp.Or(u.Path(), "/")) }, func(fs.FileInfo) {})
}

// wait does what may take for ever where a volume's server is gone, until ctx ends.
// What comes of it later goes to late. Whatever is done on a volume begins with a
// look at it, so that looks alone are waited for in this way.
func wait[T any](ctx context.Context, do func() (T, error), late func(T)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		value, err := do()
		done <- outcome{value, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		go func() {
			if o := <-done; o.err == nil {
				late(o.value)
			}
		}()
		return *new(T), ctx.Err()
	}
}

// Open implements [Store].
func (f *File) Open(ctx context.Context, u URI) (io.ReadCloser, Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, Object{}, &Error{Op: "open", URI: u, Err: err}
	}
	file, err := wait(ctx, func() (*os.File, error) { return os.Open(u.Path()) }, func(f *os.File) { f.Close() })
	if err != nil {
		return nil, Object{}, fileError("open", u, err)
	}
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%w (it is a folder)", ErrNotExist)
	}
	if err != nil {
		file.Close()
		return nil, Object{}, fileError("open", u, err)
	}
	return file, object(u, info), nil
}

// List implements [Store], in the order of names. It follows symbolic links, as
// Stat and Open do.
func (f *File) List(ctx context.Context, dir URI, opts ListOptions) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(Object{}, &Error{Op: "list", URI: dir, Err: err})
			return
		}
		info, err := stat(ctx, dir)
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		case err != nil:
			yield(Object{}, fileError("list", dir, err))
		case info.IsDir():
			f.list(ctx, dir, []fs.FileInfo{info}, opts, yield)
		}
	}
}

// list reports whether to go on. The folders it is in are dir and those above.
func (f *File) list(ctx context.Context, dir URI, in []fs.FileInfo, opts ListOptions,
	yield func(Object, error) bool) bool {
	entries, err := os.ReadDir(cmp.Or(dir.Path(), "/"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		yield(Object{}, fileError("list", dir, err))
		return false
	}
	for _, e := range entries {
		if e.Name() == lockName {
			continue
		}
		if err := ctx.Err(); err != nil {
			yield(Object{}, &Error{Op: "list", URI: dir, Err: err})
			return false
		}
		u := dir.Join(e.Name())
		info, err := os.Stat(u.Path())
		var obj Object
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed since ReadDir, or a link to nowhere
			continue
		case err != nil:
			yield(Object{}, fileError("list", u, err))
			return false
		case !info.IsDir():
			obj = object(u, info)
		case opts.Shallow:
			obj = Object{URI: u, Dir: true}
		case slices.ContainsFunc(in, func(above fs.FileInfo) bool { return os.SameFile(above, info) }):
			continue // a link to a folder above would go round for ever
		default:
			if !f.list(ctx, u, append(in, info), opts, yield) {
				return false
			}
			continue
		}
		if !yield(obj, nil) {
			return false
		}
	}
	return true
}

// Put implements [Store].
func (f *File) Put(ctx context.Context, u URI, body io.Reader, opts PutOptions) (Object, error) {
	obj, err := f.put(ctx, u, body, opts)
	if err != nil {
		return Object{}, fileError("put", u, err)
	}
	return obj, nil
}

func (f *File) put(ctx context.Context, u URI, body io.Reader, opts PutOptions) (obj Object, err error) {
	temp, err := writeAside(ctx, u, body)
	if err != nil {
		return obj, err
	}
	defer os.Remove(temp)
	if err := f.syncFolders(); err != nil { // what was copied before must not outlive less than this
		return obj, err
	}
	info, err := newer(temp, u.Path())
	if err != nil {
		return obj, err
	}
	if err := f.place(ctx, temp, u, opts); err != nil {
		return obj, err
	}
	return object(u, info), syncFolder(filepath.Dir(u.Path()))
}

// newer makes the modification time of temp later than that of the file it is to
// replace, and describes it: once it has its name another writer may replace it.
// Tags would come back otherwise, since inode numbers do, clocks may be set back,
// and Linux before 6.13 stamps files in steps of some milliseconds.
func newer(temp, old string) (fs.FileInfo, error) {
	info, err := os.Stat(temp)
	if err != nil {
		return nil, err
	}
	was, err := os.Stat(old)
	if err != nil || was.ModTime().Before(info.ModTime()) {
		return info, nil
	}
	// Where times cannot be set the object is as good, only its tag may not be.
	os.Chtimes(temp, time.Time{}, was.ModTime().Add(1))
	return os.Stat(temp)
}

// place gives the finished file its name if the conditions hold.
func (f *File) place(ctx context.Context, temp string, u URI, opts PutOptions) error {
	if err := ctx.Err(); err != nil { // syncing may have taken long: nothing is written after a deadline
		return err
	}
	if !opts.IfAbsent && opts.IfTag == "" {
		return os.Rename(temp, u.Path())
	}
	if opts.IfAbsent && !f.NoLinks {
		err := os.Link(temp, u.Path())
		if errors.Is(err, fs.ErrExist) {
			return ErrPrecondition
		}
		if err == nil || !linkRefused(err) {
			return err
		}
	}
	unlock, err := f.lock(ctx, filepath.Dir(u.Path()))
	if err != nil {
		return err
	}
	defer unlock()
	info, err := statNow(u.Path())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if opts.IfTag != "" {
			return ErrPrecondition
		}
	case err != nil:
		return err
	case opts.IfAbsent || object(u, info).Tag != opts.IfTag:
		return ErrPrecondition
	}
	return os.Rename(temp, u.Path())
}

// statNow is os.Stat for volumes that answer that from a cache: NFS asks its
// server when a file is opened, and only then (close-to-open consistency, nfs(5)).
func statNow(path string) (fs.FileInfo, error) {
	file, err := os.Open(path)
	if err != nil {
		return os.Stat(path) // it need not be readable
	}
	defer file.Close()
	return file.Stat()
}

// writeAside makes a synced file with the body in the folder of u.
func writeAside(ctx context.Context, u URI, body io.Reader) (temp string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	var file *os.File
	temp, err = beside(u, func(temp string) (err error) {
		file, err = os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666) // the umask decides who reads
		return err
	})
	if errors.Is(err, fs.ErrNotExist) { // as in a link to a volume that is not mounted
		err = fmt.Errorf("%w: its folder cannot be made", ErrContainer)
	}
	if err != nil {
		return "", err
	}
	groupReads(file, 0o040)
	_, err = io.Copy(file, &ctxReader{ctx, body})
	if err == nil {
		err = file.Sync()
	}
	if e := file.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(temp)
	}
	return temp, err
}

// beside lets create make a temporary file in u's folder, which is made first.
func beside(u URI, create func(temp string) error) (temp string, err error) {
	dir := filepath.Dir(u.Path())
	for range 100 {
		temp = filepath.Join(dir, tempPrefix+rand.Text()+tempSuffix)
		if err = makeFolder(dir); err == nil {
			err = create(temp)
		}
		if !errors.Is(err, fs.ErrNotExist) { // else a Delete took the empty folder: again
			break
		}
	}
	return temp, err
}

// makeFolder makes dir and the folders above it, and their names durable.
func makeFolder(dir string) error {
	parent := filepath.Dir(dir)
	if info, err := os.Stat(dir); err == nil && info.IsDir() || parent == dir {
		return nil
	}
	if err := makeFolder(parent); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o777)
	if errors.Is(err, fs.ErrExist) { // made in the meantime, or a file: then nothing can be made in it
		return nil
	}
	if err != nil {
		return err
	}
	if made, err := os.Open(dir); err == nil {
		groupReads(made, 0o050)
		made.Close()
	}
	return syncFolder(parent)
}

// Copy implements [Store].
func (f *File) Copy(ctx context.Context, dst, src URI) (Object, error) {
	obj, err := f.copy(ctx, dst, src)
	if err != nil {
		err := fileError("copy", dst, err)
		err.Src = src
		return Object{}, err
	}
	return obj, nil
}

func (f *File) copy(ctx context.Context, dst, src URI) (Object, error) {
	in, _, err := f.Open(ctx, src)
	if err != nil {
		return Object{}, errors.Unwrap(err)
	}
	defer in.Close()
	temp, err := f.linkAside(in.(*os.File), dst, src)
	place := os.Rename
	if linkRefused(err) || errors.Is(err, fs.ErrNotExist) { // or it vanished; open it is readable still
		temp, err = writeAside(ctx, dst, in)
		place = func(from, to string) error { return f.renameUnlessLonger(ctx, in.(*os.File), from, to) }
	}
	if err != nil {
		return Object{}, err
	}
	defer os.Remove(temp)      // rename leaves it when both are links to one file
	info, err := os.Stat(temp) // once it has its name another writer may replace it
	if err != nil {
		return Object{}, err
	}
	if err := place(temp, dst.Path()); err != nil {
		return Object{}, err
	}
	f.syncLater(filepath.Dir(dst.Path()))
	return object(dst, info), nil
}

// syncLater notes a folder for syncFolders.
func (f *File) syncLater(dir string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unsynced == nil {
		f.unsynced = map[string]bool{}
	}
	f.unsynced[dir] = true
}

// renameUnlessLonger gives a copy of bytes its name, but not in the place of a
// longer copy of a source that has grown meanwhile: somebody else made that one
// later, though it was renamed earlier.
func (f *File) renameUnlessLonger(ctx context.Context, src *os.File, from, to string) error {
	unlock, err := f.lock(ctx, filepath.Dir(to))
	if err != nil {
		return err
	}
	defer unlock()
	made, err := os.Stat(from)
	if err != nil {
		return err
	}
	now, err := src.Stat()
	if err != nil {
		return err
	}
	if there, err := os.Stat(to); err == nil && there.Size() > made.Size() && there.Size() <= now.Size() {
		return nil
	}
	return os.Rename(from, to)
}

// linkAside makes a hard link to the open source in the folder of dst and syncs
// the content, which its writer may not have done.
func (f *File) linkAside(in *os.File, dst, src URI) (temp string, err error) {
	if f.NoLinks || !linksKeepTime {
		return "", errors.ErrUnsupported
	}
	path, err := filepath.EvalSymlinks(src.Path()) // a link to a link would break with it
	if err != nil {
		return "", err
	}
	temp, err = beside(dst, func(temp string) error { return os.Link(path, temp) })
	if err != nil {
		return "", err
	}
	if err := in.Sync(); err != nil {
		os.Remove(temp)
		return "", err
	}
	return temp, nil
}

// syncFolders makes the names durable that Copy made so far.
func (f *File) syncFolders() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for dir := range f.unsynced {
		if err := syncFolder(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		delete(f.unsynced, dir)
	}
	return nil
}

// Delete implements [Store]. A folder that becomes empty goes too.
func (f *File) Delete(ctx context.Context, u URI) error {
	if err := ctx.Err(); err != nil {
		return &Error{Op: "delete", URI: u, Err: err}
	}
	if info, err := os.Stat(u.Path()); err == nil && info.IsDir() {
		return nil // no object has this name
	}
	err := os.Remove(u.Path())
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return fileError("delete", u, err)
	}
	f.removeFolder(ctx, filepath.Dir(u.Path()))
	return nil
}

// removeFolder removes a folder with nothing in it but perhaps its lock. A
// writer that waits for that lock has its temporary file there.
func (f *File) removeFolder(ctx context.Context, dir string) {
	if os.Remove(dir) == nil {
		return
	}
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	names, _ := d.Readdirnames(2)
	d.Close()
	if len(names) != 1 || names[0] != lockName {
		return
	}
	if unlock, err := f.lock(ctx, dir); err == nil {
		defer unlock()
		os.Remove(filepath.Join(dir, lockName))
		os.Remove(dir)
	}
}

// ctxReader stops a long copy when the context ends.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
