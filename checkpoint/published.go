package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

// published is what stands at the constant path, and its history.
type published struct {
	object    *blobstore.Object // of last-state/_metadata; nil when there is none
	record    Record            // zero when there is no history
	recordTag string            // of pin.json; "" when there is none
	foreign   *Snapshot         // last-state/_metadata when chkpin did not write it

	// damaged: last-state/_metadata does not parse and no generation replaces it.
	damaged bool
}

// condition is that last-state/_metadata is still what was read.
func (p published) condition() blobstore.PutOptions {
	if p.object == nil {
		return blobstore.PutOptions{IfAbsent: true}
	}
	return blobstore.PutOptions{IfTag: p.object.Tag}
}

// readPublished finds out what is pinned. last-state/_metadata is the truth:
// where pin.json does not describe it, as after a tick that was killed between
// the two, pin.json is mended; where it vanished, it is put back.
func (t *tick) readPublished(ctx context.Context) (published, error) {
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
		if ok {
			p.recordTag = obj.Tag
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return p, err
	}
	switch {
	case p.object == nil:
		return t.putBack(ctx, p)
	case p.recordTag != "" && p.record.Metadata.Tag == p.object.Tag && p.object.Tag != "":
		return p, nil
	}
	return t.reconcile(ctx, p)
}

// reconcile finds the history of a last-state/_metadata that pin.json does not
// describe.
func (t *tick) reconcile(ctx context.Context, p published) (published, error) {
	data, obj, err := blobstore.ReadAll(ctx, t.store, t.layout.Metadata, maxMetadata)
	if err != nil {
		return p, err
	}
	p.object = &obj
	digest := digestOf(data)
	if p.recordTag == "" || p.record.Metadata.SHA256 != digest {
		names, err := generationNames(ctx, t.store, t.layout)
		if err != nil {
			return p, err
		}
		found, err := t.findGeneration(ctx, names, digest)
		if err != nil {
			return p, err
		}
		if found == nil {
			return t.judgeForeign(ctx, p, data)
		}
		p.record = t.mergeHistory(*found, p.record)
	}
	p.record.Metadata.Tag = obj.Tag
	return t.mendRecord(ctx, p)
}

// mergeHistory gives a generation's own record what the record of the pin knew
// beyond it.
func (t *tick) mergeHistory(generation, pin Record) Record {
	if pin.Generation == "" || sequenceOf(generation.Generation) > sequenceOf(pin.Generation) {
		return generation
	}
	known := slices.Concat(generation.Previous, []Run{generation.Run})
	for _, r := range slices.Concat([]Run{pin.Run}, pin.Previous) {
		if !slices.ContainsFunc(known, r.is) {
			generation.Previous = append(generation.Previous, r)
		}
	}
	generation.Seen, generation.Held = pin.Seen, pin.Held
	return generation
}

func (t *tick) mendRecord(ctx context.Context, p published) (published, error) {
	if t.opts.DryRun {
		return p, nil
	}
	opts := blobstore.PutOptions{IfTag: p.recordTag, IfAbsent: p.recordTag == ""}
	obj, err := putBytes(ctx, t.store, t.layout.Record, p.record.encode(), opts)
	if err == nil {
		p.recordTag = obj.Tag
	}
	if errors.Is(err, blobstore.ErrPrecondition) {
		err = nil // another chkpin mends it
	}
	return p, err
}

// findGeneration looks for the generation with this digest, newest first.
func (t *tick) findGeneration(ctx context.Context, names []string, digest string) (*Record, error) {
	for _, name := range names {
		var r Record
		_, ok, err := readJSON(ctx, t.store, t.layout.generation(name).Join("pin.json"), &r)
		if err != nil {
			return nil, err
		}
		if ok && r.Metadata.SHA256 == digest {
			return &r, nil
		}
	}
	return nil, nil
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

// putBack publishes the newest generation that proves where last-state/_metadata
// is missing or does not parse.
func (t *tick) putBack(ctx context.Context, p published) (published, error) {
	names, err := generationNames(ctx, t.store, t.layout)
	if err != nil || len(names) == 0 {
		p.damaged = p.object != nil
		return p, err
	}
	for _, name := range names {
		var r Record
		dir := t.layout.generation(name)
		_, ok, err := readJSON(ctx, t.store, dir.Join("pin.json"), &r)
		if err != nil {
			return p, err
		}
		if !ok {
			continue
		}
		snap, err := prove(ctx, t.store, dir, t.opts.Relocations)
		if damaged := (*DamagedError)(nil); errors.As(err, &damaged) || errors.Is(err, blobstore.ErrNotExist) {
			continue
		} else if err != nil {
			return p, err
		}
		t.warn("%s was missing or damaged; put back from generation %s", t.layout.Metadata, name)
		p.record = t.mergeHistory(r, p.record)
		if t.opts.DryRun {
			return p, nil
		}
		obj, err := putBytes(ctx, t.store, t.layout.Metadata, snap.Bytes(), p.condition())
		if errors.Is(err, blobstore.ErrPrecondition) {
			return p, fmt.Errorf("%w: another chkpin published meanwhile", ErrNewer)
		}
		if err != nil {
			return p, err
		}
		p.object = &obj
		p.record.Metadata.Tag = obj.Tag
		return t.mendRecord(ctx, p)
	}
	p.damaged = p.object != nil
	return p, nil
}

// prove loads a checkpoint and checks every byte range; what does not prove is
// a *DamagedError.
func prove(ctx context.Context, store blobstore.Store, u blobstore.URI, rs Relocations) (*Snapshot, error) {
	s, err := Load(ctx, store, u, LoadOptions{rs})
	if err != nil {
		return nil, err
	}
	report, err := Verify(ctx, store, s)
	if err != nil {
		return nil, err
	}
	return s, report.Err(s.URI)
}

// generationNames lists the generations, finished or not, newest first.
func generationNames(ctx context.Context, store blobstore.Store, l Layout) ([]string, error) {
	var names []string
	for o, err := range store.List(ctx, l.Generations, blobstore.ListOptions{Shallow: true}) {
		if err != nil {
			return nil, err
		}
		if o.Dir && sequenceOf(o.URI.Base()) > 0 {
			names = append(names, o.URI.Base())
		}
	}
	sortGenerations(names)
	return names, nil
}

func sortGenerations(names []string) {
	slices.SortFunc(names, func(a, b string) int {
		if d := sequenceOf(b) - sequenceOf(a); d != 0 {
			return int(d)
		}
		return strings.Compare(b, a)
	})
}
