package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// found lists what is below a root, as text: kind, number, folder below the root, and what is wrong.
func found(t *testing.T, store blobstore.Store, root string, opts ListOptions) (lines []string) {
	t.Helper()
	for f, err := range List(t.Context(), store, blobstore.MustParse(root), opts) {
		require.NoError(t, err)
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %d %s %s", f.Kind, f.CheckpointID, strings.TrimPrefix(f.URI.String(), root), f.Why())))
	}
	return lines
}

// lake is a bucket with all that a job leaves there: checkpoints, a savepoint and a pin with two generations.
func lake(t *testing.T) *flink {
	job := newJob(t, rocksdb)
	job.completes(9)
	job.pins(app, PinOptions{})
	job.completes(10)
	job.pins(app, PinOptions{})
	job.savepoint(11, "s3://lake/savepoints")
	return job
}

const jobFolder = "/flink/1624fd774f99507e464787c646439a53"

func TestList(t *testing.T) {
	job := lake(t)
	put(t, job.store, job.chk(12).Join("3ba7c6cb-6fd1-42eb-94cb-b10e9ba45816").String(), []byte("state"))
	for _, marker := range []string{"chk-13_$folder$", "chk-14", "shared_$folder$"} {
		put(t, job.store, job.folder.Join(marker).String(), nil)
	}
	require.Equal(t, []string{
		"checkpoint 12 " + jobFolder + "/chk-12 " + ErrIncomplete.Error(),
		"checkpoint 10 " + jobFolder + "/chk-10",
		"checkpoint 9 " + jobFolder + "/chk-9",
		"generation 10 /pins/orders/last-state/generations/00000002-chk-10",
		"generation 9 /pins/orders/last-state/generations/00000001-chk-9",
		"savepoint 11 /savepoints/savepoint-1624fd-00000000000b",
	}, found(t, job.store, "s3://lake", ListOptions{}))
}

// State files with entropy in their path lie in folders that look like those of
// checkpoints. Their checkpoint is listed once, where its _metadata is; one in progress
// has none yet.
func TestListOfScatteredFiles(t *testing.T) {
	job := lake(t)
	name := job.folder.Base()
	for _, entropy := range []string{"a1B2", "Zz09", "hive"} {
		put(t, job.store, "s3://lake/"+entropy+"/flink/"+name+"/chk-9/state", []byte("state"))
		put(t, job.store, "s3://lake/"+entropy+"/flink/"+name+"/shared/state", []byte("state"))
	}
	put(t, job.store, "s3://lake/hive/flink/"+name+"/chk-13/state", []byte("state"))
	var listed []string
	for _, line := range found(t, job.store, "s3://lake", ListOptions{}) {
		if strings.Contains(line, "chk-9") || strings.Contains(line, "chk-13") {
			listed = append(listed, line)
		}
	}
	require.Equal(t, []string{
		"checkpoint 9 /flink/" + name + "/chk-9",
		"checkpoint 13 /hive/flink/" + name + "/chk-13 " + ErrIncomplete.Error(),
		"generation 9 /pins/orders/last-state/generations/00000001-chk-9",
	}, listed)
}

// Any folder may be the root, and a single checkpoint.
func TestListRoots(t *testing.T) {
	job := lake(t)
	for root, want := range map[string]int{
		"s3://lake":                                                    5,
		"s3a://lake/flink":                                             2,
		"s3://lake" + jobFolder:                                        2,
		"s3://lake" + jobFolder + "/chk-9":                             1,
		"s3://lake/savepoints":                                         1,
		"s3://lake/pins/orders":                                        2,
		"s3://lake/pins/orders/last-state":                             2,
		"s3://lake/pins/orders/last-state/":                            2,
		"s3://lake" + jobFolder + "/shared":                            0,
		"s3://lake/pins/orders/last-state/state":                       0,
		"s3://lake/pins/orders/last-state/generations":                 2,
		"s3://lake/pins/orders/last-state/_metadata":                   2,
		"s3://lake/pins/orders/last-state/generations/00000001-chk-9":  1,
		"s3://lake/savepoints/savepoint-1624fd-00000000000b/_metadata": 1,
	} {
		require.Len(t, found(t, job.store, root, ListOptions{}), want, root)
	}
}

