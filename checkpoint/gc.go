package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

const (
	defaultKeep = 3
	minKeep     = 2

	// keepRuns and keepRunsFor: the last generation of each of the two previous
	// runs stays for a week, for a rollback over a bad deployment.
	keepRuns    = 2
	keepRunsFor = 7 * 24 * time.Hour

	// defaultGrace is how old what nobody names must be: longer than any tick
	// can be at work on it.
	defaultGrace = time.Hour

	// slack is how many generations beyond those to keep a tick lets stand
	// before it collects, so that most ticks do not list them.
	slack = 10
)

// GCOptions change a collection. The zero value reports and deletes nothing.
type GCOptions struct {
	Keep   int           // newest generations to keep; 0 means 3, fewer than 2 means 2
	Grace  time.Duration // unnamed files younger than this stay; 0 means 1 hour
	Delete bool          // delete; otherwise only report

	// Now is the time that ages are measured at. Zero means the store's own
	// clock, read off its youngest object: ages are then never overestimated.
	Now time.Time

	Relocations Relocations
	Logger      *slog.Logger // nil is silent
}

// Garbage is what a collection decides about one generation or state file.
type Garbage struct {
	URI    blobstore.URI
	Bytes  int64
	Delete bool
	Why    string
}

// GCReport lists the generations and files that were looked at, newest
// generation first, then files by name.
type GCReport struct {
	Generations []Garbage
	Files       []Garbage
	Kept        int // generations
	Deleted     int // objects; those that would be, when GCOptions.Delete is not set
	Bytes       int64
}

// ErrNothingCollected: something that decides what is garbage could not be read
// or proved, so nothing was deleted.
var ErrNothingCollected = errors.New("nothing was collected")

// GC removes generations and state files of the pin of app that nobody needs
// any more, and only objects that chkpin made. It keeps the newest generations
// that prove, the published one, a held one, the one that a run restored which
// has nothing of its own pinned yet, and the last of each of the two previous
// runs for a week; and every state file that a kept generation or the newest
// checkpoint of a pinned run names. When any of these cannot be read it deletes
// nothing ([ErrNothingCollected]).
func GC(ctx context.Context, store blobstore.Store, app blobstore.URI, opts GCOptions) (GCReport, error) {
	return collect(ctx, store, LayoutOf(app), opts, nil)
}

// collectSometimes collects in a tick that just published, when there is
// enough. What goes wrong is a warning: the pin is good.
func (t *tick) collectSometimes(ctx context.Context, rec Record, source *Snapshot) {
	if rec.Generations <= atLeast(t.opts.Keep)+slack {
		return
	}
	opts := GCOptions{Keep: t.opts.Keep, Grace: max(defaultGrace, 3*t.opts.Timeout), Delete: true, Relocations: t.opts.Relocations, Logger: t.opts.Logger}
	report, err := collect(ctx, t.store, t.layout, opts, source)
	if err != nil {
		t.warn("%v", err)
		return
	}
	rec.Generations = report.Kept
	if _, err := putBytes(ctx, t.store, t.layout.Record, rec.encode(), blobstore.PutOptions{}); err != nil {
		t.warn("%v", err)
	}
}

// atLeast is how many generations an option of n keeps.
func atLeast(n int) int {
	if n == 0 {
		return defaultKeep
	}
	return max(n, minKeep)
}

