package checkpoint

import (
	"errors"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// A copy, or a tick with a replica, comes to grief at its k-th storage call, for
// every k and in every way a call can fail. At every instant what stands at the
// destination restores, or nothing does; the source is as it was; the next copy
// makes good whatever is left, and a collection removes what nobody names.
func TestEveryCallOfACopyMayFail(t *testing.T) {
	recorded := hashmap.thin(t)
	from, to := LayoutOf(primary), LayoutOf(backup)
	copyTo := func(source blobstore.URI) func(*flink, blobstore.Store) error {
		return func(job *flink, store blobstore.Store) error {
			_, err := Copy(job.t.Context(), store, source, backup, CopyOptions{Sleep: noSleep})
			return err
		}
	}
	replicate := func(job *flink, store blobstore.Store) error {
		p, err := Pin(job.t.Context(), store, primary, job, PinOptions{Replicas: []blobstore.URI{backup}, Sleep: noSleep})
		if len(p.Replicas) > 0 {
			err = errors.Join(err, p.Replicas[0].Err)
		}
		return err
	}
	for _, story := range []struct {
		name    string
		path    blobstore.URI // that restores in the end
		prepare func(job *flink)
		act     func(*flink, blobstore.Store) error
		heals   func(job *flink) // between the grief and the next try
	}{
		{"a checkpoint", backup.Join(MetadataName), nil, copyTo(from.Root), nil},
		{"a pin", to.Metadata, nil, copyTo(primary), nil},
		{"a pin once more", to.Metadata, func(job *flink) {
			job.copies(primary.String(), backup.String())
			job.completes(6)
			job.pins(primary, PinOptions{})
		}, copyTo(primary), nil},
		{"a replica", to.Metadata, func(job *flink) { job.completes(6) }, replicate, nil},
		{"a replica once more", to.Metadata, func(job *flink) {
			job.replicated(job.store)
			job.completes(6)
		}, replicate, nil},
		{"a replica, and the pin moves on", to.Metadata, func(job *flink) {
			job.replicated(job.store)
			job.completes(6)
		}, replicate, func(job *flink) { job.completes(7) }},
	} {
		t.Run(story.name, func(t *testing.T) {
			t.Parallel()
			tell := func(g grief, k int) (calls int) {
				job := startFlinkOf(t, twoClouds(), hashmap, recorded, "s3://lake/flink")
				for _, id := range []int64{4, 5} {
					job.completes(id)
					job.pins(primary, PinOptions{})
				}
				if story.prepare != nil {
					story.prepare(job)
				}
				w := &witness{flink: job, path: story.path}
				fault := g.fault(k)
				_ = story.act(job, hook(job.store, func(_ string, _ blobstore.URI, do func() error) error {
					calls++
					err := fault(calls, do)
					w.look()
					return err
				}))
				if story.heals != nil {
					story.heals(job)
				}
				require.NoError(t, story.act(job, job.store))
				job.requireRestores(primary, job.latest.ID)
				w.look()
				require.Equal(t, job.latest.ID, w.id)
				require.Equal(t, job.state[w.id], stateOf(t, job.store, story.path))
				if story.path.Same(to.Metadata) {
					_, err := GC(t.Context(), job.store, backup, GCOptions{Delete: true, Now: epoch.Add(25 * time.Hour)})
					require.NoError(t, err)
					require.Empty(t, unknownTo(t, job.store, backup))
				}
				return calls
			}
			calls := tell(griefs[0], math.MaxInt) // nothing fails
			for _, g := range griefs {
				for k := 1; k <= calls; k++ {
					if tell(g, k); t.Failed() {
						t.Fatalf("%s, call %d of %d: %s", story.name, k, calls, g.name)
					}
				}
			}
		})
	}
}

// witness reads a copy as a starting job would.
type witness struct {
	*flink
	path blobstore.URI
	mu   sync.Mutex
	tag  string
	id   int64
}

// look requires that what stands there restores and is not older than before.
func (w *witness) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	obj, err := w.store.Stat(w.t.Context(), w.path)
	if errors.Is(err, blobstore.ErrNotExist) {
		require.Empty(w.t, w.tag, "the copy vanished")
		return
	}
	require.NoError(w.t, err)
	if obj.Tag == w.tag {
		return
	}
	s, err := prove(w.t.Context(), w.store, w.path, nil)
	require.NoError(w.t, err)
	require.GreaterOrEqual(w.t, s.CheckpointID, w.id, "the copy went back")
	w.tag, w.id = obj.Tag, s.CheckpointID
}

// While a pin is copied, its job is pinned again and what is older is collected,
// at every call. The copy is of one instant, or of none, and the next one is of
// the last.
func TestThePinMovesOnUnderTheCopy(t *testing.T) {
	recorded := hashmap.thin(t)
	for k, calls := 1, math.MaxInt; k <= calls; k++ {
		job := startFlinkOf(t, twoClouds(), hashmap, recorded, "s3://lake/flink")
		for _, id := range []int64{4, 5} {
			job.completes(id)
			job.pins(primary, PinOptions{})
		}
		w := &witness{flink: job, path: LayoutOf(backup).Metadata}
		n := 0
		_, err := Copy(t.Context(), hook(job.store, func(_ string, _ blobstore.URI, do func() error) error {
			if n++; n == k {
				for id := int64(6); id < 9; id++ {
					job.completes(id)
					job.pins(primary, PinOptions{})
				}
				_, err := GC(t.Context(), job.store, primary, GCOptions{Keep: 2, Delete: true, Now: epoch.Add(25 * time.Hour)})
				require.NoError(t, err)
			}
			err := do()
			w.look()
			return err
		}), primary, backup, CopyOptions{Sleep: noSleep})
		require.NoError(t, err, "call %d", k)
		if k == 1 {
			calls = n
		}
		if n >= k {
			require.Contains(t, []int64{5, 8}, w.id)
		}
		if n < k { // the copy was over
			break
		}
		job.copies(primary.String(), backup.String())
		w.look()
		require.EqualValues(t, 8, w.id, "call %d", k)
		require.Equal(t, job.state[8], stateOf(t, job.store, w.path))
	}
}