// What a generation says of itself, and what a checkpoint does not.
func TestListDescribes(t *testing.T) {
	job := lake(t)
	byKind := map[string]Found{}
	for f, err := range List(t.Context(), job.store, blobstore.MustParse("s3://lake"), ListOptions{}) {
		require.NoError(t, err)
		if f.CheckpointID != 9 {
			byKind[f.Kind] = f
		}
	}
	in, err := loaded(t, job.store, job.chk(10)).Inspect()
	require.NoError(t, err)
	for _, f := range byKind {
		assert.EqualValues(t, 6, f.FormatVersion)
		assert.Equal(t, 10, f.Files)
		assert.Equal(t, in.StateBytes, f.Bytes)
		assert.Equal(t, epoch, f.Modified, "by the store's clock")
	}
	c, s, g := byKind[KindCheckpoint], byKind[KindSavepoint], byKind[KindGeneration]
	assert.Equal(t, job.run.JobID, c.JobID)
	assert.Equal(t, "1624fd", s.JobID, "all that the folder's name tells")
	assert.Equal(t, job.run.JobID, g.JobID)
	assert.Equal(t, "orders", g.JobName)
	assert.Zero(t, c.Triggered)
	assert.Equal(t, epoch.Add(10*60*1e9), g.Triggered)
	assert.True(t, g.Published)
	assert.False(t, c.Published)
}

func TestListOneJob(t *testing.T) {
	job := lake(t)
	other := job.successor("b"+job.run.JobID[1:], "", 0)
	other.completes(6)
	other.savepoint(7, "s3://lake/savepoints")
	for want, asked := range map[int][]string{
		7: {""},
		5: {job.run.JobID, "1624fd7", "1624"},
		2: {other.run.JobID, "b", "orders"},
		0: {"c", "Orders"},
	} {
		for _, name := range asked {
			require.Len(t, found(t, job.store, "s3://lake", ListOptions{Job: name}), want, "job %q", name)
		}
	}
	listed := 0
	store := hook(job.store, func(op string, u blobstore.URI, do func() error) error {
		if strings.Contains(u.String(), job.run.JobID) {
			listed++
		}
		return do()
	})
	found(t, store, "s3://lake/flink", ListOptions{Job: other.run.JobID})
	require.Zero(t, listed, "folders of other jobs are left alone")
}

// One checkpoint that does not restore says why, and the others are not touched by that.
func TestListOfDamaged(t *testing.T) {
	job := lake(t)
	u := job.chk(9).Join(MetadataName)
	put(t, job.store, u.String(), get(t, job.store, u)[:1000])
	lost := below(t, job.store, job.chk(10))[0]
	remove(t, job.store, lost)
	longer := below(t, job.store, job.folder.Join("shared"))[0]
	put(t, job.store, longer.String(), append(get(t, job.store, longer), 0))

	lines := found(t, job.store, "s3://lake/flink", ListOptions{})
	require.Len(t, lines, 2)
	assert.Contains(t, lines[0], "1 of 10 files missing, 1 of 10 files of the wrong size")
	assert.Contains(t, lines[1], "at offset ")
	for f, err := range List(t.Context(), job.store, job.folder, ListOptions{}) {
		require.NoError(t, err)
		var damaged *DamagedError
		require.ErrorAs(t, f.Err, &damaged)
		require.False(t, f.Restorable())
	}
}

// What stands at the constant path and is no generation has a line of its own.
func TestListOfAPin(t *testing.T) {
	l := LayoutOf(app)
	published := func(t *testing.T, store blobstore.Store) (all, own []Found) {
		for f, err := range List(t.Context(), store, app, ListOptions{}) {
			require.NoError(t, err)
			all = append(all, f)
			if f.URI.Same(l.Root) {
				own = append(own, f)
			}
		}
		return all, own
	}
	for name, c := range map[string]struct {
		harm func(t *testing.T, job *flink)
		why  string
	}{
		"lost":      {func(t *testing.T, job *flink) { remove(t, job.store, l.Metadata) }, "1 file missing: " + l.Metadata.String()},
		"truncated": {func(t *testing.T, job *flink) { put(t, job.store, l.Metadata.String(), []byte("x")) }, "offset"},
		"of the script": {func(t *testing.T, job *flink) {
			put(t, job.store, l.Metadata.String(), get(t, job.store, job.chk(10).Join(MetadataName)))
		}, "2 of 10 files missing"},
	} {
		t.Run(name, func(t *testing.T) {
			job := lake(t)
			all, own := published(t, job.store)
			require.Len(t, all, 2)
			require.Empty(t, own)
			c.harm(t, job)
			all, own = published(t, job.store)
			require.Len(t, all, 3)
			require.Len(t, own, 1)
			require.True(t, own[0].Published)
			require.Contains(t, own[0].Why(), c.why)
			require.False(t, all[0].Published)
		})
	}
}

