package checkpoint

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint/metadata"
)

// recording is a real checkpoint in testdata: everything Flink left in the
// folder of one job. Absolute paths in it begin with root.
type recording struct {
	name string // release, state backend, and what is special
	job  string
	id   int64
}

var (
	rocksdb    = recording{"2.3.0-rocksdb-incremental", "1624fd774f99507e464787c646439a53", 6}
	merged     = recording{"1.20.5-rocksdb-filemerging", "db9768a9ba627918b657cb2a82ff9e89", 5}
	hashmap    = recording{"2.3.0-hashmap-basic", "1a92be4974f033e7ce84d74a3acb0743", 4}
	hashmap113 = recording{"1.13.6-hashmap-basic", "311c74ddcfd1ac9760695f37e08fe41f", 3}

	recordings = []recording{rocksdb, merged, hashmap, hashmap113}
)

func (r recording) root() string { return "file:/tmp/flink-pin/ckpt/" + r.name }

func (r recording) metadata() string { return fmt.Sprintf("chk-%d/%s", r.id, MetadataName) }

// files returns the recorded files by their path below the job's folder.
func (r recording) files(t testing.TB) map[string][]byte {
	files := map[string][]byte{}
	dir := filepath.Join("testdata", r.name, r.job)
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err == nil {
			files[filepath.ToSlash(rel)], err = os.ReadFile(p)
		}
		return err
	}))
	return files
}

// thin returns the recorded files with 64 bytes in each state file, and the
// metadata that says so: for tests that write a thousand checkpoints. It has no
// use for segments.
func (r recording) thin(t testing.TB) map[string][]byte {
	const size = 64
	files := r.files(t)
	for name, content := range files {
		if name != r.metadata() {
			files[name] = content[:size]
		}
	}
	data := files[r.metadata()]
	file, err := metadata.Parse(bytes.Clone(data))
	require.NoError(t, err)
	for h := range file.Handles() {
		at := h.Offset + 1 // behind the tag
		switch h.Kind {
		case metadata.RelativeFile:
			name, err := h.Path()
			require.NoError(t, err)
			at += 2 + int64(len(name))
		case metadata.AbsoluteFile:
		default:
			continue
		}
		binary.BigEndian.PutUint64(data[at:], size)
	}
	return files
}

// flink is a job on a cluster, as far as chkpin sees one: it writes checkpoints
// that are made from a recorded one, deletes them again, and answers as its
// JobManager. It implements [Job].
type flink struct {
	t         testing.TB
	store     blobstore.Store
	recording recording
	recorded  map[string][]byte
	folder    blobstore.URI // <checkpoints.dir>/<job id>

	// What the JobManager says.
	run         Run
	latest      *Latest
	restored    *Restored
	restorePath string

	// asked runs before every answer.
	asked func()

	// state is what each checkpoint holds: a digest of every byte range, in the
	// order of its metadata file.
	state map[int64][]string
}

var epoch = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// startFlink starts a job that writes checkpoints made from a recording below
// dir.
func startFlink(t testing.TB, store blobstore.Store, r recording, dir string) *flink {
	return startFlinkOf(t, store, r, r.files(t), dir)
}

func startFlinkOf(t testing.TB, store blobstore.Store, r recording, recorded map[string][]byte, dir string) *flink {
	return &flink{
		t: t, store: store, recording: r, recorded: recorded,
		folder: blobstore.MustParse(dir).Join(r.job),
		run:    Run{JobID: r.job, JobName: "orders", Started: epoch.UnixMilli()},
		state:  map[int64][]string{},
	}
}

// successor is another job on the same store, with a job id of its own, that
// restored what the folder holds as checkpoint id. A zero folder is a job that
// started empty.
func (f *flink) successor(jobID string, from string, id int64) *flink {
	g := *f
	g.run = Run{JobID: jobID, JobName: f.run.JobName, Started: f.run.Started + 3_600_000}
	g.folder = f.folder.Dir().Join(jobID)
	g.latest, g.restored = nil, nil
	g.state = map[int64][]string{}
	if from != "" {
		g.restored = &Restored{ID: id, Path: blobstore.MustParse(from)}
	}
	return &g
}

