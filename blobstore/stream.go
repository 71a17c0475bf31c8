package blobstore

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
)

// source is an object that is read to be put elsewhere: as many bytes as Open
// said that it has. What goes wrong with it is said to be its, not the
// destination's.
type source struct {
	io.ReadCloser
	uri   URI
	size  int64 // as Open said; -1 when unknown
	read  int64
	broke atomic.Bool
}

// body is s in the form from which a store learns most; see [Store.Put].
func (s *source) body() io.Reader {
	if at, ok := s.ReadCloser.(io.ReaderAt); ok && s.size >= 0 {
		return io.NewSectionReader(&sourceAt{s, at}, 0, s.size)
	}
	return s
}

// Size is how long s is, -1 when nobody knows.
func (s *source) Size() int64 { return s.size }

func (s *source) Read(p []byte) (int, error) {
	if s.size >= 0 { // a file may grow meanwhile
		if s.read == s.size {
			return 0, io.EOF
		}
		p = p[:min(int64(len(p)), s.size-s.read)]
	}
	n, err := s.ReadCloser.Read(p)
	s.read += int64(n)
	return n, s.check(err, s.read)
}

// check makes an end that comes early an error.
func (s *source) check(err error, end int64) error {
	if err == io.EOF && end < s.size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil || err == io.EOF {
		return err
	}
	s.broke.Store(true)
	return &Error{Op: "read", URI: s.uri, Err: err}
}

// sourceAt is a source that can be read anywhere, as a file can.
type sourceAt struct {
	*source
	at io.ReaderAt
}

func (s *sourceAt) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.at.ReadAt(p, off)
	return n, s.check(err, off+int64(n))
}

// takeIn makes dst of what is read from another store. Its name is durable with
// the next Put, as that of a Copy.
func (f *File) takeIn(ctx context.Context, dst URI, body io.Reader) (Object, error) {
	temp, err := writeAside(ctx, dst, body)
	if err != nil {
		return Object{}, fileError("put", dst, err)
	}
	defer os.Remove(temp) // if it has not got its name
	info, err := os.Stat(temp)
	if err == nil {
		err = os.Rename(temp, dst.Path())
	}
	if err != nil {
		return Object{}, fileError("put", dst, err)
	}
	f.syncLater(filepath.Dir(dst.Path()))
	return object(dst, info), nil
}
