// Package cdkstore makes a [blobstore.Store] of any bucket that the Go CDK can
// open (gocloud.dev/blob): Google Cloud Storage, what a company has written a
// driver for, memory. It is for importers of chkpin's packages; the chkpin
// program does without it, and has better stores for volumes, S3 and Azure Blob.
//
// What the Go CDK, as of v0.47, cannot keep of the contract:
//
//   - There is no write on the condition that an object is unchanged
//     (PutOptions.IfTag). Such a Put fails with [ErrNoIfTag] unless
//     [Options.AllowLastWriterWins] permits to look first and write then: of two
//     that publish at once the last one wins, unnoticed.
//   - PutOptions.IfAbsent is as good as the driver's IfNotExist: gcsblob, s3blob
//     and azureblob ask the service; memblob is exclusive, as one process has
//     it; with fileblob two Puts can both succeed.
//   - Drivers do not say the Tag of what they wrote. Put asks for it, and says it
//     where the service knows the MD5 of what it holds, as proof that nobody wrote
//     since; Copy and List say none.
//   - Copy stays within the bucket and is one request of the driver: s3blob
//     cannot copy more than 5 GiB, fileblob reads and writes every byte.
//   - Drivers escape some keys: azureblob those with any of " # % ? \ or a slash
//     at the end, as "__0x23__". What Flink wrote under such a name is not there
//     for it.
//   - fileblob is for reading: it does not sync, keeps empty folders, describes an
//     object that is being replaced by the size of another version, and fails to
//     list a folder in which somebody writes. memblob's copies are as old as their
//     source.
//   - A bucket that does not exist reads as empty with most drivers.
package cdkstore

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"strings"
	"syscall"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/chkpin/chkpin/blobstore"
)

// ErrNoIfTag: a Put was to replace an object only if it is unchanged, which the
// Go CDK cannot do. It is an [errors.ErrUnsupported].
var ErrNoIfTag = fmt.Errorf("%w: the Go CDK has no write on the condition that an object is unchanged; "+
	"Options.AllowLastWriterWins does without it", errors.ErrUnsupported)

// Options change what the store does. The zero value is ready for use.
type Options struct {
	// AllowLastWriterWins lets Put check PutOptions.IfTag and then write, in two
	// steps. Set it where only one chkpin publishes to an application.
	AllowLastWriterWins bool
}

// Store is a [blobstore.Store] in a bucket.
type Store struct {
	bucket *blob.Bucket
	root   blobstore.URI
	opts   Options
}

// New returns a store in a bucket, which the caller closes when it is no longer
// used. root is the URI that the bucket stands for: gs://bucket, or
// gs://bucket/folder when the bucket is one with that prefix
// (blob.PrefixedBucket). It is spelled with the scheme that Flink uses, since
// these URIs go into what Flink reads.
//
// To join it with other stores, enter it in a [blobstore.Mux] under
// root.Family().
func New(bucket *blob.Bucket, root blobstore.URI, opts Options) *Store {
	return &Store{bucket, root, opts}
}

// key is the object's name in the bucket.
func (s *Store) key(u blobstore.URI) (string, error) {
	key, ok := u.Rel(s.root)
	if !ok {
		return "", fmt.Errorf("%w: it is not in %s", blobstore.ErrContainer, s.root)
	}
	return key, nil
}

// objectKey refuses the bucket itself, too.
func (s *Store) objectKey(u blobstore.URI) (string, error) {
	key, err := s.key(u)
	if err == nil && key == "" {
		err = fmt.Errorf("%w (it is a bucket)", blobstore.ErrNotExist)
	}
	return key, err
}

func failed(ctx context.Context, op string, u blobstore.URI, err error) *blobstore.Error {
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, blobstore.ErrNotExist) || errors.Is(err, blobstore.ErrPermission): // it says so already
	case notFound(err):
		err = fmt.Errorf("%w: %w", blobstore.ErrNotExist, err)
	case gcerrors.Code(err) == gcerrors.PermissionDenied:
		err = fmt.Errorf("%w: %w", blobstore.ErrPermission, err)
	}
	return &blobstore.Error{Op: op, URI: u, Err: err}
}

