package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

// collector is one look at a pin: what is in it, what must stay, what goes.
type collector struct {
	store   blobstore.Store
	layout  Layout
	opts    GCOptions
	running *Snapshot // the newest checkpoint of the job; nil when not known

	now         time.Time
	published   *Snapshot
	record      Record
	hold        *Hold
	files       map[string]blobstore.Object // below state/, by name
	strays      []blobstore.Object          // what writers and collections leave when they are killed
	generations []*generation               // newest first
	named       map[string]string           // state files that must stay, and why

	report GCReport

	// doomed is what goes, in the order of deletion: a generation's manifest
	// first, so that what is left of it is unfinished; state files last.
	doomed [][]blobstore.Object

	existed bool // chkpin.json is there
}

// generation is one folder below generations/.
type generation struct {
	name     string
	objects  []blobstore.Object
	finished bool // has a manifest
	record   Record
	snapshot *Snapshot
	proves   bool
	changed  time.Time // youngest object
	keep     string    // why; "" to delete
}

// list reads the names of everything in the pin, once. What chkpin has not made
// it does not see.
func (c *collector) list(ctx context.Context) error {
	byName := map[string]*generation{}
	for o, err := range c.store.List(ctx, c.layout.Root, blobstore.ListOptions{}) {
		if err != nil {
			return err
		}
		if o.ModTime.After(c.now) {
			c.now = o.ModTime
		}
		rel, _ := o.URI.Rel(c.layout.Root)
		parts := strings.Split(rel, "/")
		switch {
		case blobstore.IsTemporary(o.URI):
			c.strays = append(c.strays, o)
		case parts[0] == c.layout.State.Base() && len(parts) == 2 && strings.HasPrefix(parts[1], announcementPrefix):
			c.strays = append(c.strays, o)
		case parts[0] == c.layout.State.Base() && len(parts) == 2 && stateFileName(parts[1]):
			c.files[parts[1]] = o
		case parts[0] == c.layout.Generations.Base() && len(parts) == 3 && sequenceOf(parts[1]) > 0 && (parts[2] == MetadataName || parts[2] == recordName):
			g := byName[parts[1]]
			if g == nil {
				g = &generation{name: parts[1]}
				byName[parts[1]] = g
			}
			g.objects = append(g.objects, o)
			if o.ModTime.After(g.changed) {
				g.changed = o.ModTime
			}
		}
	}
	names := make([]string, 0, len(byName))
	for name := range byName {
		names = append(names, name)
	}
	sortGenerations(names)
	for _, name := range names {
		c.generations = append(c.generations, byName[name])
	}
	if err := c.listBesideExisted(ctx); err != nil {
		return err
	}
	if own := slices.IndexFunc(c.strays, c.isOwn); own >= 0 { // just written: a clock that was ahead once has left younger objects
		c.now = c.strays[own].ModTime
	}
	if !c.opts.Now.IsZero() {
		c.now = c.opts.Now
	}
	return nil
}

// isOwn reports whether an object is the announcement of this collection.
func (c *collector) isOwn(o blobstore.Object) bool {
	return c.opts.ID != "" && o.URI.Base() == announcementPrefix+c.opts.ID
}

// listBesideExisted looks for chkpin.json, and for what a writer of it left when
// it was killed.
func (c *collector) listBesideExisted(ctx context.Context) error {
	for o, err := range c.store.List(ctx, c.layout.App, blobstore.ListOptions{Shallow: true}) {
		if err != nil {
			return err
		}
		c.existed = c.existed || !o.Dir && o.URI.Same(c.layout.Existed)
		if !o.Dir && blobstore.IsTemporary(o.URI) {
			c.strays = append(c.strays, o)
		}
	}
	return nil
}

// putExistedBack writes chkpin.json where it was lost, by a lifecycle rule or by
// hand: no tick reads it, and the loss of the pin would pass for a first start.
func (c *collector) putExistedBack(ctx context.Context) error {
	if c.existed || c.record.Generation == "" {
		return nil
	}
	err := noteExisted(ctx, c.store, c.layout, c.record.Run)
	if errors.Is(err, blobstore.ErrPrecondition) {
		return nil
	}
	return err
}

// stateFileName reports whether chkpin names state files so.
func stateFileName(s string) bool {
	return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == ""
}

func (c *collector) young(t time.Time) bool { return c.now.Sub(t) < c.opts.Grace }

