// Package blobstore is the little that chkpin needs of a storage service: six
// calls on objects named by a [URI], with the same guarantees on a volume, in
// memory, and (in packages below this one) on S3 and Azure Blob.
//
// [NewFile] opens volumes, [NewMemory] serves tests and examples, and [Mux]
// joins stores by the family of the URI's scheme.
package blobstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"time"
)

// Store is a storage service. Implementations are safe for concurrent use, and
// every error they return is an [*Error].
//
// What callers build on:
//   - Put and Copy are atomic: a reader sees the old object, or the new one
//     whole, never a part, also when the writer is killed.
//   - A write that returned is seen by every later Stat, Open and List, by
//     anyone (read after write), and is durable.
//   - Conditions are checked and acted on in one step: of two Puts with the same
//     condition at most one succeeds. A store that cannot do this must say so
//     in its documentation.
//   - An object has no folders above it that need making or removing.
type Store interface {
	// Stat describes an object. A folder is not an object: [ErrNotExist].
	Stat(ctx context.Context, u URI) (Object, error)

	// Open reads an object from its beginning. The caller closes it. The Object
	// describes the very bytes that are read.
	Open(ctx context.Context, u URI) (io.ReadCloser, Object, error)

	// List yields what lies below a folder, in no order that means anything. A
	// folder that does not exist is empty. After an error the sequence ends.
	List(ctx context.Context, dir URI, opts ListOptions) iter.Seq2[Object, error]

	// Put writes an object. On success the Object carries its new Tag. A body may
	// say how many bytes it has by a method Size() int64, -1 if it does not know;
	// one that is an io.ReaderAt as well, such as an *io.SectionReader, may be read
	// in parts, at once and again.
	Put(ctx context.Context, u URI, body io.Reader, opts PutOptions) (Object, error)

	// Copy makes dst a copy of src without the bytes passing through the caller
	// where the service can do that. An existing dst is replaced. The Object's
	// Size is what was copied, or -1 if the service does not say.
	// Copies may become durable only with the next Put that returns.
	Copy(ctx context.Context, dst, src URI) (Object, error)

	// Delete removes an object. One that is not there is no error.
	Delete(ctx context.Context, u URI) error
}

// Mounter is a store of mounted volumes.
type Mounter interface {
	// Mount returns the folder at which the volume is mounted that u is on, or will
	// be; "" where nobody knows. Hard links are within one mount. [ErrContainer]
	// when there is neither u nor the folder above it, as where a volume is not
	// mounted.
	Mount(ctx context.Context, u URI) (string, error)
}

// Object describes a stored object, or with Dir a folder in a shallow listing.
type Object struct {
	URI  URI
	Size int64 // bytes; -1 when unknown

	// ModTime is when the store took the object in under this name, by the
	// store's own clock. It never comes from the clock of a caller, and not from
	// the age of the content: a hard link on a volume is as young as the link.
	ModTime time.Time

	// Tag changes whenever the content does: an ETag. "" when unknown.
	Tag string

	Dir bool
}

// ListOptions limits a listing.
type ListOptions struct {
	// Shallow lists the objects and folders directly in the folder; otherwise
	// all objects below it, and no folders.
	Shallow bool

	// Spread says that most names in the folder begin with hex digits that are
	// evenly spread, and that their order does not matter: a store may then list
	// parts of a large folder at once. Names that sort before "0" still come before
	// the others are asked for.
	Spread bool
}

// PutOptions are the conditions of a Put. At most one of them is set.
type PutOptions struct {
	IfAbsent bool   // write only if there is no such object
	IfTag    string // write only if the object's Tag is this one
}

// Conditions that an [Error] wraps, for errors.Is.
var (
	ErrNotExist     = fs.ErrNotExist                                // no such object
	ErrPermission   = fs.ErrPermission                              // denied
	ErrPrecondition = errors.New("the object is not as expected")   // IfAbsent or IfTag not met
	ErrContainer    = errors.New("no such bucket or container")     // also a volume that is not mounted
	ErrFull         = errors.New("the volume is full")              // or a quota of it
	ErrScheme       = errors.New("no store is set up for this URI") // scheme unknown to this Mux
)

// Error says which call failed on which object.
type Error struct {
	Op  string // stat, open, read, list, put, copy, delete
	URI URI
	Src URI // for copy: the source; zero otherwise
	Err error
}

func (e *Error) Error() string {
	if !e.Src.IsZero() {
		return fmt.Sprintf("%s %s from %s: %v", e.Op, e.URI, e.Src, e.Err)
	}
	return fmt.Sprintf("%s %s: %v", e.Op, e.URI, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// ReadAll reads a whole object. An object larger than limit is an error; limit
// 0 means no limit.
func ReadAll(ctx context.Context, s Store, u URI, limit int64) ([]byte, Object, error) {
	r, obj, err := s.Open(ctx, u)
	if err != nil {
		return nil, Object{}, err
	}
	defer r.Close()
	data, err := readAll(r, obj.Size, limit)
	if err != nil {
		return nil, obj, &Error{Op: "read", URI: u, Err: err}
	}
	return data, obj, nil
}

// readAll reads size bytes, or to the end when the size is -1.
func readAll(r io.Reader, size, limit int64) ([]byte, error) {
	tooMany := fmt.Errorf("more than the %d bytes expected at most", limit)
	if limit > 0 && size > limit {
		return nil, tooMany
	}
	if size >= 0 {
		data := make([]byte, size)
		_, err := io.ReadFull(r, data)
		return data, err
	}
	if limit > 0 {
		r = io.LimitReader(r, limit+1)
	}
	data, err := io.ReadAll(r)
	if err == nil && limit > 0 && int64(len(data)) > limit {
		err = tooMany
	}
	return data, err
}