// fails restarts the job from its newest checkpoint. The JobManager then says
// nothing of where the run came from.
func (f *flink) fails() {
	f.restored = &Restored{ID: f.latest.ID, Path: f.latest.Path}
}

// Observe implements [Job].
func (f *flink) Observe(context.Context) (Observation, error) {
	if f.asked != nil {
		f.asked()
	}
	return Observation{Run: f.run, Latest: f.latest, Restored: f.restored}, nil
}

// RestorePath implements [Job].
func (f *flink) RestorePath(context.Context) (string, error) { return f.restorePath, nil }

func (f *flink) chk(id int64) blobstore.URI { return f.folder.Join(fmt.Sprintf("chk-%d", id)) }

// completes writes checkpoint id and makes it the newest. As with incremental
// checkpoints of RocksDB most shared files stay and one is new, while OPTIONS and
// MANIFEST and what lies in chk-<id> is new every time.
func (f *flink) completes(id int64) {
	f.t.Helper()
	f.write(id, f.chk(id))
	f.latest = &Latest{ID: id, Path: f.chk(id), Triggered: epoch.Add(time.Duration(id) * time.Minute)}
}

// savepoint writes a savepoint as Flink names it, below dir, and makes it the
// newest state. All its files are its own.
func (f *flink) savepoint(id int64, dir string) {
	f.t.Helper()
	u := blobstore.MustParse(dir).Join(fmt.Sprintf("savepoint-%s-%012x", f.run.JobID[:6], id))
	f.write(id, u)
	f.latest = &Latest{ID: id, Path: u, Savepoint: true, Triggered: epoch.Add(time.Duration(id) * time.Minute)}
}

func (f *flink) write(id int64, dir blobstore.URI) {
	f.t.Helper()
	data, files := f.make(id, dir)
	for u, content := range files {
		put(f.t, f.store, u, content)
	}
	u := dir.Join(MetadataName)
	put(f.t, f.store, u.String(), data)
	f.state[id] = stateOf(f.t, f.store, u)
}

// make returns the metadata of checkpoint id in dir and the files it names that
// are not there yet.
func (f *flink) make(id int64, dir blobstore.URI) (data []byte, files map[string][]byte) {
	file, err := metadata.Parse(f.recorded[f.recording.metadata()])
	require.NoError(f.t, err)
	files = map[string][]byte{}
	seen := map[string]bool{}
	rotate := int(id) // which shared file is new
	data, err = file.Rewrite(func(h metadata.Handle) (metadata.Path, error) {
		name, err := h.Path()
		require.NoError(f.t, err)
		rel := strings.TrimPrefix(name, f.recording.root()+"/"+f.recording.job+"/")
		switch {
		case h.Kind == metadata.Directory:
			return metadata.Path{Text: f.folder.Join(rel).String()}, nil
		case h.Kind == metadata.RelativeFile:
			fresh := fmt.Sprintf("%s-%d", rel, id)
			files[dir.Join(fresh).String()] = f.recorded[path.Join(path.Dir(f.recording.metadata()), rel)]
			return metadata.Path{Text: fresh, Relative: true}, nil
		}
		content, ok := f.recorded[rel]
		require.True(f.t, ok, "%s is not in the recording", rel)
		if h.Kind == metadata.AbsoluteFile && id != f.recording.id {
			if h.Shared() && !seen[rel] {
				seen[rel] = true
				rotate--
			}
			if !h.Shared() || rotate%len(f.recorded) == 0 {
				rel = fmt.Sprintf("%s-%d", rel, id)
			}
		}
		u := f.folder.Join(rel)
		if !exists(f.t, f.store, u) {
			files[u.String()] = content
		}
		return metadata.Path{Text: u.String()}, nil
	})
	require.NoError(f.t, err)
	binary.BigEndian.PutUint64(data[8:16], uint64(id))
	return data, files
}

// subsumes deletes what only checkpoint id uses, as Flink does when a newer one
// is complete.
func (f *flink) subsumes(id int64) {
	f.t.Helper()
	for _, u := range below(f.t, f.store, f.folder) {
		if strings.HasSuffix(u.Base(), fmt.Sprintf("-%d", id)) || u.Within(f.chk(id)) {
			require.NoError(f.t, f.store.Delete(f.t.Context(), u))
		}
	}
}

