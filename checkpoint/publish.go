package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint/metadata"
)

// maxSequenceTries bounds the search for a generation name that is free.
const maxSequenceTries = 100

// publish copies what the source names, proves the copies, and replaces
// last-state/_metadata. Nothing before that replacement changes what a reader
// of the pin sees.
func (t *tick) publish(ctx context.Context, cur published, source *Snapshot) error {
	if err := source.movable(); err != nil {
		return err
	}
	t.pinned.Warnings = append(t.pinned.Warnings, Warnings(source)...)
	files, err := source.files()
	if err != nil {
		return err
	}
	named, err := t.namedByPin(ctx, cur, files)
	if err != nil {
		return err
	}
	copies, err := t.plan(files, named)
	if err != nil {
		return err
	}
	if len(files) > 0 {
		t.checkMounts(ctx)
	}
	if t.opts.DryRun {
		t.pinned.Result = ResultWouldPin
		return nil
	}
	recorded := cur.record.Generation != ""
	if !recorded {
		if recorded, err = t.newHistory(ctx); err != nil {
			return err
		}
	}
	report, err := t.transfer(ctx, files, copies)
	if err != nil {
		return err
	}
	if !recorded {
		if err := t.putExisted(ctx); err != nil {
			return err
		}
	}
	gen, data, err := t.putGeneration(ctx, cur, source, files)
	if err != nil {
		return err
	}
	rec := t.describe(source, gen, data, report).succeeds(cur.record)
	rec.Parent, rec.Generations = cur.record.Generation, cur.record.Generations+1
	if _, err := putBytes(ctx, t.store, t.layout.generation(gen).Join(recordName), rec.encode(), blobstore.PutOptions{}); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err // the last moment at which stopping changes nothing
	}
	obj, err := putBytes(ctx, t.store, t.layout.Metadata, data, unchanged(cur.object))
	if errors.Is(err, blobstore.ErrPrecondition) {
		obj, err = t.lostRace(ctx, rec)
	}
	if err != nil {
		return err
	}
	t.pinned.Result, t.pinned.Generation, t.pinned.Restorable = ResultPinned, gen, true
	t.pinned.Published = rec.Checkpoint
	rec.Metadata.Tag = obj.Tag
	cur.object, cur.foreign, cur.damaged, cur.record = &obj, nil, false, rec
	t.current = cur
	if err := t.putRecord(ctx, &cur); err != nil {
		t.warn("published, but not described: %v; the next tick mends it", err)
		return nil
	}
	t.collectSometimes(ctx, cur, source)
	return nil
}

// checkMounts warns when the pin and the checkpoint are on volumes that are
// mounted apart: paths on a volume are absolute, so Flink restores only where both
// are mounted, and there are no hard links from one to the other.
func (t *tick) checkMounts(ctx context.Context) {
	mounts, ok := t.store.(blobstore.Mounter)
	if !ok {
		return
	}
	from, err := mounts.Mount(ctx, t.opts.Relocations.Apply(t.obs.Latest.Path))
	if err != nil {
		return // copying says it better
	}
	to, err := mounts.Mount(ctx, t.layout.App)
	if err == nil && from != "" && to != "" && from != to {
		t.warn("the checkpoint is on the mount %s and the pin on the mount %s: files are copied, not linked, and JobManager and TaskManagers must have both at the same paths", from, to)
	}
}

// Warnings says what Flink will refuse or ignore of a checkpoint although every
// byte of it is there, and what may be gone soon: a pin that "cp" made names files
// of the job, which Flink deletes.
func Warnings(s *Snapshot) []string {
	var w []string
	if at := s.Object.URI.Dir(); at.Base() == lastState {
		if u := namedOutside(s, LayoutOf(at.Dir())); !u.IsZero() {
			w = append(w, fmt.Sprintf("this pin was copied by something else than chkpin: it names files of another place, such as %s, and restores only as long as they are there", u))
		}
	}
	if s.Changelog() {
		// Measured on 1.20.5 and 2.3.0: the entry point restores in NO_CLAIM, and
		// ChangelogStateBackend cannot take the full snapshot that demands, whether it
		// restored a checkpoint or a savepoint. A job without one reads its files.
		w = append(w, "changelog state: in application mode a job that keeps its changelog on fails at the first checkpoint after it restored this; start it with state.changelog.enabled off (or in CLAIM mode, from a disposable copy)")
	}
	return w
}