// collector is the state of one collection.
type collector struct {
	store  blobstore.Store
	layout Layout
	opts   GCOptions

	now         time.Time
	published   *Snapshot
	record      Record
	hold        *Hold
	files       map[string]blobstore.Object // below state/, by name
	strays      []blobstore.Object          // what a killed writer left
	generations []*generation               // newest first
	named       map[string]bool             // state files that must stay
	report      GCReport
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

func collect(ctx context.Context, store blobstore.Store, layout Layout, opts GCOptions, running *Snapshot) (GCReport, error) {
	opts.Keep = atLeast(opts.Keep)
	if opts.Grace == 0 {
		opts.Grace = defaultGrace
	}
	c := &collector{store: store, layout: layout, opts: opts, files: map[string]blobstore.Object{}, named: map[string]bool{}}
	for _, step := range []func(context.Context) error{c.list, c.readPin, c.readGenerations, c.keepGenerations} {
		if err := step(ctx); err != nil {
			return GCReport{}, fmt.Errorf("%w: %w", ErrNothingCollected, err)
		}
	}
	if err := c.nameRunning(ctx, running); err != nil {
		return GCReport{}, fmt.Errorf("%w: %w", ErrNothingCollected, err)
	}
	doomed := c.decide()
	if !opts.Delete {
		return c.report, nil
	}
	return c.report, c.delete(ctx, doomed)
}

// list reads the names of everything in the pin, once.
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
		case parts[0] == "state" && len(parts) == 2 && stateFileName(parts[1]):
			c.files[parts[1]] = o
		case parts[0] == "generations" && len(parts) == 3 && sequenceOf(parts[1]) > 0:
			g := byName[parts[1]]
			if g == nil {
				g = &generation{name: parts[1]}
				byName[parts[1]] = g
			}
			g.objects = append(g.objects, o)
			if o.ModTime.After(g.changed) {
				g.changed = o.ModTime
			}
		case blobstore.IsTemporary(o.URI):
			c.strays = append(c.strays, o)
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
	if !c.opts.Now.IsZero() {
		c.now = c.opts.Now
	}
	return nil
}

// stateFileName reports whether chkpin names state files so.
func stateFileName(s string) bool {
	return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == ""
}

