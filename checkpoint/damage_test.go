package checkpoint

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint/metadata"
)

// A checkpoint that cannot be read to the last byte is refused, and the pin that
// was there is as it was.
func TestDamagedMetadataIsRefused(t *testing.T) {
	damage := map[string]func(*metadata.File, []byte) []byte{
		"empty":           func(_ *metadata.File, data []byte) []byte { return nil },
		"cut off":         func(_ *metadata.File, data []byte) []byte { return data[:len(data)/2] },
		"one byte short":  func(_ *metadata.File, data []byte) []byte { return data[:len(data)-1] },
		"one byte more":   func(_ *metadata.File, data []byte) []byte { return append(data, 0) },
		"not Flink's":     func(_ *metadata.File, data []byte) []byte { return append([]byte("<Error>"), data[7:]...) },
		"unknown version": func(_ *metadata.File, data []byte) []byte { data[7] = 99; return data },
		"unknown tag": func(f *metadata.File, data []byte) []byte {
			for h := range f.Handles() {
				data[h.Offset] = 99
				break
			}
			return data
		},
		"another checkpoint": func(_ *metadata.File, data []byte) []byte {
			binary.BigEndian.PutUint64(data[8:16], 1234)
			return data
		},
		"outside of everything": func(f *metadata.File, _ []byte) []byte {
			data, err := f.Rewrite(func(h metadata.Handle) (metadata.Path, error) {
				return metadata.Path{Text: "s3://lake/../etc/passwd"}, nil
			})
			require.NoError(t, err)
			return data
		},
	}
	for name, damage := range damage {
		t.Run(name, func(t *testing.T) {
			job := newJob(t, hashmap113)
			job.completes(3)
			job.pins(app, PinOptions{})
			before := contents(t, job.store, app)

			job.completes(4)
			u := job.chk(4).Join(MetadataName)
			data := get(t, job.store, u)
			file, err := metadata.Parse(append([]byte(nil), data...))
			require.NoError(t, err)
			put(t, job.store, u.String(), damage(file, data))
			p, err := Pin(t.Context(), job.store, app, job, PinOptions{})
			var damaged *DamagedError
			require.ErrorAs(t, err, &damaged)
			require.Contains(t, damaged.URI, "chk-4/_metadata")
			require.True(t, p.Restorable)
			require.Equal(t, before, contents(t, job.store, app))
			job.requireRestores(app, 3)
		})
	}
}

// Only the delegate of a merged operator handle may be an empty segment; Flink
// cannot restore it anywhere else.
func TestAnEmptySegmentElsewhereIsRefused(t *testing.T) {
	job := newJob(t, merged)
	job.completes(5)
	u := job.chk(5).Join(MetadataName)
	s := loaded(t, job.store, u)
	empties := 0
	var keyed metadata.Handle
	for h := range s.Handles() {
		if h.Kind == metadata.EmptySegment && h.OperatorDelegate() {
			empties++
		}
		if h.Kind == metadata.Segment && !h.OperatorDelegate() {
			keyed = h
		}
	}
	require.Positive(t, empties, "the recording has empty segments, and pins")
	job.pins(app, PinOptions{})

	job.completes(6)
	u = job.chk(6).Join(MetadataName)
	data := get(t, job.store, u)
	path, err := keyed.Path()
	require.NoError(t, err)
	end := keyed.Offset + 1 + 8 + 8 + 4 + 2 + int64(len(path)) // of the path; the id of the logical file follows
	end += 2 + int64(binary.BigEndian.Uint16(data[end:]))
	const emptySegment = 16
	put(t, job.store, u.String(), append(append(append([]byte(nil), data[:keyed.Offset]...), emptySegment), data[end:]...))
	_, err = Pin(t.Context(), job.store, app, job, PinOptions{})
	var damaged *DamagedError
	require.ErrorAs(t, err, &damaged)
	require.ErrorContains(t, err, fmt.Sprintf("empty segment at offset %d", keyed.Offset))
	job.requireRestores(app, 5)
}

// No proof, no pin: a state file that is missing, or not as long as recorded.
func TestDamagedStateIsRefused(t *testing.T) {
	for _, r := range recordings {
		t.Run(r.name, func(t *testing.T) {
			job := newJob(t, r)
			job.completes(r.id)
			files, err := loaded(t, job.store, job.latest.Path).files()
			require.NoError(t, err)
			for _, f := range files {
				content := get(t, job.store, f.URI)
				for what, damaged := range map[string][]byte{"missing": nil, "shorter": content[:f.need-1], "longer": append(content, 0)} {
					if what == "longer" && f.open {
						continue // others append to it
					}
					remove(t, job.store, f.URI)
					if damaged != nil {
						put(t, job.store, f.URI.String(), damaged)
					}
					app := app.Join(what, f.URI.Base())
					asked := 0
					job.asked = func() { asked++ }
					p, err := Pin(t.Context(), job.store, app, job, PinOptions{Sleep: noSleep})
					var refused *DamagedError
					require.ErrorAs(t, err, &refused)
					require.Equal(t, []string{f.URI.String()}, append(refused.Missing, refused.WrongSize...))
					require.Equal(t, map[bool]int{true: 1 + int(nextWithin/nextEvery), false: 1}[what == "missing"], asked,
						"what is missing may have been subsumed: ask for something newer")
					require.False(t, p.Restorable)
					require.False(t, exists(t, job.store, LayoutOf(app).Metadata))
				}
				put(t, job.store, f.URI.String(), content)
			}
			job.asked = nil
			job.pins(app, PinOptions{})
			job.requireRestores(app, r.id)
		})
	}
}