// putExisted records, before the first publish, that state exists here: from
// then on a missing pin is an error and not a first start. Not before the copies
// are there: a job whose first tick failed may start without state still.
func (t *tick) putExisted(ctx context.Context) error {
	err := noteExisted(ctx, t.store, t.layout, t.obs.Run)
	if errors.Is(err, blobstore.ErrPrecondition) {
		_, err = t.newHistory(ctx)
	}
	return err
}

// noteExisted writes chkpin.json. Where one stands already the error is
// [blobstore.ErrPrecondition].
func noteExisted(ctx context.Context, store blobstore.Store, l Layout, run Run) error {
	data, err := json.Marshal(existed{layoutVersion, run})
	if err == nil {
		_, err = putBytes(ctx, store, l.Existed, data, blobstore.PutOptions{IfAbsent: true})
	}
	return err
}

// newHistory decides what to do where nothing is pinned, and reports whether
// state was once: then a run that started empty would make the loss look like a
// first start. A tick that was killed before its first publish left the record,
// too; its run goes on.
func (t *tick) newHistory(ctx context.Context) (recorded bool, err error) {
	var e existed
	_, ok, err := readJSON(ctx, t.store, t.layout.Existed, &e)
	switch {
	case err != nil || !ok:
		return false, err
	case e.Run.is(t.obs.Run):
		return true, nil
	case t.obs.Restored == nil && !t.opts.AcceptLineage:
		t.pinned.StartedEmpty = true
		return true, &HeldError{Run: t.obs.Run, Reason: fmt.Sprintf("state was pinned at %s once and none is left, and this run started empty", t.named.App)}
	}
	t.warn("state was pinned at %s once and none is left; a new history begins", t.named.App)
	return true, nil
}

// putGeneration writes the metadata of the new generation, with every path
// pointing into the pin. The bytes depend on the source and the generation's
// name only, so a tick that was killed here leaves what its successor writes.
func (t *tick) putGeneration(ctx context.Context, cur published, source *Snapshot, proved []stateFile) (string, []byte, error) {
	first := cur.record.next()
	for seq := first; seq < first+maxSequenceTries; seq++ {
		gen := nameGeneration(seq, source.CheckpointID)
		data, err := t.rewrite(source, gen)
		if err != nil {
			return "", nil, err
		}
		if err := t.checkRewritten(data, proved); err != nil {
			return "", nil, err
		}
		u := t.layout.generation(gen).Join(MetadataName)
		_, err = putBytes(ctx, t.store, u, data, blobstore.PutOptions{IfAbsent: true})
		if !errors.Is(err, blobstore.ErrPrecondition) {
			return gen, data, err
		}
		there, _, err := blobstore.ReadAll(ctx, t.store, u, maxMetadata)
		if err == nil && bytes.Equal(there, data) {
			return gen, data, nil
		}
		if err != nil && !errors.Is(err, blobstore.ErrNotExist) {
			return "", nil, err
		}
	}
	return "", nil, fmt.Errorf("%s holds %d generations from %d on that were never published", t.layout.Generations, maxSequenceTries, first)
}

// rewrite points every path of the source into the pin, in the spelling of the
// job's own paths.
func (t *tick) rewrite(source *Snapshot, gen string) ([]byte, error) {
	spelled := t.named.spelledLike(t.obs.Latest.Path)
	return source.moved(spelled.State, spelled.merged(gen), stateName)
}