// Without a folder for each job, shared/ and taskowned/ lie beside the checkpoints of all. A folder that is called
// so elsewhere is a folder.
func TestListWithoutJobFolders(t *testing.T) {
	job := newJob(t, rocksdb)
	job.folder = blobstore.MustParse("s3://lake/shared/checkpoints")
	job.completes(9)
	walked := map[string]bool{}
	store := hook(job.store, func(op string, u blobstore.URI, do func() error) error {
		if op == "list" {
			walked[u.String()] = true
		}
		return do()
	})
	require.Equal(t, []string{"checkpoint 9 /shared/checkpoints/chk-9"}, found(t, store, "s3://lake", ListOptions{}))
	deleteBelow(t, job.store, job.chk(9))
	put(t, job.store, job.folder.Join("taskowned/x").String(), nil)
	clear(walked)
	require.Empty(t, found(t, store, "s3://lake", ListOptions{}))
	require.NotContains(t, walked, "s3://lake/shared/checkpoints/shared", "a job that has no checkpoint left")
}

// A checkpoint of a folder with a name of its own, as somebody copied it there.
func TestListFindsCopies(t *testing.T) {
	job := lake(t)
	dir := blobstore.MustParse("s3://lake/before-the-upgrade")
	for _, u := range below(t, job.store, job.chk(10)) {
		put(t, job.store, dir.Join(u.Base()).String(), get(t, job.store, u))
	}
	require.Equal(t, []string{"checkpoint 10"}, found(t, job.store, dir.String(), ListOptions{}))
}

func TestListRelocated(t *testing.T) {
	job := lake(t)
	moved := ListOptions{Relocations: Relocations{{blobstore.MustParse("file:/state"), blobstore.MustParse("s3://lake")}}}
	require.Len(t, found(t, job.store, "file:/state", moved), 5)
}

// Nothing at all is told from nothing to list.
func TestListOfNothing(t *testing.T) {
	store, _ := memory()
	for _, root := range []string{"s3://lake", "s3://lake/chk-7", "s3://lake/last-state"} {
		var last error
		for _, err := range List(t.Context(), store, blobstore.MustParse(root), ListOptions{}) {
			last = err
		}
		require.ErrorIs(t, last, blobstore.ErrNotExist, root)
	}
	put(t, store, "s3://lake/x/y", nil)
	require.Empty(t, found(t, store, "s3://lake", ListOptions{}))
}

// Flink deletes while this looks: what is gone is left out, not called damaged.
func TestListWhileFlinkDeletes(t *testing.T) {
	job := lake(t)
	store := hook(job.store, func(op string, u blobstore.URI, do func() error) error {
		if op == "list" && u.Base() == "shared" {
			job.subsumes(9)
		}
		return do()
	})
	require.Equal(t, []string{"checkpoint 10 /chk-10"}, found(t, store, job.folder.String(), ListOptions{}))
}

// A folder that may not be listed is an error about that folder; a file that may not be read is one about its
// checkpoint. All else is listed.
func TestListGoesOn(t *testing.T) {
	job := lake(t)
	denied := func(what string) *hooked {
		return hook(job.store, func(op string, u blobstore.URI, do func() error) error {
			if strings.HasSuffix(u.Path(), what) {
				return &blobstore.Error{Op: op, URI: u, Err: blobstore.ErrPermission}
			}
			return do()
		})
	}
	for what, want := range map[string]struct{ whole, denied, failed int }{
		jobFolder:                              {3, 0, 1},
		"/lake":                                {5, 0, 0},
		"/chk-9/_metadata":                     {4, 1, 0},
		jobFolder + "/shared":                  {2, 3, 0},
		"/last-state/state":                    {3, 2, 0},
		"/last-state":                          {3, 0, 1},
		"/last-state/generations":              {3, 0, 1},
		"/generations/00000001-chk-9/pin.json": {5, 0, 0},
	} {
		whole, refused, failed := 0, 0, 0
		for f, err := range List(t.Context(), denied(what), blobstore.MustParse("s3://lake"), ListOptions{}) {
			switch {
			case err != nil:
				require.ErrorIs(t, err, blobstore.ErrPermission)
				failed++
			case errors.Is(f.Err, blobstore.ErrPermission):
				refused++
			default:
				require.NoError(t, f.Err)
				whole++
			}
		}
		assert.Equal(t, want, struct{ whole, denied, failed int }{whole, refused, failed}, what)
	}
}

