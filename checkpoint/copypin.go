package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/chkpin/chkpin/blobstore"
)

// pinCopy copies a pin, or its published generation alone, to where another copy
// may stand. It looks at the destination before the source, so that of two that
// are at work at once none takes back what the other did.
type pinCopy struct {
	store       blobstore.Store
	named, from Layout // the source as it is named, and where it is found
	target, to  Layout // the destination likewise
	opts        CopyOptions

	// publishedOnly leaves out the earlier generations, and takes the source's word
	// that the published one proves.
	publishedOnly bool

	copied Copied
	source source
	there  published // at the destination
}

// source is the pin to be copied.
type source struct {
	record      Record
	digest      string    // of last-state/_metadata
	snapshot    *Snapshot // of last-state/_metadata
	generations []Record  // to copy, newest first; the published one among them
	hold        []byte    // hold.json, nil for none
}

// run starts again when its source changes, and when somebody else writes to the
// destination.
func (c *pinCopy) run(ctx context.Context) (Copied, error) {
	for try := 1; ; try++ {
		c.copied = Copied{Kind: KindPin, Path: c.target.Metadata}
		err := c.once(ctx)
		again := errors.Is(err, errVanished) || errors.Is(err, errTaken) || errors.Is(err, errOvertaken) || errors.Is(err, ErrCollecting)
		if !again || try == tries {
			return c.copied, err
		}
		c.opts.Logger.Info("starting again", "source", c.named.App, "try", try, "reason", err)
		if err := c.opts.Sleep(ctx, time.Duration(try)*time.Second); err != nil {
			return c.copied, err
		}
	}
}

func (c *pinCopy) once(ctx context.Context) error {
	if err := c.readDestination(ctx); err != nil {
		return err
	}
	if err := c.readSource(ctx); err != nil {
		return err
	}
	c.copied.CheckpointID = c.source.snapshot.CheckpointID
	files, err := c.readGenerations(ctx)
	if damaged := (*DamagedError)(nil); errors.As(err, &damaged) { // or collected meanwhile
		if moved := c.stillPublished(ctx, c.source.snapshot); moved != nil {
			return moved
		}
	}
	if err != nil {
		return err
	}
	for _, g := range c.source.generations {
		c.copied.Generations = append(c.copied.Generations, g.Generation)
	}
	published, err := c.moved(c.source.snapshot, c.source.record.Generation)
	if err != nil {
		return err
	}
	digest := digestOf(published)
	published = nil // not to be kept for hours
	if err := c.admit(ctx, digest); err != nil {
		return err
	}
	d := &delivery{
		store: c.store, state: c.to.State, source: c.named.Metadata, parallel: c.opts.Parallel,
		nameOf: func(f stateFile) string { return c.stateName(f.URI) },
	}
	named, err := c.namedThere(ctx)
	if err != nil {
		return err
	}
	l, err := d.inspect(ctx, files)
	if err != nil {
		return err
	}
	l.report(&c.copied)
	maps.DeleteFunc(l.claimed, func(name string, _ bool) bool { return named[name] })
	c.copied.Warnings = append(c.copied.Warnings, Warnings(c.source.snapshot)...)
	if c.opts.DryRun {
		c.copied.Result = ResultWouldCopy
		c.copied.Requests = 12 + 4*len(c.source.generations) + len(files)/1000 + l.requests()
		return nil
	}
	if err := c.putExisted(ctx); err != nil {
		return err
	}
	if err := l.bring(ctx, &c.copied, c.opts.Progress); err != nil {
		return err
	}
	for _, g := range slices.Backward(c.source.generations) {
		if err := c.putGeneration(ctx, g, l.names); err != nil {
			return err
		}
	}
	// A collection at the destination that began before these generations stood
	// there may be about to delete what was reused.
	if err := l.confirm(ctx); err != nil {
		return err
	}
	if published, err = c.moved(c.source.snapshot, c.source.record.Generation); err != nil {
		return err
	}
	return c.publish(ctx, published)
}

// confirm looks again at files that stood there and were relied on, once
// something names them.
func (l *cargo) confirm(ctx context.Context) error {
	if len(l.claimed) == 0 {
		return nil
	}
	listed, err := l.list(ctx)
	if err != nil {
		return err
	}
	threatened, err := l.threatened(ctx, listed, l.claimed, youngest(listed))
	if err == nil && threatened {
		err = ErrCollecting
	}
	if err != nil {
		return err
	}
	_, err = l.prove(l.files, listed)
	return err
}

// readDestination looks at what stands there; a record that is none stands for
// no record.
func (c *pinCopy) readDestination(ctx context.Context) error {
	t := tick{store: c.store, layout: c.to}
	there, err := t.lookAtPin(ctx)
	c.there = there
	return err
}