// moved is the metadata of s with every path pointing into a folder of state
// files, absolute; nameOf names a file there.
//
// Absolute because a relative name in a list that a later checkpoint shares is
// written on relative to that checkpoint (FLINK-39964). The folders that a
// merged operator handle names are labels which Flink deletes when it claims a
// checkpoint, so they become one that holds nothing.
func (s *Snapshot) moved(state, nothing blobstore.URI, nameOf func(blobstore.URI) string) ([]byte, error) {
	targets := map[string]string{} // by path text: handles share files
	data, err := s.Rewrite(func(h metadata.Handle) (metadata.Path, error) {
		if h.Kind == metadata.Directory {
			return metadata.Path{Text: nothing.String()}, nil
		}
		text, err := h.Path()
		if err != nil {
			return metadata.Path{}, err
		}
		target, ok := targets[text]
		if !ok {
			u, err := s.resolve(h)
			if err != nil {
				return metadata.Path{}, err
			}
			target = state.Join(nameOf(u)).String()
			targets[text] = target
		}
		return metadata.Path{Text: target}, nil
	})
	if err != nil {
		return nil, &DamagedError{URI: s.URI.String(), Err: err}
	}
	return data, nil
}

// movable refuses a checkpoint that no copy of it would restore.
func (s *Snapshot) movable() error {
	for h := range s.Handles() {
		if h.Kind == metadata.EmptySegment && !h.OperatorDelegate() {
			return &DamagedError{URI: s.URI.String(), Err: fmt.Errorf("empty segment at offset %d, which Flink cannot restore", h.Offset)}
		}
	}
	return nil
}

// checkRewritten reads the bytes about to be published as anyone will: they
// must parse and name proved files of the pin, all of them and nothing else.
func (t *tick) checkRewritten(data []byte, proved []stateFile) error {
	names := make(map[string]bool, len(proved))
	for _, f := range proved {
		names[stateName(f.URI)] = true
	}
	return checkMoved(t.named.Metadata, data, t.layout.State, names, t.opts.Relocations)
}

// checkMoved checks that data, to be published at u, names the files of a folder
// with these names, and nothing else.
func checkMoved(u blobstore.URI, data []byte, state blobstore.URI, names map[string]bool, rs Relocations) error {
	s, err := parse(u, blobstore.Object{}, data, rs)
	if err != nil {
		return err
	}
	files, err := s.files()
	if err != nil {
		return err
	}
	for _, f := range files {
		if rel, ok := f.Location.Rel(state); !ok || !names[rel] {
			return &DamagedError{URI: u.String(), Err: fmt.Errorf("rewriting left %s, which is not in the copy", f.URI)}
		}
	}
	if len(files) != len(names) {
		return &DamagedError{URI: u.String(), Err: fmt.Errorf("rewriting left %d of %d files", len(files), len(names))}
	}
	return nil
}

func (t *tick) describe(source *Snapshot, gen string, data []byte, proof Report) Record {
	latest := t.obs.Latest
	return Record{
		Layout:     layoutVersion,
		Generation: gen,
		Metadata:   MetadataRecord{SHA256: digestOf(data), Size: int64(len(data))},
		Checkpoint: CheckpointRecord{
			ID:            source.CheckpointID,
			Source:        latest.Path.String(),
			Savepoint:     latest.Savepoint,
			Triggered:     latest.Triggered,
			FormatVersion: source.Version,
		},
		Run:    t.obs.Run,
		Files:  proof.Files,
		Bytes:  proof.Bytes,
		Proved: proof.Files,
	}
}

// lostRace settles a publish whose condition was not met: somebody else wrote
// last-state/_metadata since this tick read it. It may have been this very
// write, its answer lost, or another chkpin with the same checkpoint: then the
// object is what this tick wanted.
func (t *tick) lostRace(ctx context.Context, rec Record) (blobstore.Object, error) {
	now, obj, err := blobstore.ReadAll(ctx, t.store, t.layout.Metadata, maxMetadata)
	switch {
	case errors.Is(err, blobstore.ErrNotExist):
		return obj, errOvertaken
	case err == nil && digestOf(now) != rec.Metadata.SHA256:
		return obj, errOvertaken
	}
	return obj, err
}