func (c *collector) readPin(ctx context.Context) (err error) {
	c.published, err = loadAt(ctx, c.store, c.layout.Metadata, c.opts.Relocations)
	if errors.Is(err, blobstore.ErrNotExist) && len(c.generations) == 0 {
		return c.nothingThere(ctx)
	}
	if err != nil {
		return err
	}
	if _, _, err := readJSON(ctx, c.store, c.layout.Record, &c.record); err != nil {
		return err
	}
	c.hold, _, err = readHold(ctx, c.store, c.layout)
	return err
}

// nothingThere says whether there was a pin once.
func (c *collector) nothingThere(ctx context.Context) error {
	gone, err := everPinned(ctx, c.store, c.layout, Record{})
	switch {
	case err != nil:
		return err
	case gone:
		return fmt.Errorf("%w: %s", ErrPinGone, c.layout.App)
	}
	return fmt.Errorf("%w: %s", ErrNoPin, c.layout.App)
}

// readGenerations loads every finished generation and proves it against the
// listing.
func (c *collector) readGenerations(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for _, gen := range c.generations {
		g.Go(func() error { return c.readGeneration(ctx, gen) })
	}
	return g.Wait()
}

func (c *collector) readGeneration(ctx context.Context, gen *generation) (err error) {
	dir := c.layout.generation(gen.name)
	if _, gen.finished, err = readJSON(ctx, c.store, dir.Join(recordName), &gen.record); err != nil || !gen.finished {
		return err
	}
	gen.snapshot, err = loadAt(ctx, c.store, dir.Join(MetadataName), c.opts.Relocations)
	if errors.Is(err, blobstore.ErrNotExist) {
		gen.finished = false // what a manifest describes is gone
		return nil
	}
	if err != nil {
		return err
	}
	files, err := gen.snapshot.files()
	if err != nil {
		return err
	}
	gen.proves = check(files, c.sizeOf).OK()
	return nil
}

func (c *collector) sizeOf(f stateFile) (int64, bool) {
	name, ok := f.Location.Rel(c.layout.State)
	if !ok {
		return 0, false
	}
	o, ok := c.files[name]
	return o.Size, ok
}

// keepGenerations marks what stays and why. It counts as one would go back from
// what is published, so that what a rollback left behind does not push out what
// came before it.
func (c *collector) keepGenerations(context.Context) error {
	newest, provable := 0, 0
	runs := []Run{c.record.Run}
	digest := digestOf(c.published.Bytes())
	published := c.record.Generation
	for _, gen := range c.generations { // pin.json may not have caught up with a rollback
		if gen.finished && gen.record.Metadata.SHA256 == digest {
			published = gen.name
		}
	}
	beyond := func(gen *generation) bool { return sequenceOf(gen.name) > sequenceOf(published) }
	for _, gen := range c.asOneGoesBack(published) {
		switch {
		case gen.finished && gen.record.Metadata.SHA256 == digest:
			gen.keep = "published"
			if !gen.proves {
				return &DamagedError{URI: gen.snapshot.URI.String(), Err: errors.New("it is published and does not prove")}
			}
		case gen.finished && c.hold != nil && c.hold.Generation == gen.name:
			gen.keep = "held"
		case gen.finished && c.hold != nil && beyond(gen):
			gen.keep = "it was rolled back, and the pin is on hold"
		case c.young(gen.changed) && (!gen.finished || beyond(gen)):
			gen.keep = "younger than the grace, a tick may be about to publish it"
		case !gen.finished:
			continue
		case c.record.waiting() != nil && c.record.waiting().RestoredID == gen.record.Checkpoint.ID:
			gen.keep = "job " + c.record.waiting().JobID + " restored it and has nothing of its own pinned"
		}
		if !gen.finished || !gen.proves {
			continue
		}
		provable++
		if newest < c.opts.Keep {
			newest++
			gen.keep = cmp.Or(gen.keep, fmt.Sprintf("one of the newest %d", c.opts.Keep))
		}
		if run := gen.record.Run; !slices.ContainsFunc(runs, run.is) {
			runs = append(runs, run)
			if len(runs) <= 1+keepRuns && c.now.Sub(gen.changed) < keepRunsFor {
				gen.keep = cmp.Or(gen.keep, "the last of job "+run.JobID)
			}
		}
	}
	if len(c.generations) > 0 && provable == 0 {
		return &DamagedError{URI: c.layout.Generations.String(), Err: errors.New("no generation proves")}
	}
	return nil
}

// asOneGoesBack is the generations in the order of wayBack, then the unfinished.
func (c *collector) asOneGoesBack(published string) []*generation {
	byName := map[string]*generation{}
	var finished []Record
	var unfinished []*generation
	for _, gen := range c.generations {
		if !gen.finished {
			unfinished = append(unfinished, gen)
			continue
		}
		gen.record.Generation = gen.name
		byName[gen.name] = gen
		finished = append(finished, gen.record)
	}
	var order []*generation
	for _, r := range wayBack(published, finished) {
		order = append(order, byName[r.Generation])
	}
	return append(order, unfinished...)
}