// namedThere is [tick.namedByPin] of the destination.
func (c *pinCopy) namedThere(ctx context.Context) (map[string]bool, error) {
	if c.there.object == nil {
		return nil, nil
	}
	named, err := namedBy(ctx, c.store, c.target.Metadata, c.to.State, c.there.object.Tag, c.opts.Relocations)
	if damaged := (*DamagedError)(nil); errors.As(err, &damaged) {
		return nil, nil // to be replaced
	}
	return named, err
}

// readSource reads what is published, its history, and what goes with it.
func (c *pinCopy) readSource(ctx context.Context) error {
	data, obj, err := blobstore.ReadAll(ctx, c.store, c.from.Metadata, maxMetadata)
	if errors.Is(err, blobstore.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrPinGone, c.named.App)
	}
	if err != nil {
		return err
	}
	s := source{digest: digestOf(data)}
	if s.snapshot, err = parse(c.named.Metadata, obj, data, c.opts.Relocations); err != nil {
		return err
	}
	if _, _, err = readJSON(ctx, c.store, c.from.Record, &s.record); err != nil && !errors.Is(err, errNoRecord) {
		return err
	}
	if s.record.Metadata.SHA256 != s.digest { // a tick was killed between the two, or is at work
		if err := c.stillPublished(ctx, s.snapshot); err != nil {
			return err
		}
		found, err := findGeneration(ctx, c.store, c.from, s.digest)
		if err != nil {
			return err
		}
		if found == nil {
			return &DamagedError{URI: c.named.Metadata.String(), Err: errors.New("no generation of the pin is the same: chkpin did not write it; it can be copied by itself, as a checkpoint")}
		}
		s.record = found.succeeds(s.record)
	}
	c.source = s
	c.source.hold, err = c.readIfThere(ctx, c.from.Hold)
	return err
}

// stillPublished is errOvertaken when the source has moved on since it was read.
func (c *pinCopy) stillPublished(ctx context.Context, read *Snapshot) error {
	now, err := c.store.Stat(ctx, c.from.Metadata)
	if errors.Is(err, blobstore.ErrNotExist) || err == nil && now.Tag != read.Object.Tag {
		return errOvertaken
	}
	return err
}

