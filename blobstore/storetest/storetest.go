// Package storetest is the contract of [blobstore.Store] as tests. Every store
// runs the same ones, and says what it cannot give in [Options]:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) (blobstore.Store, blobstore.URI) {
//			return blobstore.NewMemory(), blobstore.MustParse("mem://test/root")
//		}, storetest.Options{})
//	}
package storetest

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// Options says which guarantees a store does not give. The tests of those are
// left out. The zero Options asks for all of them.
type Options struct {
	NoIfAbsent bool // PutOptions.IfAbsent is not atomic, or not heeded
	NoIfTag    bool // PutOptions.IfTag is not atomic, or not heeded

	// NameOrFolder: where there is an object a, there can be no a/b, and the
	// other way round, as on volumes.
	NameOrFolder bool

	// NoPutBesideDelete: a Put can fail while a Delete empties its folder.
	NoPutBesideDelete bool

	// LooseTags: who reads an object that is replaced at that moment may be told
	// the tag of the other version.
	LooseTags bool

	// Breaks names promises, by their sentences, that the store is known to break.
	Breaks []string

	// Reader reaches the same objects by the same URIs with code of its own, and
	// must see what the store holds. It needs only Stat and Open; nil for none.
	Reader blobstore.Store

	// Objects is how many objects the long listing has; 0 means 2,500, more than
	// two pages of the services known.
	Objects int
}

// Run holds a store to the contract. For each subtest it calls open, which
// returns a store and a folder in it that holds nothing, and cleans up by means
// of t.
func Run(t *testing.T, open func(t *testing.T) (blobstore.Store, blobstore.URI), opts Options) {
	if opts.Objects == 0 {
		opts.Objects = 2500
	}
	var promised []string
	for _, part := range []struct {
		name     string
		promises []promise
	}{
		{"Stat and Open", reading},
		{"List", listing},
		{"Put", putting},
		{"Copy", copying},
		{"Delete", deleting},
		{"Names", naming},
		{"Folders", slices.Concat(folders, unless(opts.NameOrFolder, sharedNames))},
		{"Context", contexts},
		{"Concurrency", concurrency},
		{"IfAbsent", unless(opts.NoIfAbsent, slices.Concat(ifAbsent, ifAbsentRaces, unless(opts.NoPutBesideDelete, locks)))},
		{"IfTag", unless(opts.NoIfTag, slices.Concat(ifTag, ifTagRaces))},
	} {
		for _, p := range part.promises {
			promised = append(promised, p.says)
		}
		if len(part.promises) == 0 {
			continue
		}
		t.Run(part.name, func(t *testing.T) {
			for _, p := range part.promises {
				if slices.Contains(opts.Breaks, p.says) {
					continue
				}
				t.Run(p.says, func(t *testing.T) {
					store, root := open(t)
					p.test(&suite{T: t, store: store, root: root, opts: opts})
				})
			}
		})
	}
	for _, says := range opts.Breaks {
		assert.Contains(t, promised, says, "a promise that is said to be broken")
	}
}

// promise is one sentence of the contract.
type promise struct {
	says string
	test func(s *suite)
}

func unless(gap bool, promises []promise) []promise {
	if gap {
		return nil
	}
	return promises
}

// suite is a subtest at work on an empty folder. Its calls must succeed.
type suite struct {
	*testing.T
	store blobstore.Store
	root  blobstore.URI
	opts  Options
}

// at names what lies below the folder.
func (s *suite) at(rel string) blobstore.URI { return s.root.Join(rel) }

func (s *suite) put(rel, content string) blobstore.Object {
	s.Helper()
	return s.putIf(rel, content, blobstore.PutOptions{})
}

func (s *suite) putIf(rel, content string, opts blobstore.PutOptions) blobstore.Object {
	s.Helper()
	obj, err := s.tryPut(rel, content, opts)
	require.NoError(s, err)
	return obj
}

// tryPut puts also in goroutines, and where it may fail.
func (s *suite) tryPut(rel, content string, opts blobstore.PutOptions) (blobstore.Object, error) {
	return s.store.Put(s.Context(), s.at(rel), strings.NewReader(content), opts)
}

func (s *suite) stat(rel string) blobstore.Object {
	s.Helper()
	obj, err := s.store.Stat(s.Context(), s.at(rel))
	require.NoError(s, err)
	return obj
}

func (s *suite) open(rel string) (content string, obj blobstore.Object) {
	s.Helper()
	content, obj, err := s.tryOpen(rel)
	require.NoError(s, err)
	return content, obj
}

