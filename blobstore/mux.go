package blobstore

import (
	"context"
	"fmt"
	"io"
	"iter"
)

// Mux joins stores by the family of a URI's scheme ([URI.Family]) and is a
// store itself. A copy between two stores streams through the caller.
type Mux map[string]Store

func (m Mux) store(op string, u URI) (Store, error) {
	if s, ok := m[u.Family()]; ok {
		return s, nil
	}
	return nil, &Error{Op: op, URI: u, Err: fmt.Errorf("%w (scheme %q)", ErrScheme, u.Scheme())}
}

// Stat implements [Store].
func (m Mux) Stat(ctx context.Context, u URI) (Object, error) {
	s, err := m.store("stat", u)
	if err != nil {
		return Object{}, err
	}
	return s.Stat(ctx, u)
}

// Open implements [Store].
func (m Mux) Open(ctx context.Context, u URI) (io.ReadCloser, Object, error) {
	s, err := m.store("open", u)
	if err != nil {
		return nil, Object{}, err
	}
	return s.Open(ctx, u)
}

// List implements [Store].
func (m Mux) List(ctx context.Context, dir URI, opts ListOptions) iter.Seq2[Object, error] {
	s, err := m.store("list", dir)
	if err != nil {
		return func(yield func(Object, error) bool) { yield(Object{}, err) }
	}
	return s.List(ctx, dir, opts)
}

// Put implements [Store].
func (m Mux) Put(ctx context.Context, u URI, body io.Reader, opts PutOptions) (Object, error) {
	s, err := m.store("put", u)
	if err != nil {
		return Object{}, err
	}
	return s.Put(ctx, u, body, opts)
}

// Copy implements [Store].
func (m Mux) Copy(ctx context.Context, dst, src URI) (Object, error) {
	if to, ok := m[dst.Family()]; ok && src.Family() == dst.Family() {
		return to.Copy(ctx, dst, src)
	}
	obj, err := m.stream(ctx, dst, src)
	if err != nil { // which says by itself what side it was
		return Object{}, &Error{Op: "copy", URI: dst, Src: src, Err: err}
	}
	return obj, nil
}

// streamTries is how often a source is read from its beginning when reading it
// breaks off.
const streamTries = 3

func (m Mux) stream(ctx context.Context, dst, src URI) (Object, error) {
	for try := 1; ; try++ {
		r, from, err := m.Open(ctx, src)
		if err != nil {
			return Object{}, err
		}
		s := &source{ReadCloser: r, uri: src, size: from.Size}
		obj, err := m.put(ctx, dst, s.body())
		r.Close()
		if err == nil || !s.broke.Load() || ctx.Err() != nil || try == streamTries {
			return obj, err
		}
	}
}

// put takes in a copy, which may become durable later than what is Put.
func (m Mux) put(ctx context.Context, dst URI, body io.Reader) (Object, error) {
	if f, ok := m[dst.Family()].(*File); ok {
		return f.takeIn(ctx, dst, body)
	}
	return m.Put(ctx, dst, body, PutOptions{})
}

// Delete implements [Store].
func (m Mux) Delete(ctx context.Context, u URI) error {
	s, err := m.store("delete", u)
	if err != nil {
		return err
	}
	return s.Delete(ctx, u)
}

// Mount implements [Mounter] for the stores that do.
func (m Mux) Mount(ctx context.Context, u URI) (string, error) {
	s, err := m.store("stat", u)
	if err != nil {
		return "", err
	}
	if volumes, ok := s.(Mounter); ok {
		return volumes.Mount(ctx, u)
	}
	return "", nil
}
