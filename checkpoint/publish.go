package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint/metadata"
)

// maxSequenceTries bounds the search for a generation name that is free.
const maxSequenceTries = 100

// publish copies what the source names, proves the copies, and replaces
// last-state/_metadata. Nothing before that replacement changes what a reader
// of the pin sees.
func (t *tick) publish(ctx context.Context, cur published, source *Snapshot) error {
	for h := range source.Handles() {
		if h.Kind == metadata.EmptySegment && !h.OperatorDelegate() {
			return &DamagedError{URI: source.URI.String(), Err: fmt.Errorf("empty segment at offset %d, which Flink cannot restore", h.Offset)}
		}
	}
	t.warnAbout(source)
	files, err := source.files()
	if err != nil {
		return err
	}
	copies, err := t.plan(ctx, cur, files)
	if err != nil {
		return err
	}
	if t.opts.DryRun {
		t.pinned.Result = ResultWouldPin
		return nil
	}
	if err := t.putExisted(ctx, cur); err != nil {
		return err
	}
	if err := t.copyAll(ctx, copies); err != nil {
		return err
	}
	report, err := t.proveFiles(ctx, files, copies)
	if err != nil {
		return err
	}
	gen, data, err := t.putGeneration(ctx, cur, source, files)
	if err != nil {
		return err
	}
	rec := t.describe(source, gen, data, report).succeeds(cur.record)
	rec.Generations = cur.record.Generations + 1
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
	cur.record = rec
	if err := t.putRecord(ctx, &cur); err != nil {
		t.warn("published, but not described: %v; the next tick mends it", err)
		return nil
	}
	t.collectSometimes(ctx, cur, source)
	return nil
}

// warnAbout says what Flink will refuse or ignore although every byte is there.
func (t *tick) warnAbout(s *Snapshot) {
	t.pinned.Warnings = append(t.pinned.Warnings, Warnings(s)...)
}

// Warnings says what Flink will refuse or ignore of a checkpoint although every
// byte of it is there.
func Warnings(s *Snapshot) []string {
	var w []string
	if s.Changelog() {
		// Measured on 1.20.5 and 2.3.0: the entry point restores in NO_CLAIM, and
		// ChangelogStateBackend cannot take the full snapshot that demands.
		w = append(w, "changelog state: Flink does not restore it in application mode (only in CLAIM mode, from a disposable copy); pin a savepoint instead")
	}
	return w
}

// fileCopy is one file of the source that the pin does not hold yet.
type fileCopy struct {
	file   stateFile
	target blobstore.URI
}

// plan decides what to copy. A file is reused only if the metadata that this
// tick will replace names it and the listing shows it whole: anything else in
// the folder may be about to be collected, or be half of something.
func (t *tick) plan(ctx context.Context, cur published, files []stateFile) ([]fileCopy, error) {
	if len(files) == 0 {
		return nil, nil
	}
	named, existing, err := t.inventory(ctx, cur)
	if err != nil {
		return nil, err
	}
	var copies []fileCopy
	var total int64
	for _, f := range files {
		name := stateName(f.URI)
		obj, exists := existing[name]
		if exists && named[name] && f.fits(obj.Size) {
			t.pinned.Reused++
			continue
		}
		if exists && !f.merged && !f.fits(obj.Size) {
			return nil, &DamagedError{URI: t.layout.State.Join(name).String(), Err: fmt.Errorf("a file of %d bytes stands where the %d bytes of %s belong", obj.Size, f.need, f.URI)}
		}
		copies = append(copies, fileCopy{f, t.layout.State.Join(name)})
		total += f.need
	}
	t.pinned.Copied, t.pinned.BytesCopied = len(copies), total
	if t.opts.MaxBytes > 0 && total > t.opts.MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes to copy, --max-bytes is %d", ErrTooLarge, total, t.opts.MaxBytes)
	}
	return copies, nil
}

// inventory returns the state files that the published metadata names, and
// those that exist, by name.
func (t *tick) inventory(ctx context.Context, cur published) (named map[string]bool, existing map[string]blobstore.Object, err error) {
	named = map[string]bool{}
	g, gctx := errgroup.WithContext(ctx)
	if cur.whole() {
		g.Go(func() error {
			s, err := Load(gctx, t.store, t.layout.Metadata, LoadOptions{t.opts.Relocations})
			if err != nil {
				return err
			}
			if s.Object.Tag != cur.object.Tag {
				return errOvertaken
			}
			files, err := s.files()
			for _, f := range files {
				if rel, ok := f.Location.Rel(t.layout.State); ok {
					named[rel] = true
				}
			}
			return err
		})
	}
	g.Go(func() (err error) {
		existing, err = t.listState(gctx)
		return err
	})
	return named, existing, g.Wait()
}

