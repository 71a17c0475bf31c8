package blobstore_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/storetest"
)

func newMux() blobstore.Mux {
	return blobstore.Mux{
		blobstore.FamilyFile:   blobstore.NewFile(),
		blobstore.FamilyMemory: blobstore.NewMemory(),
	}
}

// A Mux keeps what its stores promise.
func TestMuxOnVolume(t *testing.T) {
	t.Parallel()
	storetest.Run(t, onVolume(newMux()), storetest.Options{NameOrFolder: true, Objects: 100})
}

func TestMuxInMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) (blobstore.Store, blobstore.URI) {
		return newMux(), blobstore.MustParse("mem://test/root")
	}, storetest.Options{})
}

func TestMuxCopiesBetweenStores(t *testing.T) {
	volume, memory := folder(t), blobstore.MustParse("mem://test/root")
	for name, c := range map[string]struct{ from, to blobstore.URI }{
		"to memory": {volume, memory},
		"to volume": {memory, volume.Join("copies")},
	} {
		t.Run(name, func(t *testing.T) {
			mux := newMux()
			for _, content := range []string{"", "content", strings.Repeat("long", 500_000)} {
				put(t, mux, c.from.Join("source"), content)
				obj, err := mux.Copy(t.Context(), c.to.Join("target"), c.from.Join("source"))
				require.NoError(t, err)
				assert.Equal(t, c.to.Join("target"), obj.URI)
				assert.EqualValues(t, len(content), obj.Size)
				assert.True(t, content == read(t, mux, c.to.Join("target")), "%d bytes", len(content))
				assert.True(t, content == read(t, mux, c.from.Join("source")), "the source stays")
			}

			_, err := mux.Copy(t.Context(), c.to.Join("target"), c.from.Join("nothing"))
			require.ErrorIs(t, err, blobstore.ErrNotExist)
			var e *blobstore.Error
			require.ErrorAs(t, err, &e)
			assert.Equal(t, "copy", e.Op)
			assert.Equal(t, c.to.Join("target"), e.URI)
			assert.Equal(t, c.from.Join("nothing"), e.Src)
			assert.ErrorContains(t, err, "open "+c.from.Join("nothing").String(), "the side that failed")
			assert.NotEmpty(t, read(t, mux, c.to.Join("target")), "the old copy stays")
		})
	}
}

// A service that does not know the size of the source is no obstacle.
func TestMuxCopiesUnknownSizes(t *testing.T) {
	mux := newMux()
	mux[blobstore.FamilyMemory] = sizeless{mux[blobstore.FamilyMemory]}
	source, target := blobstore.MustParse("mem://test/source"), folder(t).Join("target")
	put(t, mux, source, "content")
	obj, err := mux.Copy(t.Context(), target, source)
	require.NoError(t, err)
	assert.EqualValues(t, len("content"), obj.Size)
	assert.Equal(t, "content", read(t, mux, target))
}

func TestMuxKnowsSchemesByFamily(t *testing.T) {
	mux := blobstore.Mux{blobstore.FamilyS3: blobstore.NewMemory()}
	put(t, mux, blobstore.MustParse("s3a://bucket/a"), "x")
	assert.Equal(t, "x", read(t, mux, blobstore.MustParse("s3p://bucket/a")))
}

func TestMuxWithoutAStoreForTheScheme(t *testing.T) {
	ctx := t.Context()
	mux := blobstore.Mux{blobstore.FamilyMemory: blobstore.NewMemory()}
	known, unknown := blobstore.MustParse("mem://test/a"), blobstore.MustParse("gs://bucket/a")
	put(t, mux, known, "x")

	errs := map[string]error{}
	_, errs["stat"] = mux.Stat(ctx, unknown)
	_, _, errs["open"] = mux.Open(ctx, unknown)
	for _, err := range mux.List(ctx, unknown, blobstore.ListOptions{}) {
		require.Nil(t, errs["list"], "one error, and the end")
		errs["list"] = err
	}
	_, errs["put"] = mux.Put(ctx, unknown, strings.NewReader("x"), blobstore.PutOptions{})
	_, errs["copy"] = mux.Copy(ctx, unknown, known)
	errs["delete"] = mux.Delete(ctx, unknown)
	for op, err := range errs {
		require.ErrorIs(t, err, blobstore.ErrScheme, op)
		assert.ErrorContains(t, err, op+" gs://bucket/a")
		assert.ErrorContains(t, err, `scheme "gs"`, op)
	}
	assert.Len(t, errs, 6)

	for _, c := range [][2]blobstore.URI{{known, unknown}, {unknown, unknown}} {
		_, err := mux.Copy(ctx, c[0], c[1])
		require.ErrorIs(t, err, blobstore.ErrScheme)
		assert.ErrorContains(t, err, "copy "+c[0].String()+" from "+c[1].String())
	}
	assert.Equal(t, "x", read(t, mux, known))
}