// nameFiles collects the state files that must stay: those of the published
// metadata, of kept generations, and of the checkpoints of a run that may be
// alive, which on Flink up to 1.14 and in LEGACY mode goes on naming files
// of the pin it restored.
func (c *collector) nameFiles(ctx context.Context) error {
	if err := c.nameFilesOfRuns(ctx); err != nil {
		return err
	}
	if c.running != nil {
		if err := c.name(namedByRun, c.running); err != nil {
			return err
		}
	}
	for _, gen := range c.generations {
		if gen.keep != "" && gen.snapshot != nil {
			if err := c.name("a generation that is kept names it", gen.snapshot); err != nil {
				return err
			}
		}
	}
	return c.name("what is published names it", c.published)
}

const namedByRun = "a checkpoint of a job that may be alive names it"

func (c *collector) name(why string, s *Snapshot) error {
	files, err := s.files()
	if err != nil {
		return err
	}
	for _, f := range files {
		if name, ok := f.Location.Rel(c.layout.State); ok {
			c.named[name] = why
		}
	}
	return nil
}

// nameFilesOfRuns reads the checkpoints in the folders of the runs that may be
// alive: the pinned one, the two before it, and those that wait or are held. All
// in a folder, since with a constant job id the highest number is not always the
// newest; one after the other, since a job may keep thousands.
func (c *collector) nameFilesOfRuns(ctx context.Context) error {
	runs := slices.Concat([]Run{c.record.Run}, c.record.Previous[:min(len(c.record.Previous), keepRuns)], c.record.Held)
	if c.record.Seen != nil {
		runs = append(runs, c.record.Seen.Run)
	}
	looked := map[string]bool{}
	for _, run := range runs {
		folder, err := blobstore.Parse(run.Folder)
		if err != nil || looked[folder.Canonical()] {
			continue // not known yet
		}
		looked[folder.Canonical()] = true
		ids, err := checkpointIDs(ctx, c.store, c.opts.Relocations.Apply(folder))
		if err != nil {
			return err
		}
		for _, id := range ids {
			s, err := load(ctx, c.store, folder.Join(fmt.Sprintf("chk-%d", id), MetadataName), c.opts.Relocations)
			if errors.Is(err, blobstore.ErrNotExist) {
				continue // not completed, or subsumed meanwhile
			}
			if err == nil {
				err = c.name(namedByRun, s)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// decide writes the report and what goes.
func (c *collector) decide() {
	var manifests, metadata, files []blobstore.Object
	for _, gen := range c.generations {
		entry := Garbage{URI: c.layout.generation(gen.name), Delete: gen.keep == "", Why: gen.keep}
		for _, o := range gen.objects {
			entry.Bytes += max(o.Size, 0)
			switch {
			case !entry.Delete:
			case o.URI.Base() == recordName:
				manifests = append(manifests, o)
			default:
				metadata = append(metadata, o)
			}
		}
		switch {
		case !entry.Delete:
			c.report.Kept++
		case gen.finished && !gen.proves:
			entry.Why = "it does not restore"
		case gen.finished:
			entry.Why = "newer generations are enough"
		default:
			entry.Why = "never finished"
		}
		c.report.Generations = append(c.report.Generations, entry)
	}
	names := make([]string, 0, len(c.files))
	for name := range c.files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		o := c.files[name]
		entry := Garbage{URI: o.URI, Bytes: max(o.Size, 0)}
		switch {
		case c.named[name] != "":
			entry.Why = c.named[name]
		case c.young(o.ModTime):
			entry.Why = "younger than the grace"
		default:
			entry.Why, entry.Delete = "nobody names it", true
			files = append(files, o)
		}
		c.report.Files = append(c.report.Files, entry)
	}
	for _, o := range c.strays {
		if c.isOwn(o) {
			continue
		}
		entry := Garbage{URI: o.URI, Bytes: max(o.Size, 0), Why: "of a chkpin that may be at work"}
		if c.now.Sub(o.ModTime) >= max(c.opts.Grace, collectionLife) {
			entry.Why, entry.Delete = "left behind by a chkpin that was killed", true
			files = append(files, o)
		}
		c.report.Files = append(c.report.Files, entry)
	}
	c.doomed = [][]blobstore.Object{manifests, metadata, files}
	for _, objects := range c.doomed {
		c.report.Deleted += len(objects)
		for _, o := range objects {
			c.report.Bytes += max(o.Size, 0)
		}
	}
}
