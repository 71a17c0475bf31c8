package checkpoint

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// An application and its replica, in this order.
func TestResolveFirst(t *testing.T) {
	replica := blobstore.MustParse("s3://elsewhere/orders")
	apps := []blobstore.URI{app, replica}
	build := func(here, there []int64) *lab {
		x := newLab(t)
		for _, pin := range []struct {
			app blobstore.URI
			ids []int64
		}{{app, here}, {replica, there}} {
			for _, id := range pin.ids {
				x.job.completes(id)
				x.job.pins(pin.app, PinOptions{})
			}
		}
		return x
	}
	first := func(x *lab, opts ResolveOptions) (Resolved, error) {
		return ResolveFirst(t.Context(), x.store, apps, opts)
	}

	r, err := first(build([]int64{4, 5}, []int64{5}), ResolveOptions{})
	require.NoError(t, err)
	require.Equal(t, app, r.App)
	require.Empty(t, r.Warnings)
	require.Empty(t, r.Candidates)

	r, err = first(build([]int64{4}, []int64{5}), ResolveOptions{})
	require.NoError(t, err)
	require.Equal(t, app, r.App, "the order wins")
	require.Equal(t, []string{"s3://elsewhere/orders holds something newer: checkpoint 5 of job " + r.JobID}, r.Warnings)

	x := build([]int64{4}, []int64{5})
	deleteBelow(t, x.store, LayoutOf(app).State)
	r, err = first(x, ResolveOptions{Strict: true})
	require.NoError(t, err)
	require.Equal(t, replica, r.App)
	require.Equal(t, app, r.Candidates[0].URI)
	require.Contains(t, r.Candidates[0].Why, "does not restore")

	// Too old here is not too old there.
	r, err = first(build([]int64{4}, []int64{5}), ResolveOptions{MaxAge: time.Minute, Now: func() time.Time { return epoch.Add(6 * time.Minute) }})
	require.NoError(t, err)
	require.Equal(t, replica, r.App)

	// A first start is one only if all say so.
	_, err = first(build(nil, nil), ResolveOptions{})
	require.ErrorIs(t, err, ErrNoPin)
	require.ErrorContains(t, err, "s3://lake/pins/orders, s3://elsewhere/orders")
	r, err = first(build(nil, []int64{4}), ResolveOptions{})
	require.NoError(t, err)
	require.Equal(t, replica, r.App)

	for _, there := range [][]int64{nil, {4}} {
		x = build([]int64{4}, there)
		deleteBelow(t, x.store, LayoutOf(app).State)
		deleteBelow(t, x.store, LayoutOf(replica).State)
		r, err = first(x, ResolveOptions{})
		require.True(t, as[*NoneRestoresError](err))
		require.True(t, as[*DamagedError](err))
		require.NotErrorIs(t, err, ErrNoPin)
		require.True(t, r.Path.IsZero())
		require.NotEmpty(t, r.Candidates)
	}
}

// Storage that does not answer is tried, told of, and no first start.
func TestResolveFirstUnreachable(t *testing.T) {
	x := newLab(t, 4)
	gone := blobstore.MustParse("s3://gone/orders")
	store := hook(x.store, func(op string, u blobstore.URI, do func() error) error {
		if u.Container() == gone.Container() {
			return &blobstore.Error{Op: op, URI: u, Err: blobstore.ErrContainer}
		}
		return do()
	})
	r, err := ResolveFirst(t.Context(), store, []blobstore.URI{gone, app}, ResolveOptions{})
	require.NoError(t, err)
	require.Equal(t, app, r.App)
	r, err = ResolveFirst(t.Context(), store, []blobstore.URI{app, gone}, ResolveOptions{})
	require.NoError(t, err)
	require.Empty(t, r.Warnings, "what was not needed was not to be reached")
	_, err = ResolveFirst(t.Context(), store, []blobstore.URI{gone, app.Dir().Join("new")}, ResolveOptions{})
	require.ErrorIs(t, err, blobstore.ErrContainer)
	require.NotErrorIs(t, err, ErrNoPin)
}

// silent is a store of which one bucket never answers.
type silent struct {
	blobstore.Store
	bucket string
}

func (s silent) Open(ctx context.Context, u blobstore.URI) (io.ReadCloser, blobstore.Object, error) {
	if u.Container() == s.bucket {
		<-ctx.Done()
		return nil, blobstore.Object{}, &blobstore.Error{Op: "open", URI: u, Err: ctx.Err()}
	}
	return s.Store.Open(ctx, u)
}

func TestResolveFirstDoesNotWaitForEver(t *testing.T) {
	x := newLab(t, 4)
	gone := blobstore.MustParse("s3://gone/orders")
	synctest.Test(t, func(t *testing.T) {
		r, err := ResolveFirst(t.Context(), silent{x.store, "gone"}, []blobstore.URI{gone, app}, ResolveOptions{Timeout: time.Minute})
		require.NoError(t, err)
		require.Equal(t, app, r.App)
		require.Equal(t, gone, r.Candidates[0].URI)
	})
}