// notFound: ENOTDIR is what fileblob says of what is looked for below a file.
func notFound(err error) bool {
	return gcerrors.Code(err) == gcerrors.NotFound || errors.Is(err, blobstore.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// Stat implements [blobstore.Store].
func (s *Store) Stat(ctx context.Context, u blobstore.URI) (blobstore.Object, error) {
	obj, err := s.stat(ctx, u)
	if err != nil {
		return blobstore.Object{}, failed(ctx, "stat", u, err)
	}
	return obj, nil
}

func (s *Store) stat(ctx context.Context, u blobstore.URI) (blobstore.Object, error) {
	key, err := s.objectKey(u)
	if err == nil {
		err = ctx.Err() // some drivers do not ask
	}
	if err != nil {
		return blobstore.Object{}, err
	}
	a, err := s.bucket.Attributes(ctx, key)
	if err != nil {
		return blobstore.Object{}, err
	}
	return blobstore.Object{URI: u, Size: a.Size, ModTime: a.ModTime, Tag: a.ETag}, nil
}

// Open implements [blobstore.Store]. Readers of the Go CDK do not tell the tag
// of what they read, so it is asked for before and after: when it changed in
// between it is unknown.
func (s *Store) Open(ctx context.Context, u blobstore.URI) (io.ReadCloser, blobstore.Object, error) {
	r, obj, err := s.open(ctx, u)
	if err != nil {
		return nil, blobstore.Object{}, failed(ctx, "open", u, err)
	}
	return r, obj, nil
}

func (s *Store) open(ctx context.Context, u blobstore.URI) (io.ReadCloser, blobstore.Object, error) {
	before, err := s.stat(ctx, u)
	if err != nil {
		return nil, before, err
	}
	key, _ := s.objectKey(u)
	r, err := s.bucket.NewReader(ctx, key, nil)
	if err != nil {
		return nil, before, err
	}
	obj := blobstore.Object{URI: u, Size: r.Size(), ModTime: r.ModTime()}
	if after, err := s.stat(ctx, u); err == nil && after.Tag == before.Tag {
		obj.Tag = before.Tag
	}
	return r, obj, nil
}

// List implements [blobstore.Store]. Markers of folders (keys that end in a
// slash) are no objects.
func (s *Store) List(ctx context.Context, dir blobstore.URI, opts blobstore.ListOptions) iter.Seq2[blobstore.Object, error] {
	return func(yield func(blobstore.Object, error) bool) {
		prefix, err := s.key(dir)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			yield(blobstore.Object{}, failed(ctx, "list", dir, err))
			return
		}
		list := &blob.ListOptions{}
		if prefix != "" {
			list.Prefix = prefix + "/"
		}
		if opts.Shallow {
			list.Delimiter = "/"
		}
		for page := s.bucket.List(list); ; {
			found, err := page.Next(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(blobstore.Object{}, failed(ctx, "list", dir, err))
				return
			}
			name := strings.TrimPrefix(found.Key, list.Prefix)
			obj := blobstore.Object{URI: dir.Join(name), Size: found.Size, ModTime: found.ModTime}
			if found.IsDir {
				obj = blobstore.Object{URI: obj.URI, Dir: true}
			} else if name == "" || strings.HasSuffix(name, "/") {
				continue
			}
			if !yield(obj, nil) {
				return
			}
		}
	}
}

// Put implements [blobstore.Store].
func (s *Store) Put(ctx context.Context, u blobstore.URI, body io.Reader, opts blobstore.PutOptions) (blobstore.Object, error) {
	obj, err := s.put(ctx, u, body, opts)
	if err != nil {
		return blobstore.Object{}, failed(ctx, "put", u, err)
	}
	return obj, nil
}

func (s *Store) put(ctx context.Context, u blobstore.URI, body io.Reader, opts blobstore.PutOptions) (obj blobstore.Object, err error) {
	key, err := s.objectKey(u)
	if err != nil {
		return obj, err
	}
	if opts.IfTag != "" {
		if err := s.check(ctx, u, opts.IfTag); err != nil {
			return obj, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	written := &reader{ctx: ctx, r: body, cancel: cancel, md5: md5.New()}
	// Upload: with Write and Close, azureblob can panic when the condition fails.
	err = s.bucket.Upload(ctx, key, written, &blob.WriterOptions{
		ContentType: "application/octet-stream",
		IfNotExist:  opts.IfAbsent,
	})
	switch {
	case written.err != nil:
		return obj, written.err
	case gcerrors.Code(err) == gcerrors.FailedPrecondition:
		return obj, blobstore.ErrPrecondition
	case err != nil:
		return obj, err
	}
	obj = blobstore.Object{URI: u, Size: written.n}
	if there, err := s.bucket.Attributes(ctx, key); err == nil && bytes.Equal(there.MD5, written.md5.Sum(nil)) {
		obj.Tag, obj.ModTime = there.ETag, there.ModTime
	}
	return obj, nil
}

// check looks whether the object is unchanged, if it is allowed to look only.
func (s *Store) check(ctx context.Context, u blobstore.URI, tag string) error {
	if !s.opts.AllowLastWriterWins {
		return ErrNoIfTag
	}
	obj, err := s.stat(ctx, u)
	if err != nil && notFound(err) || err == nil && obj.Tag != tag {
		return blobstore.ErrPrecondition
	}
	return err
}

// reader counts and digests, and makes the upload end without an object when its body or
// its context does: some drivers would keep what they have by then.
type reader struct {
	ctx    context.Context
	cancel func()
	r      io.Reader
	md5    hash.Hash
	n      int64
	err    error
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.n += int64(n)
	r.md5.Write(p[:n])
	if err == io.EOF || err == nil {
		if ended := r.ctx.Err(); ended != nil {
			err = ended
		}
	}
	if err != nil && err != io.EOF {
		r.err = err
		r.cancel()
	}
	return n, err
}

// Copy implements [blobstore.Store], within the bucket.
func (s *Store) Copy(ctx context.Context, dst, src blobstore.URI) (blobstore.Object, error) {
	err := s.copy(ctx, dst, src)
	if err != nil {
		e := failed(ctx, "copy", dst, err)
		e.Src = src
		return blobstore.Object{}, e
	}
	return blobstore.Object{URI: dst, Size: -1}, nil
}

func (s *Store) copy(ctx context.Context, dst, src blobstore.URI) error {
	to, err := s.objectKey(dst)
	if err != nil {
		return err
	}
	from, err := s.objectKey(src)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.bucket.Copy(ctx, to, from, nil)
}

// Delete implements [blobstore.Store].
func (s *Store) Delete(ctx context.Context, u blobstore.URI) error {
	key, err := s.objectKey(u)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = s.bucket.Delete(ctx, key)
	}
	if err != nil && !notFound(err) {
		return failed(ctx, "delete", u, err)
	}
	return nil
}
