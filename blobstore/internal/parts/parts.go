// Package parts cuts bodies into the parts in which a service takes large ones,
// within a bound of memory that all uploads of a store share.
package parts

import (
	"bytes"
	"context"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"
)

// Sectioned is a body that need not be kept in memory to be sent, and sent
// again.
type Sectioned interface {
	io.ReaderAt
	Size() int64
}

// SizeOf is how many bytes a body says that it has, -1 if it does not.
func SizeOf(body io.Reader) int64 {
	if b, ok := body.(interface{ Size() int64 }); ok {
		return b.Size()
	}
	return -1
}

// Least is the least size of a part with which a body of this size has no more
// than most parts.
func Least(size, most int64) int64 { return (size + most - 1) / most }

// Parts cuts a body: one that can be read anywhere, or a stream.
type Parts struct {
	At     io.ReaderAt // nil for a stream
	Stream io.Reader
	Size   int64 // -1 when unknown, which only a stream's may be
	Each   int64 // the size of a part
	Memory *Memory

	offset int64
	over   bool  // the stream ended
	first  *Part // read already
}

// Part is sent and then released. At the end of the body its size is 0.
type Part struct {
	Body    io.ReadSeeker
	Size    int64
	Release func()
}

// First reads the first part ahead, which Next then returns. whole says that it is
// all there is.
func (p *Parts) First(ctx context.Context) (first *Part, whole bool, err error) {
	p.first, err = p.Next(ctx)
	return p.first, p.over || p.offset == p.Size, err
}

// Next is the next part.
func (p *Parts) Next(ctx context.Context) (*Part, error) {
	if first := p.first; first != nil {
		p.first = nil
		return first, nil
	}
	if p.At != nil {
		n := min(p.Each, p.Size-p.offset)
		p.offset += n
		return &Part{io.NewSectionReader(p.At, p.offset-n, n), n, func() {}}, nil
	}
	if p.over {
		return &Part{bytes.NewReader(nil), 0, func() {}}, nil
	}
	want := p.Each
	if p.Size >= 0 {
		want = min(want, p.Size-p.offset)
	}
	buffer, release, err := p.Memory.take(ctx, want)
	if err != nil {
		return nil, err
	}
	n, err := fill(buffer, p.Stream)
	p.offset += n
	switch {
	case err == io.EOF && p.Size < 0:
		p.over = true
	case err == io.EOF && p.offset < p.Size:
		err = io.ErrUnexpectedEOF
		fallthrough
	case err != nil && err != io.EOF:
		release()
		return nil, err
	}
	p.over = p.over || p.offset == p.Size
	return &Part{bytes.NewReader(buffer[:n]), n, release}, nil
}

// fill reads until the buffer is full, or to the end: io.EOF. What io.ReadFull
// says of a body that ends in the buffer is also what a body says that was cut
// off.
func fill(buffer []byte, r io.Reader) (n int64, err error) {
	for err == nil && n < int64(len(buffer)) {
		var m int
		m, err = r.Read(buffer[n:])
		n += int64(m)
	}
	return n, err
}

// uploadMemory is what all bodies that stream may take together, except that one
// part may be larger: on S3 that of a body of more than 80 GB.
const uploadMemory = 32 << 20

// Memory is what all streams of a store share.
type Memory struct {
	limit int64
	used  *semaphore.Weighted

	mu   sync.Mutex
	free [][]byte // released: as garbage they would take as much memory again
}

// NewMemory is the memory of one store.
func NewMemory() *Memory { return memoryOf(uploadMemory) }

func memoryOf(limit int64) *Memory {
	return &Memory{limit: limit, used: semaphore.NewWeighted(limit)}
}

// take waits until n bytes are free. More than all there is waits for all. The
// bytes may be released more than once.
func (m *Memory) take(ctx context.Context, n int64) ([]byte, func(), error) {
	weight := min(n, m.limit)
	if err := m.used.Acquire(ctx, weight); err != nil {
		return nil, nil, context.Cause(ctx)
	}
	buffer := m.buffer(n)
	return buffer, sync.OnceFunc(func() {
		m.mu.Lock()
		m.free = append(m.free, buffer)
		m.mu.Unlock()
		m.used.Release(weight)
	}), nil
}

// buffer is one that was released, if that is as long; otherwise what was released
// is forgotten.
func (m *Memory) buffer(n int64) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last := len(m.free) - 1; last >= 0 && int64(len(m.free[last])) == n {
		buffer := m.free[last]
		m.free[last] = nil
		m.free = m.free[:last]
		return buffer
	}
	m.free = nil
	return make([]byte, n)
}