// Flink deletes a checkpoint as soon as the next one is complete, also while it
// is copied. Then the next one is pinned.
func TestTheSourceVanishes(t *testing.T) {
	for _, at := range []string{"open", "copy"} {
		t.Run("before the first "+at, func(t *testing.T) {
			job := newJob(t, rocksdb)
			job.completes(6)
			inner := job.store
			done := false
			store := hook(inner, func(op string, u blobstore.URI, do func() error) error {
				if op == at && !done {
					done = true
					job.completes(7)
					job.subsumes(6)
				}
				return do()
			})
			seen := *job
			seen.asked = func() { seen.latest = job.latest }
			p, err := Pin(t.Context(), store, app, &seen, PinOptions{Sleep: noSleep})
			require.NoError(t, err)
			require.Equal(t, ResultPinned, p.Result)
			require.EqualValues(t, 7, p.CheckpointID)
			job.requireRestores(app, 7)
		})
	}
}

// A job that retains one checkpoint and takes the next before a copy is done: each
// try loses its source. That is no damage, and the error says what it is.
func TestTheSourceVanishesInEveryTry(t *testing.T) {
	job := newJob(t, rocksdb)
	job.completes(6)
	next := int64(7)
	store := hook(job.store, func(op string, u blobstore.URI, do func() error) error {
		if op == "copy" && u.Within(LayoutOf(app).State) && next-job.latest.ID == 1 {
			job.completes(next)
			job.subsumes(next - 1)
		}
		return do()
	})
	seen := *job
	seen.asked = func() { seen.latest, next = job.latest, job.latest.ID+1 }
	_, err := Pin(t.Context(), store, app, &seen, PinOptions{Sleep: noSleep})
	var vanished *VanishedError
	require.ErrorAs(t, err, &vanished)
	require.Equal(t, sourceTries, vanished.Times)
	require.NotEmpty(t, vanished.Last.Missing)
	require.Regexp(t, `^the job's newest checkpoint was deleted while it was copied, 10 times in a row; the last was \S+/chk-15/_metadata \(\d+ files? missing: `, err.Error())
	require.False(t, exists(t, job.store, LayoutOf(app).Metadata))
	job.pins(app, PinOptions{})
	job.requireRestores(app, 16)
}

// What stands under a name of ours and is not named by the pin is copied over:
// half a file from a source that was damaged at the time must not keep every
// later tick from pinning.
func TestWhatThePinDoesNotNameIsCopiedOver(t *testing.T) {
	job := newJob(t, hashmap)
	job.completes(4)
	files, err := loaded(t, job.store, job.latest.Path).files()
	require.NoError(t, err)
	whole := get(t, job.store, files[0].URI)
	put(t, job.store, files[0].URI.String(), whole[:7])
	_, err = Pin(t.Context(), job.store, app, job, PinOptions{Sleep: noSleep})
	var damaged *DamagedError
	require.ErrorAs(t, err, &damaged)
	require.Equal(t, []string{files[0].URI.String()}, damaged.WrongSize)

	put(t, job.store, files[0].URI.String(), whole)
	job.pins(app, PinOptions{})
	job.requireRestores(app, 4)
}

// The JobManager's statistics are some seconds old: the tick waits until they
// name another checkpoint than the one that is gone, and takes that at once.
func TestTheJobManagerIsSlowToNameTheNextCheckpoint(t *testing.T) {
	job := newJob(t, hashmap)
	job.completes(4)
	job.completes(5)
	job.subsumes(4)
	stale := *job
	stale.latest = &Latest{ID: 4, Path: job.chk(4), Triggered: epoch}
	slept := 0
	p, err := Pin(t.Context(), job.store, app, &stale, PinOptions{Sleep: func(context.Context, time.Duration) error {
		if slept++; slept == 12 {
			stale.latest = job.latest
		}
		return nil
	}})
	require.NoError(t, err)
	require.EqualValues(t, 5, p.CheckpointID)
	require.Equal(t, 12, slept)
	job.requireRestores(app, 5)
}

// A file of unknown origin at the right name and of the right size is no reason
// not to copy: only what the pin names was proved.
func TestOnlyWhatThePinNamesIsReused(t *testing.T) {
	job := newJob(t, hashmap)
	job.completes(4)
	files, err := loaded(t, job.store, job.latest.Path).files()
	require.NoError(t, err)
	put(t, job.store, LayoutOf(app).State.Join(stateName(files[0].URI)).String(), make([]byte, files[0].need))
	p := job.pins(app, PinOptions{})
	require.Zero(t, p.Reused)
	job.requireRestores(app, 4)
}

// lengthless is a store behind a proxy that does not pass on how long a single object
// is.
type lengthless struct{ blobstore.Store }

func (s lengthless) Stat(ctx context.Context, u blobstore.URI) (blobstore.Object, error) {
	o, err := s.Store.Stat(ctx, u)
	o.Size = -1
	return o, err
}

// A size that is not told is no proof where a listing tells it.
func TestASizeThatIsNotToldIsLookedFor(t *testing.T) {
	job := newJob(t, hashmap)
	job.completes(4)
	job.pins(app, PinOptions{})
	store := lengthless{job.store}
	_, err := prove(t.Context(), store, LayoutOf(app).Metadata, nil)
	require.NoError(t, err)

	file := filesOf(t, job.store, LayoutOf(app).Metadata)[0].URI
	put(t, job.store, file.String(), get(t, job.store, file)[1:])
	_, err = prove(t.Context(), store, LayoutOf(app).Metadata, nil)
	var damaged *DamagedError
	require.ErrorAs(t, err, &damaged)
	require.Equal(t, []string{file.String()}, damaged.WrongSize)
}
