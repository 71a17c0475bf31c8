package storetest

import (
	"fmt"
	"io"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

var reading = []promise{
	{"a missing object is ErrNotExist", func(s *suite) {
		s.lacks("nothing")
		s.lacks("no/folder/either")
	}},
	{"a folder is no object", func(s *suite) {
		s.put("folder/sub/object", "x")
		s.lacks("folder")
		s.lacks("folder/sub")
	}},
	{"nothing lies below an object", func(s *suite) {
		s.put("object", "x")
		s.lacks("object/below")
	}},
	{"both describe the object alike", func(s *suite) {
		s.put("folder/object", "content")
		stat := s.stat("folder/object")
		_, opened := s.open("folder/object")
		assert.Equal(s, s.at("folder/object"), stat.URI)
		assert.Equal(s, s.at("folder/object"), opened.URI)
		assert.False(s, stat.Dir)
		assert.False(s, opened.Dir)
		assert.EqualValues(s, len("content"), stat.Size)
		assert.EqualValues(s, len("content"), opened.Size)
		s.sameTag(stat, opened)
		assertSameTime(s, stat, opened)
	}},
	{"an opened object stays readable when another replaces it", func(s *suite) {
		s.put("object", "old")
		r, obj, err := s.store.Open(s.Context(), s.at("object"))
		require.NoError(s, err)
		defer r.Close()
		s.put("object", "newer")
		got, err := io.ReadAll(r)
		require.NoError(s, err)
		assert.Equal(s, "old", string(got))
		assert.EqualValues(s, len("old"), obj.Size)
	}},
}

// assertSameTime compares times of one object. A service may give some of them
// in whole seconds.
func assertSameTime(s *suite, a, b blobstore.Object) {
	s.Helper()
	assert.False(s, a.ModTime.IsZero())
	assert.WithinDuration(s, a.ModTime, b.ModTime, time.Second)
}

var listing = []promise{
	{"recursive: all objects below, no folders", func(s *suite) {
		s.put("top", "x")
		s.put("a/one", "x")
		s.put("a/b/two", "x")
		s.put("c/three", "x")
		assert.Equal(s, []string{"a/b/two", "a/one", "c/three", "top"}, s.all(""))
		assert.Equal(s, []string{"b/two", "one"}, s.all("a"))
		assert.Equal(s, []string{"two"}, s.all("a/b"))
	}},
	{"shallow: objects and folders directly in it", func(s *suite) {
		s.put("top", "x")
		s.put("a/one", "x")
		s.put("a/two", "x")
		s.put("a/b/three", "x")
		s.put("c/d/four", "x")
		assert.Equal(s, []string{"a/", "c/", "top"}, s.shallow(""))
		assert.Equal(s, []string{"b/", "one", "two"}, s.shallow("a"))
		assert.Equal(s, []string{"d/"}, s.shallow("c"))
	}},
	{"it describes objects as Stat does", func(s *suite) {
		s.put("folder/object", "content")
		stat := s.stat("folder/object")
		for _, opts := range []blobstore.ListOptions{{}, {Shallow: true}} {
			found := s.list("folder", opts)
			require.Len(s, found, 1)
			assert.Equal(s, stat.URI.String(), found[0].URI.String(), "spelled like the folder")
			assert.False(s, found[0].Dir)
			assert.EqualValues(s, len("content"), found[0].Size)
			s.sameTag(stat, found[0])
			assertSameTime(s, stat, found[0])
		}
	}},
	{"a missing folder is empty", func(s *suite) {
		s.put("object", "x")
		assert.Empty(s, s.all("nothing"))
		assert.Empty(s, s.shallow("nothing"))
		assert.Empty(s, s.all("no/such/folder"))
	}},
	{"nothing lies below an object, not even itself", func(s *suite) {
		s.put("object", "x")
		assert.Empty(s, s.all("object"))
		assert.Empty(s, s.shallow("object"))
		assert.Empty(s, s.all("object/below"))
	}},
	{"a folder is more than the beginning of a name", func(s *suite) {
		s.put("a/b/inside", "x")
		s.put("a/bc", "x")
		s.put("a/b.c", "x")
		s.put("a/b-c/inside", "x")
		assert.Equal(s, []string{"inside"}, s.all("a/b"))
		assert.Equal(s, []string{"inside"}, s.shallow("a/b"))
		assert.Empty(s, s.all("a/b-"))
		assert.Equal(s, []string{"b/", "b-c/", "b.c", "bc"}, s.shallow("a"))
	}},
	{"a caller may stop early, and start again", func(s *suite) {
		for i := range 5 {
			s.put(fmt.Sprintf("folder/%d/object", i), "x")
		}
		for _, opts := range []blobstore.ListOptions{{}, {Shallow: true}} {
			seq := s.store.List(s.Context(), s.root.Join("folder"), opts)
			count := func(stop int) (n int) {
				for _, err := range seq {
					require.NoError(s, err)
					if n++; n == stop {
						break
					}
				}
				return n
			}
			assert.Equal(s, 2, count(2))
			assert.Equal(s, 5, count(0))
		}
	}},
	{"many objects, each once", func(s *suite) {
		name := func(i int) string { return fmt.Sprintf("folder/%02d/%05d", i%16, i) }
		var g errgroup.Group
		g.SetLimit(32)
		for i := range s.opts.Objects {
			g.Go(func() error {
				_, err := s.tryPut(name(i), name(i), blobstore.PutOptions{})
				return err
			})
		}
		require.NoError(s, g.Wait())

		want := map[string]bool{}
		for i := range s.opts.Objects {
			want[s.at(name(i)).String()] = true
		}
		got := map[string]bool{}
		for _, obj := range s.list("folder", blobstore.ListOptions{}) {
			assert.False(s, got[obj.URI.String()], "%s twice", obj.URI)
			assert.EqualValues(s, len(name(0)), obj.Size)
			got[obj.URI.String()] = true
		}
		assert.Equal(s, want, got)
		assert.Len(s, s.shallow("folder"), min(16, s.opts.Objects))
	}},
	{"many objects in one folder, each once", func(s *suite) {
		s.put("source", "x")
		var g errgroup.Group
		g.SetLimit(32)
		for i := range s.opts.Objects {
			g.Go(func() error {
				_, err := s.store.Copy(s.Context(), s.at(fmt.Sprintf("folder/%05d", i)), s.at("source"))
				return err
			})
		}
		require.NoError(s, g.Wait())
		for _, names := range [][]string{s.all("folder"), s.shallow("folder")} {
			require.Len(s, names, s.opts.Objects)
			for i, name := range names {
				assert.Equal(s, fmt.Sprintf("%05d", i), name)
			}
		}
	}},
}
