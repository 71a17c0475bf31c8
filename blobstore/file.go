package blobstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// File is a store on mounted volumes: file:///path is the file /path.
//
//   - Put writes aside in the same folder, syncs, renames and syncs the folder.
//     Folders are made as needed. What a killed writer leaves behind is named
//     ".chkpin-*.tmp" and appears in listings like any object.
//   - PutOptions.IfAbsent is a hard link that must not replace anything, where
//     links work. PutOptions.IfTag, and IfAbsent without links, compare and
//     rename under an flock on the file ".lock" of the same folder. Where flock
//     does not work either (some network volumes) the last writer wins.
//   - Copy makes a hard link where the volume allows it, so that no bytes move
//     and a file that its owner still appends to goes on growing in the copy;
//     elsewhere it copies bytes.
//   - Tags are made of inode, size and modification time.
type File struct {
	// NoLinks makes Copy and Put do without hard links, as on volumes that
	// have none.
	NoLinks bool

	// unsynced holds folders in which Copy made names that are not durable yet.
	mu       sync.Mutex
	unsynced map[string]bool
}

// NewFile returns a store on the volumes of this machine.
func NewFile() *File { return &File{unsynced: map[string]bool{}} }

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

func fileError(op string, u URI, err error) error {
	// An os error repeats the path in the machine's spelling; the URI says it.
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		err = pe.Err
	} else if le := (*os.LinkError)(nil); errors.As(err, &le) {
		err = le.Err
	}
	if errors.Is(err, errNotDir) { // a file where a folder should be: nothing is below it
		err = fmt.Errorf("%w (a part of the path is a file)", ErrNotExist)
	}
	return &Error{Op: op, URI: u, Err: err}
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
	info, err := os.Stat(u.Path())
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%w (it is a folder)", ErrNotExist)
	}
	if err != nil {
		return Object{}, fileError("stat", u, err)
	}
	return object(u, info), nil
}

// Open implements [Store].
func (f *File) Open(ctx context.Context, u URI) (io.ReadCloser, Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, Object{}, &Error{Op: "open", URI: u, Err: err}
	}
	file, err := os.Open(u.Path())
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

// List implements [Store], in the order of names.
func (f *File) List(ctx context.Context, dir URI, opts ListOptions) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) { f.list(ctx, dir, opts, yield) }
}

// list reports whether to go on.
func (f *File) list(ctx context.Context, dir URI, opts ListOptions, yield func(Object, error) bool) bool {
	if err := ctx.Err(); err != nil {
		yield(Object{}, &Error{Op: "list", URI: dir, Err: err})
		return false
	}
	path := dir.Path()
	if path == "" {
		path = "/"
	}
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDir) {
		return true
	}
	if err != nil {
		yield(Object{}, fileError("list", dir, err))
		return false
	}
	for _, e := range entries {
		u := dir.Join(e.Name())
		info, err := os.Stat(u.Path()) // follows links, as Open does
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed since ReadDir
			continue
		case err != nil:
			yield(Object{}, fileError("list", u, err))
			return false
		case info.IsDir() && !opts.Shallow:
			if !f.list(ctx, u, opts, yield) {
				return false
			}
			continue
		}
		obj := object(u, info)
		if info.IsDir() {
			obj = Object{URI: u, Dir: true}
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
	temp, err := f.writeAside(ctx, u, body)
	if err != nil {
		return obj, err
	}
	defer os.Remove(temp)
	if err := f.syncFolders(); err != nil { // what was copied before must not outlive less than this
		return obj, err
	}
	info, err := os.Stat(temp) // once it has its name another writer may replace it
	if err != nil {
		return obj, err
	}
	if err := f.place(temp, u, opts); err != nil {
		return obj, err
	}
	return object(u, info), syncFolder(filepath.Dir(u.Path()))
}

// place gives the finished file its name if the conditions hold.
func (f *File) place(temp string, u URI, opts PutOptions) error {
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
	unlock, err := lockFolder(filepath.Dir(u.Path()))
	if err != nil {
		return err
	}
	defer unlock()
	info, err := os.Stat(u.Path())
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

// writeAside makes a synced file with the body in the folder of u.
func (f *File) writeAside(ctx context.Context, u URI, body io.Reader) (temp string, err error) {
	temp, err = tempBeside(u)
	if err != nil {
		return "", err
	}
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666) // the umask decides who reads
	if err != nil {
		return "", err
	}
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

// tempBeside names a temporary file in u's folder and makes that folder.
func tempBeside(u URI) (string, error) {
	dir := filepath.Dir(u.Path())
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", err
	}
	return filepath.Join(dir, tempPrefix+rand.Text()+tempSuffix), nil
}

// Copy implements [Store].
func (f *File) Copy(ctx context.Context, dst, src URI) (Object, error) {
	obj, err := f.copy(ctx, dst, src)
	if err != nil {
		err = fileError("copy", dst, err)
		err.(*Error).Src = src
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
	if linkRefused(err) {
		temp, err = f.writeAside(ctx, dst, in)
	}
	if err != nil {
		return Object{}, err
	}
	defer os.Remove(temp) // rename leaves it when both are links to one file
	if err := os.Rename(temp, dst.Path()); err != nil {
		return Object{}, err
	}
	f.mu.Lock()
	f.unsynced[filepath.Dir(dst.Path())] = true
	f.mu.Unlock()
	info, err := os.Stat(dst.Path())
	if err != nil {
		return Object{}, err
	}
	return object(dst, info), nil
}

// linkAside makes a hard link to the open source in the folder of dst. The
// content is synced first: its writer may not have done so.
func (f *File) linkAside(in *os.File, dst, src URI) (string, error) {
	if f.NoLinks {
		return "", errLinksOff
	}
	if err := in.Sync(); err != nil {
		return "", err
	}
	path, err := filepath.EvalSymlinks(src.Path()) // a link to a link would break with it
	if err != nil {
		return "", err
	}
	temp, err := tempBeside(dst)
	if err != nil {
		return "", err
	}
	return temp, os.Link(path, temp)
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
	if info, err := os.Lstat(u.Path()); err == nil && info.IsDir() {
		return nil // no object has this name
	}
	err := os.Remove(u.Path())
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNotDir) {
		return fileError("delete", u, err)
	}
	os.Remove(filepath.Dir(u.Path())) // fails, as it should, while anything is in it
	return nil
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