// deletes removes everything the job ever wrote.
func (f *flink) deletes() {
	f.t.Helper()
	deleteBelow(f.t, f.store, f.folder)
	if f.latest != nil {
		deleteBelow(f.t, f.store, f.latest.Path)
	}
}

// pins runs a tick that must succeed.
func (f *flink) pins(app blobstore.URI, opts PinOptions) Pinned {
	f.t.Helper()
	p, err := Pin(f.t.Context(), f.store, app, f, opts)
	require.NoError(f.t, err)
	return p
}

// requireRestores proves that the pin holds checkpoint id of the job to the last
// byte, in files of its own that are named absolutely.
func (f *flink) requireRestores(app blobstore.URI, id int64) {
	f.t.Helper()
	layout := LayoutOf(app)
	s, err := prove(f.t.Context(), f.store, layout.Metadata, nil)
	require.NoError(f.t, err)
	require.Equal(f.t, id, s.CheckpointID)
	refs, err := s.References()
	require.NoError(f.t, err)
	for _, r := range refs {
		require.True(f.t, r.URI.Within(layout.State), "%s lies outside the pin", r.URI)
		require.NotEqual(f.t, metadata.RelativeFile, r.Kind, "%s is relative", r.URI)
	}
	require.Equal(f.t, f.state[id], stateOf(f.t, f.store, layout.Metadata))
}

// stateOf digests every byte range that a checkpoint names, in order.
func stateOf(t testing.TB, store blobstore.Store, u blobstore.URI) (digests []string) {
	t.Helper()
	s, err := Load(t.Context(), store, u, LoadOptions{})
	require.NoError(t, err)
	refs, err := s.References()
	require.NoError(t, err)
	type byteRange struct {
		file         string
		offset, size int64
	}
	known := map[byteRange]string{}
	for _, r := range refs {
		key := byteRange{r.Location.Canonical(), r.Offset, r.Size}
		if known[key] == "" {
			data := get(t, store, r.Location)
			require.LessOrEqual(t, r.Offset+r.Size, int64(len(data)), "%s", r.URI)
			known[key] = fmt.Sprintf("%x", sha256.Sum256(data[r.Offset:r.Offset+r.Size]))
		}
		digests = append(digests, known[key])
	}
	return digests
}

func put(t testing.TB, store blobstore.Store, u string, data []byte) {
	t.Helper()
	_, err := store.Put(t.Context(), blobstore.MustParse(u), bytes.NewReader(data), blobstore.PutOptions{})
	require.NoError(t, err)
}

func get(t testing.TB, store blobstore.Store, u blobstore.URI) []byte {
	t.Helper()
	data, _, err := blobstore.ReadAll(t.Context(), store, u, 0)
	require.NoError(t, err)
	return data
}

func exists(t testing.TB, store blobstore.Store, u blobstore.URI) bool {
	t.Helper()
	_, err := store.Stat(t.Context(), u)
	if err != nil {
		require.ErrorIs(t, err, blobstore.ErrNotExist)
	}
	return err == nil
}

func remove(t testing.TB, store blobstore.Store, u blobstore.URI) {
	t.Helper()
	require.NoError(t, store.Delete(t.Context(), u))
}

// below lists everything below a folder.
func below(t testing.TB, store blobstore.Store, dir blobstore.URI) (found []blobstore.URI) {
	t.Helper()
	for o, err := range store.List(t.Context(), dir, blobstore.ListOptions{}) {
		require.NoError(t, err)
		found = append(found, o.URI)
	}
	return found
}

func deleteBelow(t testing.TB, store blobstore.Store, dir blobstore.URI) {
	t.Helper()
	for _, u := range below(t, store, dir) {
		remove(t, store, u)
	}
}

// contents returns everything below a folder by its path.
func contents(t testing.TB, store blobstore.Store, dir blobstore.URI) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, u := range below(t, store, dir) {
		rel, _ := u.Rel(dir)
		all[path.Clean(rel)] = string(get(t, store, u))
	}
	return all
}

// testdata reads a file of this repository.
func testdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.FromSlash(name))
	require.NoError(t, err)
	return data
}
