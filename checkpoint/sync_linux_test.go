package checkpoint

import (
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/storetest/volumes"
)

// overheard is a store on a volume that notes what its writes tell the kernel.
type overheard struct {
	*blobstore.File
	mu    sync.Mutex
	calls []string // "fsync NAME", "link FROM TO" or "rename FROM TO", those of one write together
}

func (o *overheard) note(write func()) {
	calls := volumes.Calls(write)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls = append(o.calls, calls...)
}

func (o *overheard) Put(ctx context.Context, u blobstore.URI, body io.Reader, opts blobstore.PutOptions) (obj blobstore.Object, err error) {
	o.note(func() { obj, err = o.File.Put(ctx, u, body, opts) })
	return obj, err
}

func (o *overheard) Copy(ctx context.Context, dst, src blobstore.URI) (obj blobstore.Object, err error) {
	o.note(func() { obj, err = o.File.Copy(ctx, dst, src) })
	return obj, err
}

// After a power failure the constant path must not name what was still in
// memory: every state file, its name, and the generation are durable before
// last-state/_metadata is replaced, and its own name before the tick goes on.
func TestEverythingIsDurableBeforeThePublish(t *testing.T) {
	linksAndCopies(t, func(t *testing.T, noLinks bool) {
		job, app := newVolume(t, rocksdb, noLinks)
		store := &overheard{File: &blobstore.File{NoLinks: noLinks}}
		job.store = store
		job.completes(rocksdb.id)
		p := job.pins(app, PinOptions{})
		job.completes(rocksdb.id + 1)
		store.calls = nil // the second is published by a rename, as all later ones
		q := job.pins(app, PinOptions{})
		require.Equal(t, ResultPinned, q.Result)
		require.Positive(t, q.Copied)
		require.NotEqual(t, p.Generation, q.Generation)

		var named, synced []string // what came before the publish
		published := false
		for i, call := range store.calls {
			verb, rest, _ := strings.Cut(call, " ")
			from, to, _ := strings.Cut(rest, " ")
			switch {
			case verb == "fsync":
				synced = append(synced, from)
			case verb == "rename" && to == MetadataName && store.calls[i+1] == "fsync last-state":
				published = true
				require.Contains(t, synced, from, "the bytes of what is published")
				require.Contains(t, synced, "state", "the names of the copies")
				require.Contains(t, synced, q.Generation, "the name of the generation")
				require.Len(t, named, q.Copied)
			case verb == "rename" && !published && len(to) == 40:
				// The bytes are those of a temporary file, or of the source it is a link to.
				written := from
				if link := slices.IndexFunc(store.calls, func(c string) bool { return strings.HasSuffix(c, " "+from) && strings.HasPrefix(c, "link ") }); link >= 0 {
					written = strings.Fields(store.calls[link])[1]
				}
				require.Contains(t, synced, written, "the bytes of %s", to)
				named = append(named, to)
			}
		}
		require.True(t, published, "%q", store.calls)
	})
}
