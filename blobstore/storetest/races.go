package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

var contexts = []promise{
	{"one that ended ends every call", func(s *suite) {
		s.put("object", "content")
		ended, cancel := context.WithCancel(s.Context())
		cancel()

		_, err := s.store.Stat(ended, s.at("object"))
		s.fails(err, context.Canceled, "stat", "object")
		_, _, err = s.store.Open(ended, s.at("object"))
		s.fails(err, context.Canceled, "open", "object")
		for _, folder := range []string{"", "nothing"} {
			var errs []error
			for _, err := range s.store.List(ended, s.at(folder), blobstore.ListOptions{}) {
				errs = append(errs, err)
			}
			require.Len(s, errs, 1, "one error, and the end")
			s.fails(errs[0], context.Canceled, "list", folder)
		}
		_, err = s.store.Put(ended, s.at("object"), strings.NewReader("new"), blobstore.PutOptions{})
		s.fails(err, context.Canceled, "put", "object")
		_, err = s.store.Copy(ended, s.at("copy"), s.at("object"))
		s.fails(err, context.Canceled, "copy", "copy")
		s.fails(s.store.Delete(ended, s.at("object")), context.Canceled, "delete", "object")

		s.holds("object", "content")
		assert.Equal(s, []string{"object"}, s.all(""))
	}},
	{"nothing is put after its end", func(s *suite) {
		s.put("object", "old")
		s.putUntil("object", blobstore.PutOptions{})
		s.holds("object", "old")
		assert.Equal(s, []string{"object"}, s.all(""))
	}},
}

// lastRead calls then with the last bytes of a body.
type lastRead struct {
	body *strings.Reader
	then func()
}

func (r *lastRead) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	if err == nil && r.body.Len() == 0 {
		r.then()
		err = io.EOF
	}
	return n, err
}

// putUntil asserts that a Put fails whose context ends with the body.
func (s *suite) putUntil(rel string, opts blobstore.PutOptions) {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	_, err := s.store.Put(ctx, s.at(rel), &lastRead{strings.NewReader("new"), cancel}, opts)
	s.fails(err, context.Canceled, "put", rel)
}

// writers is how many of them compete.
const writers = 16

var ifAbsentRaces = []promise{
	{"of many Puts one succeeds", func(s *suite) {
		for round := range 5 {
			name := fmt.Sprintf("folder/%d", round)
			winner := s.compete(name, blobstore.PutOptions{IfAbsent: true})
			s.holds(name, winner)
		}
		assert.Len(s, s.all("folder"), 5)
	}},
	{"nothing is put after the end of the context", func(s *suite) {
		s.putUntil("object", blobstore.PutOptions{IfAbsent: true})
		s.lacks("object")
		assert.Empty(s, s.all(""))
	}},
}

var locks = []promise{
	{"with Delete it makes a lock", func(s *suite) {
		var inside atomic.Int32
		var g errgroup.Group
		for range 4 {
			g.Go(func() error {
				for entered := 0; entered < 10; {
					_, err := s.tryPut("folder/lock", "mine", blobstore.PutOptions{IfAbsent: true})
					if errors.Is(err, blobstore.ErrPrecondition) {
						continue
					}
					if err != nil {
						return err
					}
					entered++
					if n := inside.Add(1); n != 1 {
						return fmt.Errorf("%d hold the lock", n)
					}
					inside.Add(-1)
					if err := s.store.Delete(s.Context(), s.at("folder/lock")); err != nil {
						return err
					}
				}
				return nil
			})
		}
		require.NoError(s, g.Wait())
		assert.Empty(s, s.all(""))
	}},
}

var ifTagRaces = []promise{
	{"of many Puts one succeeds", func(s *suite) {
		for round := range 5 {
			name := fmt.Sprintf("folder/%d", round)
			winner := s.compete(name, blobstore.PutOptions{IfTag: s.put(name, "the one before").Tag})
			s.holds(name, winner)
		}
		assert.Len(s, s.all("folder"), 5)
	}},
	{"no update is lost", func(s *suite) {
		const each = 5
		s.put("counter", "0")
		var g errgroup.Group
		for range writers {
			g.Go(func() error {
				for done := 0; done < each; {
					text, obj, err := s.tryOpen("counter")
					if err != nil {
						return err
					}
					n, err := strconv.Atoi(text)
					if err != nil {
						return err
					}
					_, err = s.tryPut("counter", strconv.Itoa(n+1), blobstore.PutOptions{IfTag: obj.Tag})
					if err == nil {
						done++
					} else if !errors.Is(err, blobstore.ErrPrecondition) {
						return err
					}
				}
				return nil
			})
		}
		require.NoError(s, g.Wait())
		s.holds("counter", strconv.Itoa(writers*each))
	}},
	{"nothing is put after the end of the context", func(s *suite) {
		s.put("object", "old")
		s.putUntil("object", blobstore.PutOptions{IfTag: s.stat("object").Tag})
		s.holds("object", "old")
		assert.Equal(s, []string{"object"}, s.all(""))
	}},
}