func (c *collector) readPin(ctx context.Context) (err error) {
	c.published, err = Load(ctx, c.store, c.layout.Metadata, LoadOptions{c.opts.Relocations})
	if errors.Is(err, blobstore.ErrNotExist) && len(c.generations) == 0 {
		return fmt.Errorf("%w: %s", ErrNoPin, c.layout.App)
	}
	if err != nil {
		return err
	}
	if _, _, err := readJSON(ctx, c.store, c.layout.Record, &c.record); err != nil {
		return err
	}
	var h Hold
	_, ok, err := readJSON(ctx, c.store, c.layout.Hold, &h)
	if ok {
		c.hold = &h
	}
	return err
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
	if _, gen.finished, err = readJSON(ctx, c.store, dir.Join("pin.json"), &gen.record); err != nil || !gen.finished {
		return err
	}
	gen.snapshot, err = Load(ctx, c.store, dir, LoadOptions{c.opts.Relocations})
	if errors.Is(err, blobstore.ErrNotExist) {
		gen.finished = false // its deletion was interrupted
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

// keepGenerations marks what stays and why.
func (c *collector) keepGenerations(context.Context) error {
	newest, provable := 0, 0
	runs := []Run{c.record.Run}
	published := digestOf(c.published.Bytes())
	for _, gen := range c.generations {
		switch {
		case !gen.finished && c.young(gen.changed):
			gen.keep = "unfinished, younger than the grace"
		case !gen.finished:
			continue
		case gen.record.Metadata.SHA256 == published:
			gen.keep = "published"
			if !gen.proves {
				return gen.mustProve()
			}
		case c.hold != nil && c.hold.Generation == gen.name:
			gen.keep = "held"
		case c.record.Seen != nil && c.record.Seen.RestoredID == gen.record.Checkpoint.ID:
			gen.keep = "job " + c.record.Seen.JobID + " restored it and has nothing of its own pinned"
		}
		if !gen.proves {
			continue
		}
		provable++
		if newest < c.opts.Keep {
			newest++
			gen.keep = firstOf(gen.keep, fmt.Sprintf("one of the newest %d", c.opts.Keep))
		}
		if run := gen.record.Run; !slices.ContainsFunc(runs, run.is) {
			runs = append(runs, run)
			if len(runs) <= 1+keepRuns && c.now.Sub(gen.changed) < keepRunsFor {
				gen.keep = firstOf(gen.keep, "the last of job "+run.JobID)
			}
		}
	}
	if len(c.generations) > 0 && provable == 0 {
		return errors.New("no generation proves")
	}
	return nil
}

func (g *generation) mustProve() error {
	return &DamagedError{URI: g.snapshot.URI.String(), Err: errors.New("it is published and does not prove")}
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (c *collector) young(t time.Time) bool { return c.now.Sub(t) < c.opts.Grace }

// nameRunning collects the state files that must stay: those of the published
// metadata, of kept generations, and of the newest checkpoint of a run that may
// be alive, which on Flink up to 1.14 and in LEGACY mode goes on naming files
// of the pin it restored.
func (c *collector) nameRunning(ctx context.Context, running *Snapshot) error {
	snapshots := []*Snapshot{c.published}
	for _, gen := range c.generations {
		if gen.keep != "" && gen.snapshot != nil {
			snapshots = append(snapshots, gen.snapshot)
		}
	}
	if running != nil {
		snapshots = append(snapshots, running)
	} else {
		alive, err := c.newestOfRuns(ctx)
		if err != nil {
			return err
		}
		snapshots = append(snapshots, alive...)
	}
	for _, s := range snapshots {
		files, err := s.files()
		if err != nil {
			return err
		}
		for _, f := range files {
			if name, ok := f.Location.Rel(c.layout.State); ok {
				c.named[name] = true
			}
		}
	}
	return nil
}

// newestOfRuns loads the newest checkpoints in the folders of the runs that may
// be alive.
func (c *collector) newestOfRuns(ctx context.Context) ([]*Snapshot, error) {
	folders := []string{c.record.Run.Folder}
	if c.record.Seen != nil {
		folders = append(folders, c.record.Seen.Folder)
	}
	for _, r := range c.record.Held {
		folders = append(folders, r.Folder)
	}
	var found []*Snapshot
	for _, folder := range folders {
		u, err := blobstore.Parse(folder)
		if err != nil {
			continue // not known yet
		}
		ids, err := checkpointIDs(ctx, c.store, c.opts.Relocations.Apply(u))
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			s, err := Load(ctx, c.store, u.Join(fmt.Sprintf("chk-%d", id)), LoadOptions{c.opts.Relocations})
			if errors.Is(err, blobstore.ErrNotExist) {
				continue // not completed, or subsumed meanwhile
			}
			if err != nil {
				return nil, err
			}
			found = append(found, s)
			break
		}
	}
	return found, nil
}

// decide writes the report and returns what goes, in the order of deletion: a
// generation's manifest first, so that what is left of it is unfinished, and
// state files last.
func (c *collector) decide() (doomed [][]blobstore.Object) {
	var manifests, metadata, files []blobstore.Object
	for _, gen := range c.generations {
		entry := Garbage{URI: c.layout.generation(gen.name), Delete: gen.keep == "", Why: gen.keep}
		for _, o := range gen.objects {
			entry.Bytes += max(o.Size, 0)
			switch {
			case !entry.Delete:
			case o.URI.Base() == "pin.json":
				manifests = append(manifests, o)
			default:
				metadata = append(metadata, o)
			}
		}
		switch {
		case !entry.Delete:
			c.report.Kept++
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
		case c.named[name]:
			entry.Why = "named"
		case c.young(o.ModTime):
			entry.Why = "younger than the grace"
		default:
			entry.Why, entry.Delete = "nobody names it", true
			files = append(files, o)
		}
		c.report.Files = append(c.report.Files, entry)
	}
	for _, o := range c.strays {
		if !c.young(o.ModTime) {
			files = append(files, o)
			c.report.Files = append(c.report.Files, Garbage{URI: o.URI, Bytes: o.Size, Delete: true, Why: "left by a writer that was killed"})
		}
	}
	doomed = [][]blobstore.Object{manifests, metadata, files}
	for _, objects := range doomed {
		c.report.Deleted += len(objects)
		for _, o := range objects {
			c.report.Bytes += max(o.Size, 0)
		}
	}
	return doomed
}

func (c *collector) delete(ctx context.Context, doomed [][]blobstore.Object) error {
	for _, objects := range doomed {
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(inFlight)
		for _, o := range objects {
			g.Go(func() error { return c.store.Delete(gctx, o.URI) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}
