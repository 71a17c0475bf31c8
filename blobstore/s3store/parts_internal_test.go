package s3store

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
		for name, p := range map[string]*parts{
			"a section":                   {at: bytes.NewReader(body), size: length},
			"a stream":                    {stream: bytes.NewReader(body), size: length},
			"a stream of unknown size":    {stream: bytes.NewReader(body), size: -1},
			"a stream that comes in bits": {stream: io.MultiReader(bytes.NewReader(body[:length/3]), bytes.NewReader(body[length/3:])), size: length},
		} {
			p.each, p.memory = 10, newMemory(20)
			var got []byte
			for {
				part, err := p.next(t.Context())
				require.NoError(t, err)
				data, err := io.ReadAll(part.body)
				require.NoError(t, err)
				assert.EqualValues(t, part.size, len(data))
				assert.LessOrEqual(t, part.size, p.each)
				part.release()
				if part.size == 0 {
					break
				}
				got = append(got, data...)
			}
			assert.True(t, bytes.Equal(body, got), "%s of %d bytes", name, length)
		}
	}
}

func TestPartsOfAStreamThatIsShorterThanItSaid(t *testing.T) {
	p := &parts{stream: bytes.NewReader(make([]byte, 15)), size: 16, each: 10, memory: newMemory(10)}
	first, err := p.next(t.Context())
	require.NoError(t, err)
	first.release()
	_, err = p.next(t.Context())
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	_, release, err := p.memory.take(t.Context(), 10)
	require.NoError(t, err, "it gave back what it had taken")
	release()
}

// The largest object of S3 still fits into the parts it allows.
func TestPartsOfTheLargestObject(t *testing.T) {
	const largest = 5 << 40
	each := perPart(largest)
	assert.LessOrEqual(t, (largest+each-1)/each, int64(maxParts))
}

// However many streams there are, all together take no more memory than there is.
func TestStreamsShareTheirMemory(t *testing.T) {
	const each, limit = 1 << 10, 4 << 10
	m := newMemory(limit)
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
