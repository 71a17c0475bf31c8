package checkpoint

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint/metadata"
)

// newVolume is a job whose checkpoints, and whose pin, lie on a volume.
func newVolume(t *testing.T, r recording, noLinks bool) (job *flink, app blobstore.URI) {
	dir := t.TempDir()
	store := blobstore.NewFile()
	store.NoLinks = noLinks
	return startFlink(t, store, r, "file:"+filepath.ToSlash(dir)+"/flink"), blobstore.MustParse("file://" + filepath.ToSlash(dir) + "/orders")
}

func linksAndCopies(t *testing.T, test func(t *testing.T, noLinks bool)) {
	t.Run("hard links", func(t *testing.T) { test(t, false) })
	t.Run("copies", func(t *testing.T) { test(t, true) })
}

func TestPinOnAVolume(t *testing.T) {
	linksAndCopies(t, func(t *testing.T, noLinks bool) {
		for _, r := range recordings {
			t.Run(r.name, func(t *testing.T) {
				job, app := newVolume(t, r, noLinks)
				for id := r.id; id < r.id+3; id++ {
					job.completes(id)
					require.Equal(t, ResultPinned, job.pins(app, PinOptions{}).Result)
					job.subsumes(id - 1)
				}
				require.Equal(t, ResultUnchanged, job.pins(app, PinOptions{}).Result)
				require.NoError(t, os.RemoveAll(job.folder.Path()))
				job.requireRestores(app, r.id+2)
				require.Empty(t, unknownTo(t, job.store, app))
			})
		}
	})
}

// TaskManagers append to a merged file while one checkpoint after the other
// names more of it. A hard link follows; a copy is replaced by a longer one.
func TestAMergedFileGrows(t *testing.T) {
	linksAndCopies(t, func(t *testing.T, noLinks bool) {
		job, app := newVolume(t, merged, noLinks)

		// Of the file with the most ranges, the first checkpoint knows half.
		ranges := map[string]int{}
		grows := ""
		complete, err := metadata.Parse(job.recorded[merged.metadata()])
		require.NoError(t, err)
		for h := range complete.Handles() {
			if text, err := h.Path(); err == nil && h.Kind == metadata.Segment {
				if ranges[text]++; ranges[text] > ranges[grows] {
					grows = text
				}
			}
		}
		rel := grows[len(merged.root()+"/"+merged.job+"/"):]
		whole := job.recorded[rel]
		half := int64(len(whole) / 2)

		other := ""
		for text := range ranges {
			if text != grows && (other == "" || len(job.recorded[text[len(merged.root()+"/"+merged.job+"/"):]]) > len(whole)) {
				other = text
			}
		}
		known := map[string]int64{} // how much of it the checkpoint names
		early, err := complete.Rewrite(func(h metadata.Handle) (metadata.Path, error) {
			text, err := h.Path()
			if end := h.Start() + h.Size(); text == grows && end > half {
				text = other
				known["elsewhere"] = max(known["elsewhere"], end)
			} else if text == grows {
				known["here"] = max(known["here"], end)
			}
			return metadata.Path{Text: text, Relative: h.Kind == metadata.RelativeFile}, err
		})
		require.NoError(t, err)
		require.Positive(t, known["here"])
		require.Positive(t, known["elsewhere"])
		late := job.recorded[merged.metadata()]
		otherRel := other[len(merged.root()+"/"+merged.job+"/"):]
		for int64(len(job.recorded[otherRel])) < known["elsewhere"] {
			job.recorded[otherRel] = append(job.recorded[otherRel], job.recorded[otherRel]...)
		}

		job.recorded[merged.metadata()], job.recorded[rel] = early, whole[:known["here"]]
		job.completes(5)
		job.pins(app, PinOptions{})
		job.requireRestores(app, 5)

		appendTo(t, job.folder.Join(rel), whole[known["here"]:])
		job.recorded[merged.metadata()], job.recorded[rel] = late, whole
		job.completes(6)
		p := job.pins(app, PinOptions{})
		if noLinks {
			require.Equal(t, 1, p.Copied, "the longer one")
		} else {
			require.Zero(t, p.Copied)
		}
		require.NoError(t, os.RemoveAll(job.folder.Path()))
		job.requireRestores(app, 6)
		require.Equal(t, job.state[5], stateOf(t, job.store, LayoutOf(app).generation("00000001-chk-5").Join(MetadataName)))
	})
}

func appendTo(t *testing.T, u blobstore.URI, data []byte) {
	t.Helper()
	file, err := os.OpenFile(u.Path(), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = file.Write(data)
	require.NoError(t, err)
	require.NoError(t, file.Close())
}

// Hard links take no space and keep the bytes when Flink deletes its name for
// them.
func TestHardLinksOnAVolume(t *testing.T) {
	job, app := newVolume(t, hashmap, false)
	job.completes(4)
	job.pins(app, PinOptions{})
	for _, f := range filesOf(t, job.store, job.latest.Path) {
		source, err := os.Stat(f.URI.Path())
		require.NoError(t, err)
		ours, err := os.Stat(LayoutOf(app).State.Join(stateName(f.URI)).Path())
		require.NoError(t, err)
		require.True(t, os.SameFile(source, ours))
	}
}