func (t *tick) listState(ctx context.Context) (map[string]blobstore.Object, error) {
	files := map[string]blobstore.Object{}
	for o, err := range t.store.List(ctx, t.layout.State, blobstore.ListOptions{Shallow: true}) {
		if err != nil {
			return nil, err
		}
		if !o.Dir {
			files[o.URI.Base()] = o
		}
	}
	return files, nil
}

// putExisted records, before the first publish, that state exists here: from
// then on a missing pin is an error and not a first start.
func (t *tick) putExisted(ctx context.Context, cur published) error {
	if cur.record.Generation != "" {
		return nil
	}
	_, err := putBytes(ctx, t.store, t.layout.Existed, []byte(fmt.Sprintf("{\"layout\": %d}\n", layoutVersion)), blobstore.PutOptions{IfAbsent: true})
	if errors.Is(err, blobstore.ErrPrecondition) {
		return nil
	}
	return err
}

func (t *tick) copyAll(ctx context.Context, copies []fileCopy) error {
	var mu sync.Mutex
	var missing []string
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for _, c := range copies {
		g.Go(func() error {
			_, err := t.store.Copy(gctx, c.target, c.file.Location)
			if errors.Is(err, blobstore.ErrNotExist) {
				mu.Lock()
				missing = append(missing, c.file.URI.String())
				mu.Unlock()
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("%w: %w", errVanished, &DamagedError{URI: t.pinned.Source + "/" + MetadataName, Missing: missing})
	}
	return nil
}

// proveFiles compares the size of every file in the pin with what the
// checkpoint says. It looks after all copies are made and takes no copy's word,
// because a collection of garbage may have deleted what stood there before.
func (t *tick) proveFiles(ctx context.Context, files []stateFile, copies []fileCopy) (Report, error) {
	at, err := collectionsAtWork(ctx, t.store, t.layout)
	if err != nil {
		return Report{}, err
	}
	listed, err := t.listState(ctx)
	if err != nil {
		return Report{}, err
	}
	if at.threaten(copies, youngest(listed)) {
		return Report{}, ErrCollecting
	}
	report := check(files, func(f stateFile) (int64, bool) {
		o, ok := listed[stateName(f.URI)]
		return o.Size, ok
	})
	err = report.Err(t.obs.Latest.Path.Join(MetadataName))
	if len(report.Missing) > 0 {
		err = fmt.Errorf("%w: %w", errVanished, err)
	}
	return report, err
}

// putGeneration writes the metadata of the new generation, with every path
// pointing into the pin. The bytes depend on the source and the generation's
// name only, so a tick that was killed here leaves what its successor writes.
func (t *tick) putGeneration(ctx context.Context, cur published, source *Snapshot, proved []stateFile) (string, []byte, error) {
	first := sequenceOf(cur.record.Generation) + 1
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

// rewrite points every path of the source into the pin, absolute, in the
// spelling of the job's own paths.
//
// Absolute because a relative name in a list that a later checkpoint shares is
// written on relative to that checkpoint (FLINK-39964). The folders that a
// merged operator handle names are labels which Flink deletes when it claims a
// checkpoint, so they become one that holds nothing.
func (t *tick) rewrite(source *Snapshot, gen string) ([]byte, error) {
	spelled := t.named.spelledLike(t.obs.Latest.Path)
	empty := spelled.generation(gen).Join("merged").String()
	targets := map[string]string{} // by path text: handles share files
	data, err := source.Rewrite(func(h metadata.Handle) (metadata.Path, error) {
		if h.Kind == metadata.Directory {
			return metadata.Path{Text: empty}, nil
		}
		text, err := h.Path()
		if err != nil {
			return metadata.Path{}, err
		}
		target, ok := targets[text]
		if !ok {
			u, err := source.resolve(h)
			if err != nil {
				return metadata.Path{}, err
			}
			target = spelled.State.Join(stateName(u)).String()
			targets[text] = target
		}
		return metadata.Path{Text: target}, nil
	})
	if err != nil {
		return nil, &DamagedError{URI: source.URI.String(), Err: err}
	}
	return data, nil
}

// checkRewritten reads the bytes about to be published as anyone will: they
// must parse and name proved files of the pin, all of them and nothing else.
func (t *tick) checkRewritten(data []byte, proved []stateFile) error {
	s, err := parse(t.named.Metadata, blobstore.Object{}, data, t.opts.Relocations)
	if err != nil {
		return err
	}
	files, err := s.files()
	if err != nil {
		return err
	}
	names := make(map[string]bool, len(proved))
	for _, f := range proved {
		names[stateName(f.URI)] = true
	}
	for _, f := range files {
		if rel, ok := f.Location.Rel(t.layout.State); !ok || !names[rel] {
			return &DamagedError{URI: t.named.Metadata.String(), Err: fmt.Errorf("rewriting left %s, which is not in the pin", f.URI)}
		}
	}
	if len(files) != len(names) {
		return &DamagedError{URI: t.named.Metadata.String(), Err: fmt.Errorf("rewriting left %d of %d files", len(files), len(names))}
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
