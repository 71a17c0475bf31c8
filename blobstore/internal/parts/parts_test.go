package parts

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Parts are the body, whatever its length and whether it says so.
func TestPartsAreTheBody(t *testing.T) {
	for _, length := range []int64{0, 1, 9, 10, 11, 20, 25} {
		body := make([]byte, length)
		rand.Read(body)
		for name, p := range map[string]*Parts{
			"a section":                   {At: bytes.NewReader(body), Size: length},
			"a stream":                    {Stream: bytes.NewReader(body), Size: length},
			"a stream of unknown size":    {Stream: bytes.NewReader(body), Size: -1},
			"a stream that comes in bits": {Stream: io.MultiReader(bytes.NewReader(body[:length/3]), bytes.NewReader(body[length/3:])), Size: length},
		} {
			p.Each, p.Memory = 10, memoryOf(20)
			var got []byte
			for {
				part, err := p.Next(t.Context())
				require.NoError(t, err)
				data, err := io.ReadAll(part.Body)
				require.NoError(t, err)
				assert.EqualValues(t, part.Size, len(data))
				assert.LessOrEqual(t, part.Size, p.Each)
				part.Release()
				if part.Size == 0 {
					break
				}
				got = append(got, data...)
			}
			assert.True(t, bytes.Equal(body, got), "%s of %d bytes", name, length)
		}
	}
}

func TestPartsOfAStreamThatIsShorterThanItSaid(t *testing.T) {
	p := &Parts{Stream: bytes.NewReader(make([]byte, 15)), Size: 16, Each: 10, Memory: memoryOf(10)}
	first, err := p.Next(t.Context())
	require.NoError(t, err)
	first.Release()
	_, err = p.Next(t.Context())
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	_, release, err := p.Memory.take(t.Context(), 10)
	require.NoError(t, err, "it gave back what it had taken")
	release()
}

// The largest object of S3 still fits into the parts it allows.
func TestPartsOfTheLargestObject(t *testing.T) {
	const largest, most = 5 << 40, 10_000
	each := Least(largest, most)
	assert.LessOrEqual(t, (largest+each-1)/each, int64(most))
}

// However many streams there are, all together take no more memory than there is.
func TestStreamsShareTheirMemory(t *testing.T) {
	const each, limit = 1 << 10, 4 << 10
	m := memoryOf(limit)
	var used, most atomic.Int64
	var streams sync.WaitGroup
	for range 50 {
		streams.Go(func() {
			for range 20 {
				_, release, err := m.take(t.Context(), each)
				if !assert.NoError(t, err) {
					return
				}
				now := used.Add(each)
				for {
					before := most.Load()
					if now <= before || most.CompareAndSwap(before, now) {
						break
					}
				}
				used.Add(-each)
				release()
				release() // twice is once
			}
		})
	}
	streams.Wait()
	assert.LessOrEqual(t, most.Load(), int64(limit))

	_, release, err := m.take(t.Context(), 10*limit)
	require.NoError(t, err, "more than there is waits for all")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrClosedPipe)
	_, _, err = m.take(ctx, 1)
	require.ErrorIs(t, err, io.ErrClosedPipe)
	release()
}

// Parts of one size take turns with the same memory, so that no garbage is
// collected while gigabytes pass.
func TestMemoryIsUsedAgain(t *testing.T) {
	m := memoryOf(20)
	take := func(n int64) (*byte, func()) {
		b, release, err := m.take(t.Context(), n)
		require.NoError(t, err)
		require.Len(t, b, int(n))
		return &b[0], release
	}
	a, releaseA := take(10)
	b, releaseB := take(10)
	assert.NotSame(t, a, b)
	releaseA()
	c, releaseC := take(10)
	assert.Same(t, a, c)
	releaseB()
	releaseC()
	_, release := take(15)
	assert.Empty(t, m.free, "what does not fit is not kept")
	release()
}
