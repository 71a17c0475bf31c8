package deploy

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// lossy is a store that loses the answers to its next Puts; who tries again is
// told that the condition is not met.
type lossy struct {
	*blobstore.Memory
	lose int
}

func (s *lossy) Put(ctx context.Context, u blobstore.URI, body io.Reader, opts blobstore.PutOptions) (blobstore.Object, error) {
	obj, err := s.Memory.Put(ctx, u, body, opts)
	if err == nil && s.lose > 0 {
		s.lose--
		return blobstore.Object{}, &blobstore.Error{Op: "put", URI: u, Err: fmt.Errorf("%w: 412", blobstore.ErrPrecondition)}
	}
	return obj, err
}

// A claim whose own write is answered by nobody is not another's.
func TestLostAnswersOfAClaim(t *testing.T) {
	store := &lossy{Memory: blobstore.NewMemory()}
	d := &Deployer{Store: store, Manifests: blobstore.MustParse("s3://lake/manifests")}
	mine, err := d.readClaim(t.Context(), "orders")
	require.NoError(t, err)
	store.lose = 1
	require.NoError(t, mine.take(t.Context(), record{Run: "mine"}, 0))
	store.lose = 1
	require.NoError(t, mine.write(t.Context(), func(r *record) { r.Started = true }))
	require.NoError(t, mine.write(t.Context(), func(*record) {}))

	theirs, err := d.readClaim(t.Context(), "orders")
	require.NoError(t, err)
	require.True(t, theirs.record.Started)
	require.NoError(t, theirs.take(t.Context(), record{Run: "theirs"}, time.Nanosecond))
	require.ErrorIs(t, mine.write(t.Context(), func(*record) {}), ErrOtherDeploy)
}
