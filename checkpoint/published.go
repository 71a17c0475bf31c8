package checkpoint

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

// published is what stands at the constant path, and its history.
type published struct {
	object     *blobstore.Object // of last-state/_metadata; nil when there is none
	record     Record            // zero when there is no history
	recordFile *blobstore.Object // of pin.json; nil when there is none
	foreign    *Snapshot         // last-state/_metadata when chkpin did not write it

	// damaged: last-state/_metadata does not parse and no generation replaces it.
	damaged bool
}

// whole reports whether a pin of chkpin stands at the constant path.
func (p published) whole() bool { return p.object != nil && p.foreign == nil && !p.damaged }

// unchanged is the condition that an object is still what was read; nil means
// that there was none.
func unchanged(read *blobstore.Object) blobstore.PutOptions {
	if read == nil {
		return blobstore.PutOptions{IfAbsent: true}
	}
	return blobstore.PutOptions{IfTag: read.Tag}
}

// readPublished finds out what is pinned. last-state/_metadata is the truth:
// where pin.json does not describe it, as after a tick that was killed between
// the two, pin.json is mended; where it vanished, it is put back.
func (t *tick) readPublished(ctx context.Context) (published, error) {
	p, err := t.lookAtPin(ctx)
	switch {
	case err != nil:
		return p, err
	case p.object == nil:
		return t.putBack(ctx, p)
	case p.described():
		return p, nil
	}
	return t.reconcile(ctx, p)
}

// described reports whether pin.json is about what stands at the constant path.
func (p published) described() bool {
	return p.object != nil && p.object.Tag != "" && p.object.Tag == p.record.Metadata.Tag
}

// lookAtPin reads what is there, in one step and without mending anything.
func (t *tick) lookAtPin(ctx context.Context) (published, error) {
	var p published
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		obj, err := t.store.Stat(gctx, t.layout.Metadata)
		if errors.Is(err, blobstore.ErrNotExist) {
			return nil
		}
		p.object = &obj
		return err
	})
	g.Go(func() error {
		obj, ok, err := readJSON(gctx, t.store, t.layout.Record, &p.record)
		if errors.Is(err, errNoRecord) {
			ok, err, p.record = true, nil, Record{} // to be mended
		}
		if ok {
			p.recordFile = &obj
		}
		return err
	})
	err := g.Wait()
	return p, err
}

// reconcile finds the history of a last-state/_metadata that pin.json does not
// describe.
func (t *tick) reconcile(ctx context.Context, p published) (published, error) {
	data, obj, err := blobstore.ReadAll(ctx, t.store, t.layout.Metadata, maxMetadata)
	if errors.Is(err, blobstore.ErrNotExist) {
		return p, errOvertaken
	}
	if err != nil {
		return p, err
	}
	p.object = &obj
	digest := digestOf(data)
	if p.record.Metadata.SHA256 != digest {
		found, err := findGeneration(ctx, t.store, t.layout, digest)
		if err != nil {
			return p, err
		}
		if found == nil {
			return t.judgeForeign(ctx, p, data)
		}
		was := p.record
		p.record = found.succeeds(was)
		if p.record.Lost, err = t.lostSince(ctx, was, *found); err != nil {
			return p, err
		}
	}
	p.record.Metadata.Tag = obj.Tag
	return t.mendRecord(ctx, p)
}

// lostSince is [Record.Lost] for a pin that went back to an older generation before
// pin.json could say why: a tick that put it back was killed then, if what it was
// put back from does not prove; a rollback else, and always if the pin is on hold
// for it.
func (t *tick) lostSince(ctx context.Context, was, now Record) (int64, error) {
	if was.Checkpoint.ID <= now.Checkpoint.ID || sequenceOf(was.Generation) < sequenceOf(now.Generation) {
		return 0, nil // it went on; to a lower number, too, where another lineage was accepted
	}
	hold, _, err := standingHold(ctx, t.store, t.layout)
	if err != nil || hold != nil && hold.Generation == now.Generation {
		return 0, err
	}
	_, err = prove(ctx, t.store, t.layout.generation(was.Generation).Join(MetadataName), t.opts.Relocations)
	if as[*DamagedError](err) || errors.Is(err, blobstore.ErrNotExist) {
		return max(was.Lost, was.Checkpoint.ID), nil
	}
	return 0, err
}