// readIfThere is nil for an object that does not exist.
func (c *pinCopy) readIfThere(ctx context.Context, u blobstore.URI) ([]byte, error) {
	data, _, err := blobstore.ReadAll(ctx, c.store, u, maxMetadata)
	if errors.Is(err, blobstore.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// readGenerations decides which generations are copied, and what files that
// takes.
func (c *pinCopy) readGenerations(ctx context.Context) ([]stateFile, error) {
	if err := c.source.snapshot.movable(); err != nil {
		return nil, err
	}
	files, err := c.source.snapshot.files()
	if err != nil || c.publishedOnly {
		c.source.generations = []Record{c.source.record}
		return files, err
	}
	names, err := generationNames(ctx, c.store, c.from)
	if err != nil {
		return nil, err
	}
	listed, err := (&delivery{store: c.store, state: c.from.State}).list(ctx)
	if err != nil {
		return nil, err
	}
	proof := func(files []stateFile, u blobstore.URI) error {
		for _, f := range files {
			if !f.Location.Within(c.from.State) {
				return &DamagedError{URI: u.String(), Err: fmt.Errorf("it names files outside of its own pin, such as %s, as a pin does that something else than chkpin copied; last-state can be copied by itself, as a checkpoint", f.URI)}
			}
		}
		return check(files, func(f stateFile) (int64, bool) {
			name, _ := f.Location.Rel(c.from.State)
			o, ok := listed[name]
			return o.Size, ok
		}).Err(u)
	}
	if err := proof(files, c.named.Metadata); err != nil {
		return nil, err
	}
	all := newFileSet(files)
	for _, name := range names {
		if name == c.source.record.Generation {
			c.source.generations = append(c.source.generations, c.source.record)
			continue
		}
		r, ok, err := readManifest(ctx, c.store, c.from.generation(name))
		if err != nil {
			return nil, err
		}
		if !ok {
			continue // never finished
		}
		var files []stateFile
		s, err := c.loadGeneration(ctx, name)
		if err == nil {
			files, err = s.files()
		}
		if err == nil {
			err = proof(files, s.URI)
		}
		if err != nil && !damaged(err) {
			return nil, err
		}
		if err != nil {
			c.copied.Warnings = append(c.copied.Warnings, fmt.Sprintf("generation %s is left out: %v", name, err))
			continue
		}
		all.add(files)
		c.source.generations = append(c.source.generations, r)
	}
	return all.files, nil
}

func damaged(err error) bool {
	_, ok := errors.AsType[*DamagedError](err)
	return ok
}

func (c *pinCopy) loadGeneration(ctx context.Context, name string) (*Snapshot, error) {
	if name == c.source.record.Generation {
		return c.source.snapshot, nil
	}
	u := c.named.generation(name).Join(MetadataName)
	s, err := load(ctx, c.store, u, c.opts.Relocations)
	if errors.Is(err, blobstore.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", errVanished, &DamagedError{URI: u.String(), Missing: []string{u.String()}, Err: err})
	}
	return s, err
}

// stateName is what a file of the source is called at the destination: the same.
func (c *pinCopy) stateName(u blobstore.URI) string {
	if name, ok := c.opts.Relocations.Apply(u).Rel(c.from.State); ok {
		return name
	}
	return stateName(u)
}

// moved is the metadata of a generation as it is at the destination.
func (c *pinCopy) moved(s *Snapshot, generation string) ([]byte, error) {
	spelled := c.target.spelledLike(c.source.snapshot.spelling())
	return s.moved(spelled.State, spelled.merged(generation), c.stateName)
}

// fileSet is the files of several checkpoints, each once.
type fileSet struct {
	files []stateFile
	index map[string]int // by location
}

func newFileSet(files []stateFile) *fileSet {
	s := &fileSet{index: make(map[string]int, len(files))}
	s.add(files)
	return s
}

func (s *fileSet) add(files []stateFile) {
	for _, f := range files {
		key := f.Location.Canonical()
		i, ok := s.index[key]
		if !ok {
			s.index[key] = len(s.files)
			s.files = append(s.files, f)
			continue
		}
		g := &s.files[i]
		g.need, g.open, g.known = max(g.need, f.need), g.open || f.open, g.known || f.known
	}
}

// admit decides whether what stands at the destination may give way: nothing, an
// earlier copy of this pin, or what is left of one. digest is that of the
// metadata that is about to be written.
func (c *pinCopy) admit(ctx context.Context, digest string) error {
	occupied := fmt.Errorf("%w: the pin at %s is not a copy of %s", ErrOccupied, c.target.App, c.named.App)
	if c.there.object == nil {
		return c.admitWithoutPin(ctx, occupied)
	}
	if c.there.described() && c.isCopy(c.there.record) {
		return nil
	}
	data, obj, err := blobstore.ReadAll(ctx, c.store, c.to.Metadata, maxMetadata)
	switch {
	case errors.Is(err, blobstore.ErrNotExist):
		return errOvertaken
	case err != nil:
		return err
	case digestOf(data) == digest:
	case c.there.described() && obj.Tag == c.there.object.Tag:
		return occupied // and its record says whose it is
	default: // pin.json was not written, or by a tick that mended it
		found, err := findGeneration(ctx, c.store, c.to, digestOf(data))
		if err != nil {
			return err
		}
		if found == nil || !c.isCopy(*found) {
			return occupied
		}
	}
	c.there.object = &obj
	return nil
}

// admitWithoutPin looks for signs of another pin whose metadata is missing, and
// of a checkpoint.
func (c *pinCopy) admitWithoutPin(ctx context.Context, occupied error) error {
	if c.there.record.Generation != "" {
		if c.isCopy(c.there.record) {
			return nil
		}
		return occupied
	}
	there, err := c.readIfThere(ctx, c.to.Existed)
	if err != nil {
		return err
	}
	if there != nil {
		want, err := c.existed(ctx)
		if err == nil && !bytes.Equal(there, want) {
			err = occupied
		}
		return err
	}
	if _, err := c.store.Stat(ctx, c.to.App.Join(MetadataName)); !errors.Is(err, blobstore.ErrNotExist) {
		if err == nil {
			err = fmt.Errorf("%w: %s is the folder of a checkpoint", ErrOccupied, c.target.App)
		}
		return err
	}
	return nil
}

// isCopy reports whether a record at the destination is that of a copy of this
// pin, and of its lineage: the source may have begun another since.
func (c *pinCopy) isCopy(r Record) bool {
	if r.Origin == nil {
		return false
	}
	app, err := blobstore.Parse(r.Origin.App)
	return err == nil && app.Same(c.named.App) &&
		slices.ContainsFunc(append([]Run{c.source.record.Run}, c.source.record.Previous...), r.Run.is)
}

// existed is chkpin.json of the source.
func (c *pinCopy) existed(ctx context.Context) ([]byte, error) {
	data, err := c.readIfThere(ctx, c.from.Existed)
	if data == nil && err == nil {
		return json.Marshal(existed{layoutVersion, c.source.record.Run})
	}
	return data, err
}

// putExisted records that state exists at the destination, before anything else
// is there.
func (c *pinCopy) putExisted(ctx context.Context) error {
	if c.there.object != nil || c.there.record.Generation != "" {
		return nil
	}
	data, err := c.existed(ctx)
	if err != nil {
		return err
	}
	_, err = putBytes(ctx, c.store, c.to.Existed, data, blobstore.PutOptions{IfAbsent: true})
	if errors.Is(err, blobstore.ErrPrecondition) { // admit has looked at it, or another copy began just now
		return nil
	}
	return err
}

// atDestination is a record of the source as it is there.
func (c *pinCopy) atDestination(r Record, data []byte) Record {
	r.Origin = &Origin{c.named.App.String(), r.Metadata.SHA256}
	r.Metadata = MetadataRecord{SHA256: digestOf(data), Size: int64(len(data))}
	return r
}

// putGeneration writes the metadata of a generation and its manifest. Another
// generation of that name is what the source has forgotten since: a history that
// a rollback took back. One that is no copy is a job's, which is being pinned there.
func (c *pinCopy) putGeneration(ctx context.Context, g Record, proved map[string]bool) error {
	s, err := c.loadGeneration(ctx, g.Generation)
	if err != nil {
		return err
	}
	data, err := c.moved(s, g.Generation)
	if err != nil {
		return err
	}
	if err := c.check(s, data, proved); err != nil {
		return err
	}
	dir := c.to.generation(g.Generation)
	rec := c.atDestination(g, data)
	there, ok, err := readManifest(ctx, c.store, dir)
	switch {
	case err != nil:
		return err
	case ok && there.Metadata.SHA256 == rec.Metadata.SHA256:
		return nil
	case ok && there.Origin == nil:
		return errOvertaken
	case ok:
		if err := c.store.Delete(ctx, dir.Join(recordName)); err != nil { // unfinished from now on
			return err
		}
	}
	if _, err := putBytes(ctx, c.store, dir.Join(MetadataName), data, blobstore.PutOptions{}); err != nil {
		return err
	}
	_, err = putBytes(ctx, c.store, dir.Join(recordName), rec.encode(), blobstore.PutOptions{})
	return err
}

// check reads the metadata of a generation of the copy as anyone will.
func (c *pinCopy) check(s *Snapshot, data []byte, proved map[string]bool) error {
	files, err := s.files()
	if err != nil {
		return err
	}
	names := make(map[string]bool, len(files))
	for _, f := range files {
		name := c.stateName(f.URI)
		if !proved[name] {
			return fmt.Errorf("%w: %w", errVanished, &DamagedError{URI: s.URI.String(), Missing: []string{f.URI.String()}})
		}
		names[name] = true
	}
	return checkMoved(c.target.Metadata, data, c.to.State, names, c.opts.Relocations)
}

// publish replaces last-state/_metadata of the destination, unless that is the
// same already, and describes it.
func (c *pinCopy) publish(ctx context.Context, data []byte) error {
	rec := c.atDestination(c.source.record, data)
	rec.Generations = max(len(c.source.generations), c.there.record.Generations)
	c.copied.Result = ResultUnchanged
	if c.source.hold != nil { // before what it protects
		if _, err := putBytes(ctx, c.store, c.to.Hold, c.source.hold, blobstore.PutOptions{}); err != nil {
			return err
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	same := c.there.described() && c.there.record.Metadata.SHA256 == rec.Metadata.SHA256
	if same {
		rec.Metadata.Tag = c.there.object.Tag
		rec.Seen, rec.Held = c.there.record.Seen, c.there.record.Held // of ticks that worked on it
	} else {
		obj, err := putBytes(ctx, c.store, c.to.Metadata, data, unchanged(c.there.object))
		if errors.Is(err, blobstore.ErrPrecondition) {
			return errOvertaken // perhaps by this very write, its answer lost
		}
		if err != nil {
			return err
		}
		rec.Metadata.Tag = obj.Tag
		c.copied.Result = ResultCopied
		rec.Generations = max(len(c.source.generations), c.there.record.Generations+1)
	}
	if !same || !bytes.Equal(rec.encode(), c.there.record.encode()) {
		c.copied.Result = ResultCopied
		t := tick{store: c.store, layout: c.to}
		c.there.record = rec
		if err := t.putRecord(ctx, &c.there); err != nil {
			return err
		}
	}
	return c.endHold(ctx)
}

// endHold removes a hold that the source does not have any more.
func (c *pinCopy) endHold(ctx context.Context) error {
	if c.source.hold != nil {
		return nil
	}
	_, err := c.store.Stat(ctx, c.to.Hold)
	if errors.Is(err, blobstore.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = c.store.Delete(ctx, c.to.Hold)
	}
	return err
}
