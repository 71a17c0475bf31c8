package s3store

import (
	"bytes"
	"context"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"
)

// sectionParts is how many times larger the parts of a body are that needs no
// memory.
const sectionParts = 8

// sizedReaderAt is a body that need not be kept in memory to be sent, and sent
// again.
type sizedReaderAt interface {
	io.ReaderAt
	Size() int64
}

// perPart is the least size of a part with which a body of this size has no more
// parts than S3 allows.
func perPart(size int64) int64 { return (size + maxParts - 1) / maxParts }

// parts cuts a body into parts: one that can be read anywhere, or a stream.
type parts struct {
	at     io.ReaderAt // nil for a stream
	stream io.Reader
	size   int64 // -1 when unknown, which only a stream's may be
	each   int64 // the size of a part
	memory *memory

	offset int64
	over   bool  // the stream ended
	first  *part // read already
}

// part is sent and then released. At the end of the body its size is 0.
type part struct {
	body    io.ReadSeeker
	size    int64
	release func()
}

func (p *parts) next(ctx context.Context) (*part, error) {
	if first := p.first; first != nil {
		p.first = nil
		return first, nil
	}
	if p.at != nil {
		n := min(p.each, p.size-p.offset)
		p.offset += n
		return &part{io.NewSectionReader(p.at, p.offset-n, n), n, func() {}}, nil
	}
	if p.over {
		return &part{bytes.NewReader(nil), 0, func() {}}, nil
	}
	want := p.each
	if p.size >= 0 {
		want = min(want, p.size-p.offset)
	}
	buffer, release, err := p.memory.take(ctx, want)
	if err != nil {
		return nil, err
	}
	n, err := fill(buffer, p.stream)
	p.offset += n
	switch {
	case err == io.EOF && p.size < 0:
		p.over = true
	case err == io.EOF && p.offset < p.size:
		err = io.ErrUnexpectedEOF
		fallthrough
	case err != nil && err != io.EOF:
		release()
		return nil, err
	}
	p.over = p.over || p.offset == p.size
	return &part{bytes.NewReader(buffer[:n]), n, release}, nil
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
// part may be larger: of a body of more than 80 GB.
const uploadMemory = 32 << 20

// memory is what all streams of a store share.
type memory struct {
	limit int64
	used  *semaphore.Weighted
}

func newMemory(limit int64) *memory { return &memory{limit, semaphore.NewWeighted(limit)} }

// take waits until n bytes are free. More than all there is waits for all. The
// bytes may be released more than once.
func (m *memory) take(ctx context.Context, n int64) ([]byte, func(), error) {
	weight := min(n, m.limit)
	if err := m.used.Acquire(ctx, weight); err != nil {
		return nil, nil, context.Cause(ctx)
	}
	return make([]byte, n), sync.OnceFunc(func() { m.used.Release(weight) }), nil
}