func (t *tick) mendRecord(ctx context.Context, p published) (published, error) {
	if t.opts.DryRun {
		return p, nil
	}
	err := t.putRecord(ctx, &p)
	return p, err
}

// putRecord writes the record to pin.json unless another chkpin has written
// there since it was read: then that one, or the next tick, knows as much.
func (t *tick) putRecord(ctx context.Context, p *published) error {
	obj, err := putBytes(ctx, t.store, t.layout.Record, p.record.encode(), unchanged(p.recordFile))
	if errors.Is(err, blobstore.ErrPrecondition) {
		return nil
	}
	if err == nil {
		p.recordFile = &obj
	}
	return err
}

// findGeneration looks for the generation with this digest, newest first.
func findGeneration(ctx context.Context, store blobstore.Store, l Layout, digest string) (*Record, error) {
	names, err := generationNames(ctx, store, l)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		r, ok, err := readManifest(ctx, store, l.generation(name))
		if err != nil {
			return nil, err
		}
		if ok && r.Metadata.SHA256 == digest {
			return &r, nil
		}
	}
	return nil, nil
}

// newestProvable finds the generation to use when last-state/_metadata cannot
// be: the one that the record says is published, or else the first that proves
// on the way back from it. It is nil when no generation proves.
func newestProvable(ctx context.Context, store blobstore.Store, l Layout, published string, rs Relocations) (*Record, *Snapshot, error) {
	return findProvable(ctx, store, l, published, rs, func(string, error) {})
}

// findProvable is newestProvable that tells of every finished generation which
// does not prove.
func findProvable(ctx context.Context, store blobstore.Store, l Layout, published string, rs Relocations, refused func(generation string, why error)) (*Record, *Snapshot, error) {
	all, err := readManifests(ctx, store, l)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range wayBack(published, all) {
		s, err := prove(ctx, store, l.generation(r.Generation).Join(MetadataName), rs)
		if damaged := (*DamagedError)(nil); errors.As(err, &damaged) || errors.Is(err, blobstore.ErrNotExist) {
			refused(r.Generation, err)
			continue
		}
		return &r, s, err
	}
	return nil, nil, nil
}

// judgeForeign handles a last-state/_metadata that is no generation of ours.
func (t *tick) judgeForeign(ctx context.Context, p published, data []byte) (published, error) {
	foreign, err := parse(t.layout.Metadata, *p.object, data, t.opts.Relocations)
	if err == nil {
		p.foreign = foreign
		return p, nil
	}
	t.warn("%v", err)
	return t.putBack(ctx, p)
}

// putBack publishes a generation that proves where last-state/_metadata is
// missing or does not parse.
func (t *tick) putBack(ctx context.Context, p published) (published, error) {
	r, snap, err := newestProvable(ctx, t.store, t.layout, p.record.Generation, t.opts.Relocations)
	if err != nil || r == nil {
		p.damaged = p.object != nil
		if err == nil && p.record.Generation != "" {
			t.warn("%s was missing or damaged, and of no generation is every file there", t.named.Metadata)
		}
		return p, err
	}
	lost := p.record
	p.record = r.succeeds(lost)
	p.record.Lost = lost.Lost
	if r.Generation != lost.Generation {
		p.record.Lost = max(lost.Lost, lost.Checkpoint.ID)
	}
	if t.opts.DryRun {
		t.warn("%s is missing or damaged; it would be put back from generation %s", t.named.Metadata, r.Generation)
		p.damaged = true
		return p, nil
	}
	t.warn("%s was missing or damaged; put back from generation %s", t.named.Metadata, r.Generation)
	obj, err := putBytes(ctx, t.store, t.layout.Metadata, snap.Bytes(), unchanged(p.object))
	if errors.Is(err, blobstore.ErrPrecondition) {
		return p, errOvertaken
	}
	if err != nil {
		return p, err
	}
	p.object = &obj
	p.record.Metadata.Tag = obj.Tag
	return t.mendRecord(ctx, p)
}

// prove loads a metadata file of the pin and checks every byte range; what does
// not prove is a *DamagedError.
func prove(ctx context.Context, store blobstore.Store, at blobstore.URI, rs Relocations) (*Snapshot, error) {
	s, err := loadAt(ctx, store, at, rs)
	if err != nil {
		return nil, err
	}
	report, err := Verify(ctx, store, s)
	if err != nil {
		return nil, err
	}
	return s, report.Err(s.URI)
}