var concurrency = []promise{
	{"readers see one whole version while Puts replace it", func(s *suite) {
		s.replaceWhileReading(func(_ int, content string) (blobstore.Object, error) {
			return s.tryPut("object", content, blobstore.PutOptions{})
		})
	}},
	{"readers see one whole version while Copies replace it", func(s *suite) {
		s.replaceWhileReading(func(i int, content string) (blobstore.Object, error) {
			source := fmt.Sprintf("sources/%d", i)
			if obj, err := s.tryPut(source, content, blobstore.PutOptions{}); err != nil {
				return obj, err
			}
			return s.store.Copy(s.Context(), s.at("object"), s.at(source))
		})
	}},
	{"Puts and Deletes in one folder do not meet", func(s *suite) {
		s.put("source", "x")
		var g errgroup.Group
		for w := range 8 {
			g.Go(func() error {
				name := fmt.Sprintf("folder/%d", w)
				u := s.at(name)
				for i := range 40 {
					var err error
					if i%2 == 0 {
						_, err = s.tryPut(name, "x", blobstore.PutOptions{})
					} else {
						_, err = s.store.Copy(s.Context(), u, s.at("source"))
					}
					if err != nil {
						return err
					}
					if _, err := s.store.Stat(s.Context(), u); err != nil {
						return err
					}
					if err := s.store.Delete(s.Context(), u); err != nil {
						return err
					}
				}
				return nil
			})
		}
		require.NoError(s, g.Wait())
		assert.Equal(s, []string{"source"}, s.all(""))
		assert.Equal(s, []string{"source"}, s.shallow(""))
	}},
	{"a listing has what was there all along", func(s *suite) {
		var want []string
		for i := range 50 {
			want = append(want, fmt.Sprintf("stays-%02d", i))
			s.put("folder/"+want[i], "x")
		}
		s.whileReading(func() error {
			for i := range 40 {
				name := fmt.Sprintf("folder/comes-%d", i%4)
				if _, err := s.tryPut(name, "x", blobstore.PutOptions{}); err != nil {
					return err
				}
				if err := s.store.Delete(s.Context(), s.at(name)); err != nil {
					return err
				}
			}
			return nil
		}, func() error {
			var got []string
			for obj, err := range s.store.List(s.Context(), s.at("folder"), blobstore.ListOptions{}) {
				if err != nil {
					return err
				}
				if strings.HasPrefix(obj.URI.Base(), "stays-") {
					got = append(got, obj.URI.Base())
				}
			}
			slices.Sort(got)
			if !slices.Equal(want, got) {
				return fmt.Errorf("listed %q", got)
			}
			return nil
		})
	}},
}

// compete lets many writers put with one condition, asserts that one succeeds
// and that the others hear why, and returns what the winner put.
func (s *suite) compete(name string, opts blobstore.PutOptions) (winner string) {
	s.Helper()
	var mu sync.Mutex
	var winners []string
	var g errgroup.Group
	start := make(chan struct{})
	for w := range writers {
		g.Go(func() error {
			content := version(w, 1000)
			<-start
			_, err := s.tryPut(name, content, opts)
			if errors.Is(err, blobstore.ErrPrecondition) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			winners = append(winners, content)
			return err
		})
	}
	close(start)
	require.NoError(s, g.Wait())
	require.Len(s, winners, 1)
	return winners[0]
}

// replaceWhileReading replaces an object again and again with versions of
// different length, and asserts that whoever reads gets one of them, described
// as it is.
func (s *suite) replaceWhileReading(replace func(i int, content string) (blobstore.Object, error)) {
	s.Helper()
	const versions = 30
	contents := map[string]bool{}
	content := func(i int) string { return version(i, 100_000+i*1000) }
	for i := range versions {
		contents[content(i)] = true
	}
	_, err := replace(0, content(0))
	require.NoError(s, err)

	var mu sync.Mutex
	byTag := map[string]string{}
	s.whileReading(func() error {
		for i := 1; i < versions; i++ {
			if _, err := replace(i, content(i)); err != nil {
				return err
			}
		}
		return nil
	}, func() error {
		got, obj, err := s.tryOpen("object")
		if err != nil {
			return err
		}
		if !contents[got] {
			return fmt.Errorf("%d bytes which nobody put", len(got))
		}
		if obj.Size != int64(len(got)) {
			return fmt.Errorf("%d bytes described as %d", len(got), obj.Size)
		}
		mu.Lock()
		defer mu.Unlock()
		if was, ok := byTag[obj.Tag]; ok && was != got && obj.Tag != "" && !s.opts.LooseTags {
			return fmt.Errorf("tag %s for two contents", obj.Tag)
		}
		byTag[obj.Tag] = got
		return nil
	})
	s.holds("object", content(versions-1))
}

// whileReading lets several readers go round until write is done.
func (s *suite) whileReading(write, read func() error) {
	s.Helper()
	var g errgroup.Group
	done := make(chan struct{})
	for range 4 {
		g.Go(func() error {
			for {
				if err := read(); err != nil {
					return err
				}
				select {
				case <-done:
					return nil
				default:
				}
			}
		})
	}
	g.Go(func() error {
		defer close(done)
		return write()
	})
	require.NoError(s, g.Wait())
}