// A link to a folder above would go round for ever.
func TestListOnAVolumeThatGoesRound(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Symlink(dir, filepath.Join(dir, "round")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, MetadataName), nil, 0o666))
	lines, failed := 0, 0
	for f, err := range List(t.Context(), blobstore.NewFile(), blobstore.MustParse("file:"+dir), ListOptions{}) {
		if err != nil {
			failed++
			require.ErrorIs(t, err, errTooDeep)
			continue
		}
		require.Contains(t, f.Why(), "offset")
		lines++
	}
	require.Equal(t, deepest+1, lines)
	require.Equal(t, 1, failed)
}

// A root that cannot be listed is that error alone.
func TestListOfAnUnreadableRoot(t *testing.T) {
	store, _ := memory()
	denied := hook(store, func(op string, u blobstore.URI, do func() error) error {
		return &blobstore.Error{Op: op, URI: u, Err: blobstore.ErrPermission}
	})
	for _, root := range []string{"s3://lake", "s3://lake/chk-7", "s3://lake/last-state"} {
		var errs []error
		for _, err := range List(t.Context(), denied, blobstore.MustParse(root), ListOptions{}) {
			errs = append(errs, err)
		}
		require.Len(t, errs, 1, root)
		require.ErrorIs(t, errs[0], blobstore.ErrPermission)
	}
}

// Who has seen enough, or is interrupted, leaves nothing running.
func TestListEndsEarly(t *testing.T) {
	job := lake(t)
	for range List(t.Context(), job.store, blobstore.MustParse("s3://lake"), ListOptions{}) {
		break
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	enough := errors.New("enough")
	var last error
	for _, err := range List(ctx, job.store, blobstore.MustParse("s3://lake"), ListOptions{}) {
		cancel(enough)
		last = err
	}
	require.ErrorIs(t, last, enough)
}

// paged counts the requests that a service with pages of 1,000 would get.
type paged struct {
	blobstore.Store
	mu       sync.Mutex
	requests map[string]int
}

func (p *paged) count(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests[what]++
}

func (p *paged) total() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.requests {
		n += c
	}
	return n
}

func (p *paged) Stat(ctx context.Context, u blobstore.URI) (blobstore.Object, error) {
	p.count("stat")
	return p.Store.Stat(ctx, u)
}

func (p *paged) List(ctx context.Context, dir blobstore.URI, opts blobstore.ListOptions) iter.Seq2[blobstore.Object, error] {
	return func(yield func(blobstore.Object, error) bool) {
		n := 0
		p.count("list " + dir.Base())
		for o, err := range p.Store.List(ctx, dir, opts) {
			if n++; n > 1000 {
				n = 1
				p.count("list " + dir.Base())
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

// Shared state is listed a few times however many checkpoints name it, and never asked for file by file.
func TestCostOfAListing(t *testing.T) {
	store, _ := memory()
	job := startFlinkOf(t, store, rocksdb, rocksdb.thin(t), "s3://lake/checkpoints")
	const checkpoints, others = 200, 100_000
	for id := range int64(checkpoints) {
		job.completes(100 + id)
	}
	for i := range others {
		_, err := store.Put(t.Context(), job.folder.Join("shared", fmt.Sprintf("%08x", i)), bytes.NewReader(nil), blobstore.PutOptions{})
		require.NoError(t, err)
	}
	p := &paged{Store: store, requests: map[string]int{}}
	first, lines := 0, 0
	for f, err := range List(t.Context(), p, blobstore.MustParse("s3://lake/checkpoints"), ListOptions{}) {
		require.NoError(t, err)
		require.NoError(t, f.Err)
		if lines++; lines == 1 {
			first = p.total()
		}
	}
	require.Equal(t, checkpoints, lines)
	shared := p.requests["list shared"]
	assert.LessOrEqual(t, shared, 5*101+10, "in rounds of 8, 16, 32, …")
	assert.LessOrEqual(t, first, 101+1+2*2*firstRound+3, "the first line needs one listing of shared/ and what eight checkpoints hold")
	t.Logf("%d checkpoints beside %d other files: first line after %d requests; in all %d, %d of them for shared/", lines, others, first, p.total(), shared)
}
