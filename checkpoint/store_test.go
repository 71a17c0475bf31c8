package checkpoint

import (
	"cmp"
	"context"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chkpin/chkpin/blobstore"
)

// hooked is a store whose every call passes through call, which decides whether
// and when do happens, and what is answered. A listing is a call a page.
type hooked struct {
	blobstore.Store
	call func(op string, u blobstore.URI, do func() error) error
}

// hook is a store in which one call happens at a time, so that call may keep
// count.
func hook(store blobstore.Store, call func(op string, u blobstore.URI, do func() error) error) *hooked {
	var mu sync.Mutex
	return &hooked{Store: store, call: func(op string, u blobstore.URI, do func() error) error {
		mu.Lock()
		defer mu.Unlock()
		return call(op, u, do)
	}}
}

func (h *hooked) Stat(ctx context.Context, u blobstore.URI) (o blobstore.Object, err error) {
	err = h.call("stat", u, func() (err error) { o, err = h.Store.Stat(ctx, u); return err })
	return o, err
}

func (h *hooked) Open(ctx context.Context, u blobstore.URI) (r io.ReadCloser, o blobstore.Object, err error) {
	err = h.call("open", u, func() (err error) { r, o, err = h.Store.Open(ctx, u); return err })
	return r, o, err
}

func (h *hooked) Put(ctx context.Context, u blobstore.URI, body io.Reader, opts blobstore.PutOptions) (o blobstore.Object, err error) {
	data, err := io.ReadAll(body) // do may happen twice
	if err != nil {
		return o, err
	}
	err = h.call("put", u, func() (err error) {
		o, err = h.Store.Put(ctx, u, strings.NewReader(string(data)), opts)
		return err
	})
	return o, err
}

func (h *hooked) Copy(ctx context.Context, dst, src blobstore.URI) (o blobstore.Object, err error) {
	err = h.call("copy", dst, func() (err error) { o, err = h.Store.Copy(ctx, dst, src); return err })
	return o, err
}

func (h *hooked) Delete(ctx context.Context, u blobstore.URI) error {
	return h.call("delete", u, func() error { return h.Store.Delete(ctx, u) })
}

// pageSize is how many objects a page of a listing holds: few, so that other
// calls come between the pages, as they do on a real service.
const pageSize = 8

// List reads the names in their order, a page at a time, each as it is then.
func (h *hooked) List(ctx context.Context, dir blobstore.URI, opts blobstore.ListOptions) iter.Seq2[blobstore.Object, error] {
	return func(yield func(blobstore.Object, error) bool) {
		last := ""
		for {
			var page []blobstore.Object
			err := h.call("list", dir, func() error {
				page = nil
				for o, err := range h.Store.List(ctx, dir, opts) {
					if err != nil {
						return err
					}
					if o.URI.Path() > last {
						page = append(page, o)
					}
				}
				return nil
			})
			if err != nil {
				yield(blobstore.Object{}, err)
				return
			}
			slices.SortFunc(page, func(a, b blobstore.Object) int { return strings.Compare(a.URI.Path(), b.URI.Path()) })
			more := len(page) > pageSize
			page = page[:min(len(page), pageSize)]
			for _, o := range page {
				last = o.URI.Path()
				if !yield(o, nil) {
					return
				}
			}
			if !more {
				return
			}
		}
	}
}

func isWrite(op string) bool { return op == "put" || op == "copy" || op == "delete" }

// clock is a store's clock that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: epoch} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// memory is a store in memory with a clock of its own.
func memory() (*blobstore.Memory, *clock) {
	c := newClock()
	m := blobstore.NewMemory()
	m.Now = c.Now
	return m, c
}

// noSleep stands for the timer between the tries of a tick.
func noSleep(ctx context.Context, _ time.Duration) error { return context.Cause(ctx) }

// pending is a store call, or a pause, that waits for its turn.
type pending struct {
	actor int
	what  string
	turn  chan struct{}
}

// turns lets actors run one at a time, each up to its next store call.
type turns struct {
	mu      sync.Mutex
	waiting []pending
}

// wait blocks an actor until it is its turn.
func (q *turns) wait(actor int, what string) {
	p := pending{actor, what, make(chan struct{})}
	q.mu.Lock()
	q.waiting = append(q.waiting, p)
	q.mu.Unlock()
	<-p.turn
}

// picker says whose turn is next among the actors that wait, by index, and which
// of that actor's n calls.
type picker interface {
	actor(waiting []int) int
	call(n int) int
}

// next gives the turn to one of those that wait; false when nobody waits. What
// waits is in an order that does not depend on the scheduler of Go.
func (q *turns) next(p picker) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return false
	}
	slices.SortFunc(q.waiting, func(a, b pending) int {
		return cmp.Or(cmp.Compare(a.actor, b.actor), strings.Compare(a.what, b.what))
	})
	var actors, begin []int // and where their calls begin
	for i, w := range q.waiting {
		if i == 0 || w.actor != actors[len(actors)-1] {
			actors, begin = append(actors, w.actor), append(begin, i)
		}
	}
	begin = append(begin, len(q.waiting))
	n := p.actor(actors)
	i := begin[n] + p.call(begin[n+1]-begin[n])
	close(q.waiting[i].turn)
	q.waiting = slices.Delete(q.waiting, i, i+1)
	return true
}

// inOrder lets the first actor go first.
type inOrder struct{}

func (inOrder) actor([]int) int { return 0 }
func (inOrder) call(int) int    { return 0 }

// bursts draws at random, and lets an actor do some calls before it draws
// another: a process that is delayed is delayed for a while.
type bursts struct {
	rand    *rand.Rand
	length  int // calls, on average
	current int
}

func (b *bursts) actor(waiting []int) int {
	if i := slices.Index(waiting, b.current); i >= 0 && b.rand.IntN(b.length) > 0 {
		return i
	}
	i := b.rand.IntN(len(waiting))
	b.current = waiting[i]
	return i
}

func (b *bursts) call(n int) int { return b.rand.IntN(n) }