// tryOpen reads an object in one go, also in goroutines.
func (s *suite) tryOpen(rel string) (content string, obj blobstore.Object, err error) {
	r, obj, err := s.store.Open(s.Context(), s.at(rel))
	if err != nil {
		return "", obj, err
	}
	data, err := io.ReadAll(r)
	if e := r.Close(); err == nil {
		err = e
	}
	return string(data), obj, err
}

func (s *suite) copy(dst, src string) blobstore.Object {
	s.Helper()
	obj, err := s.store.Copy(s.Context(), s.at(dst), s.at(src))
	require.NoError(s, err)
	return obj
}

func (s *suite) delete(rel string) {
	s.Helper()
	require.NoError(s, s.store.Delete(s.Context(), s.at(rel)))
}

// list returns what a listing yields, in the order of names.
func (s *suite) list(rel string, opts blobstore.ListOptions) (found []blobstore.Object) {
	s.Helper()
	for obj, err := range s.store.List(s.Context(), s.at(rel), opts) {
		require.NoError(s, err)
		found = append(found, obj)
	}
	byName := func(a, b blobstore.Object) int { return strings.Compare(a.URI.Path(), b.URI.Path()) }
	slices.SortFunc(found, byName)
	return found
}

// all and shallow return the names that a listing yields, below the listed
// folder; those of folders end in a slash.
func (s *suite) all(rel string) []string {
	s.Helper()
	return s.names(rel, blobstore.ListOptions{})
}

func (s *suite) shallow(rel string) []string {
	s.Helper()
	return s.names(rel, blobstore.ListOptions{Shallow: true})
}

func (s *suite) names(dir string, opts blobstore.ListOptions) (names []string) {
	s.Helper()
	for _, obj := range s.list(dir, opts) {
		name, ok := obj.URI.Rel(s.at(dir))
		require.True(s, ok, "%s is not below %s", obj.URI, s.at(dir))
		if obj.Dir {
			name += "/"
		}
		names = append(names, name)
	}
	return names
}

// holds asserts that an object is there with this content, however one looks.
func (s *suite) holds(rel, content string) {
	s.Helper()
	got, opened := s.open(rel)
	if len(content) > 100 {
		require.True(s, content == got, "%s: %d bytes, not the %d that were put", rel, len(got), len(content))
	}
	require.Equal(s, content, got)
	require.EqualValues(s, len(content), opened.Size, "size that Open says")
	require.EqualValues(s, len(content), s.stat(rel).Size, "size that Stat says")
	if s.opts.Reader != nil {
		data, obj, err := blobstore.ReadAll(s.Context(), s.opts.Reader, s.at(rel), 0)
		require.NoError(s, err, "another reader")
		require.True(s, content == string(data), "%s: another reader sees %d bytes", rel, len(data))
		require.EqualValues(s, len(content), obj.Size, "size that another reader says")
	}
}

// lacks asserts that there is no such object, however one looks.
func (s *suite) lacks(rel string) {
	s.Helper()
	_, err := s.store.Stat(s.Context(), s.at(rel))
	s.fails(err, blobstore.ErrNotExist, "stat", rel)
	_, _, err = s.store.Open(s.Context(), s.at(rel))
	s.fails(err, blobstore.ErrNotExist, "open", rel)
	if s.opts.Reader != nil {
		_, err := s.opts.Reader.Stat(s.Context(), s.at(rel))
		require.ErrorIs(s, err, blobstore.ErrNotExist, "another reader")
	}
}

// fails asserts that an error says what went wrong with which call on what.
func (s *suite) fails(err, want error, op, rel string) *blobstore.Error {
	s.Helper()
	require.ErrorIs(s, err, want)
	var e *blobstore.Error
	require.ErrorAs(s, err, &e, "every error is a *blobstore.Error")
	assert.Equal(s, op, e.Op)
	assert.Equal(s, s.at(rel).String(), e.URI.String())
	assert.Contains(s, err.Error(), s.at(rel).String())
	return e
}

// sameTag asserts that tags are equal as far as they are known.
func (s *suite) sameTag(want, got blobstore.Object) {
	s.Helper()
	if want.Tag != "" && got.Tag != "" {
		assert.Equal(s, want.Tag, got.Tag)
	}
}

// version is a text of n bytes which no other number shares.
func version(number, n int) string {
	return strings.Repeat(fmt.Sprintf("%08d\n", number), n/9+1)[:n]
}
