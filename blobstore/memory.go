package blobstore

import (
	"bytes"
	"context"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Memory is a store in memory, for tests and examples: mem://name/key, or any
// other scheme, since it looks only at the identity of a URI. The zero Memory
// is an empty store.
type Memory struct {
	// Now is the store's clock; nil means time.Now. Set it before first use.
	Now func() time.Time

	mu      sync.Mutex
	objects map[string]memoryObject // by Canonical
	writes  int
}

type memoryObject struct {
	Object
	data []byte // never changed in place
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{} }

func (m *Memory) get(ctx context.Context, op string, u URI) (memoryObject, error) {
	if err := ctx.Err(); err != nil {
		return memoryObject{}, &Error{Op: op, URI: u, Err: err}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[u.Canonical()]
	if !ok {
		return o, &Error{Op: op, URI: u, Err: ErrNotExist}
	}
	o.URI = u
	return o, nil
}

// Stat implements [Store].
func (m *Memory) Stat(ctx context.Context, u URI) (Object, error) {
	o, err := m.get(ctx, "stat", u)
	return o.Object, err
}

// Open implements [Store].
func (m *Memory) Open(ctx context.Context, u URI) (io.ReadCloser, Object, error) {
	o, err := m.get(ctx, "open", u)
	if err != nil {
		return nil, Object{}, err
	}
	return io.NopCloser(bytes.NewReader(o.data)), o.Object, nil
}

// List implements [Store], in the order of names.
func (m *Memory) List(ctx context.Context, dir URI, opts ListOptions) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		found := m.below(dir, opts)
		for i := 0; ; i++ {
			if err := ctx.Err(); err != nil {
				yield(Object{}, &Error{Op: "list", URI: dir, Err: err})
				return
			}
			if i == len(found) || !yield(found[i], nil) {
				return
			}
		}
	}
}

func (m *Memory) below(dir URI, opts ListOptions) []Object {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := map[string]bool{}
	var found []Object
	for _, o := range m.objects {
		rel, ok := o.URI.Rel(dir)
		if !ok || rel == "" {
			continue
		}
		obj := o.Object
		obj.URI = dir.Join(rel)
		if folder, _, below := strings.Cut(rel, "/"); below && opts.Shallow {
			if seen[folder] {
				continue
			}
			seen[folder] = true
			obj = Object{URI: dir.Join(folder), Dir: true}
		}
		found = append(found, obj)
	}
	slices.SortFunc(found, func(a, b Object) int { return strings.Compare(a.URI.Path(), b.URI.Path()) })
	return found
}

// Put implements [Store].
func (m *Memory) Put(ctx context.Context, u URI, body io.Reader, opts PutOptions) (Object, error) {
	data, err := io.ReadAll(&ctxReader{ctx, body})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return Object{}, &Error{Op: "put", URI: u, Err: err}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old, exists := m.objects[u.Canonical()]
	if opts.IfAbsent && exists || opts.IfTag != "" && (!exists || old.Tag != opts.IfTag) {
		return Object{}, &Error{Op: "put", URI: u, Err: ErrPrecondition}
	}
	return m.store(u, data), nil
}

// Copy implements [Store].
func (m *Memory) Copy(ctx context.Context, dst, src URI) (Object, error) {
	o, err := m.get(ctx, "copy", src)
	if err != nil {
		return Object{}, &Error{Op: "copy", URI: dst, Src: src, Err: err.(*Error).Err}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.store(dst, o.data), nil
}

// store takes an object in; the lock is held.
func (m *Memory) store(u URI, data []byte) Object {
	now := time.Now
	if m.Now != nil {
		now = m.Now
	}
	if m.objects == nil {
		m.objects = map[string]memoryObject{}
	}
	m.writes++
	obj := Object{URI: u, Size: int64(len(data)), ModTime: now(), Tag: strconv.Itoa(m.writes)}
	m.objects[u.Canonical()] = memoryObject{Object: obj, data: data}
	return obj
}

// Delete implements [Store].
func (m *Memory) Delete(ctx context.Context, u URI) error {
	if err := ctx.Err(); err != nil {
		return &Error{Op: "delete", URI: u, Err: err}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, u.Canonical())
	return nil
}
