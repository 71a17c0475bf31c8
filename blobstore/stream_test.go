package blobstore_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// breaking is a store whose objects break off in the middle, some times.
type breaking struct {
	blobstore.Store
	times atomic.Int32 // left
	how   error
}

func (b *breaking) Open(ctx context.Context, u blobstore.URI) (io.ReadCloser, blobstore.Object, error) {
	r, obj, err := b.Store.Open(ctx, u)
	if err != nil || b.times.Add(-1) < 0 {
		return r, obj, err
	}
	half := io.LimitReader(r, obj.Size/2)
	return io.NopCloser(io.MultiReader(half, errorReader{b.how})), obj, nil
}

type errorReader struct{ err error }

func (e errorReader) Read([]byte) (int, error) { return 0, e.err }

// A source that breaks off is read again, and never leaves half a copy: an end
// that comes early is no end.
func TestStreamsOfSourcesThatBreakOff(t *testing.T) {
	for _, how := range []error{errors.New("connection reset"), io.ErrUnexpectedEOF, io.EOF} {
		for _, times := range []int32{2, 3} {
			source := &breaking{Store: blobstore.NewMemory(), how: how}
			mux := blobstore.Mux{blobstore.FamilyMemory: source, blobstore.FamilyFile: blobstore.NewFile()}
			from, to := blobstore.MustParse("mem://test/source"), folder(t).Join("target")
			content := strings.Repeat("content", 1000)
			put(t, mux, from, content)
			put(t, mux, to, "old")
			source.times.Store(times)
			_, err := mux.Copy(t.Context(), to, from)
			if times == 2 {
				require.NoError(t, err)
				assert.Equal(t, content, read(t, mux, to))
				continue
			}
			require.ErrorContains(t, err, "read mem://test/source: ", "the side that failed")
			assert.Equal(t, "old", read(t, mux, to))
		}
	}
}

// cutting is a volume whose files lose their end when they are opened.
type cutting struct{ *blobstore.File }

func (c cutting) Open(ctx context.Context, u blobstore.URI) (io.ReadCloser, blobstore.Object, error) {
	r, obj, err := c.File.Open(ctx, u)
	if err == nil {
		err = os.Truncate(u.Path(), obj.Size-1)
	}
	return r, obj, err
}

func TestStreamOfAFileThatShrinks(t *testing.T) {
	mux := blobstore.Mux{blobstore.FamilyMemory: blobstore.NewMemory(), blobstore.FamilyFile: cutting{blobstore.NewFile()}}
	from, to := folder(t).Join("source"), blobstore.MustParse("mem://test/target")
	put(t, mux, from, "a content that is long enough to be cut")
	_, err := mux.Copy(t.Context(), to, from)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	_, err = mux.Stat(t.Context(), to)
	require.ErrorIs(t, err, blobstore.ErrNotExist)
}

// growing is a volume whose files grow when they are opened, as merged files do.
type growing struct{ *blobstore.File }

func (g growing) Open(ctx context.Context, u blobstore.URI) (io.ReadCloser, blobstore.Object, error) {
	r, obj, err := g.File.Open(ctx, u)
	if err != nil {
		return r, obj, err
	}
	file, err := os.OpenFile(u.Path(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, obj, err
	}
	defer file.Close()
	_, err = file.WriteString("more")
	return r, obj, err
}

// A copy is what the source was when it was opened.
func TestStreamOfAFileThatGrows(t *testing.T) {
	mux := blobstore.Mux{blobstore.FamilyMemory: blobstore.NewMemory(), blobstore.FamilyFile: growing{blobstore.NewFile()}}
	from, to := folder(t).Join("source"), blobstore.MustParse("mem://test/target")
	put(t, mux, from, "content")
	obj, err := mux.Copy(t.Context(), to, from)
	require.NoError(t, err)
	assert.EqualValues(t, len("content"), obj.Size)
	assert.Equal(t, "content", read(t, mux, to))
}
