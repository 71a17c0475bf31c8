package checkpoint

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

const (
	defaultKeep = 3

	// MinKeep is how many generations always stay: the published one and one to go
	// back to.
	MinKeep = 2

	// keepRuns and keepRunsFor: the last generation of each of the two previous
	// runs stays for a week, for a rollback over a bad deployment.
	keepRuns    = 2
	keepRunsFor = 7 * 24 * time.Hour

	// defaultGrace is how old what nobody names must be: longer than any tick
	// can be at work on it.
	defaultGrace = time.Hour

	// defaultGCTimeout is for a first look and for what collectFor bounds.
	defaultGCTimeout = 2 * collectFor

	// announcedFor is how long taking back an announcement may take after the end
	// of a collection.
	announcedFor = 10 * time.Second

	// slack is how many generations beyond those to keep a tick lets stand
	// before it collects, so that most ticks do not list them.
	slack = 10
)

// GCOptions change a collection. The zero value reports and deletes nothing.
type GCOptions struct {
	Keep   int           // newest generations to keep; 0 means 3, fewer than 2 means 2
	Grace  time.Duration // unnamed files younger than this stay; 0 means 1 hour. At least 3 times PinOptions.Timeout
	Delete bool          // delete; otherwise only report

	// Timeout is how long it may take: nothing is deleted later. 0 means 10
	// minutes. Deletions end 5 minutes after they were announced, whatever it says.
	// What is left the next collection removes.
	Timeout time.Duration

	// Now is the time that ages are measured at. Zero means the store's own
	// clock, read off its youngest object: ages are then never overestimated.
	Now time.Time

	// ID tells this collection from others that are at work on the same pin; ""
	// means a random one.
	ID string

	Relocations Relocations
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

// ErrCollectTime: the time for a collection was over before all was deleted that
// nobody needs.
var ErrCollectTime = errors.New("out of time before all was collected")

// GC removes generations and state files of the pin of app that nobody needs
// any more, and only objects that chkpin made. It keeps the newest generations
// that prove, the published one, a held one, the one that a run restored which
// has nothing of its own pinned yet, those that a tick may be about to publish,
// and the last of each of the two previous runs for a week; and every state file
// that a kept generation names, or the newest checkpoint of a run that may be
// alive. When any of these cannot be read it deletes nothing
// ([ErrNothingCollected]), nor once its time is over ([ErrCollectTime]). A
// chkpin.json that was lost is put back.
//
// Ticks may be at work meanwhile. What a collection that was killed leaves
// behind, the next one removes.
func GC(ctx context.Context, store blobstore.Store, app blobstore.URI, opts GCOptions) (GCReport, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(opts.Timeout, defaultGCTimeout), ErrCollectTime)
	defer cancel()
	report, err := collect(ctx, store, LayoutOf(opts.Relocations.Apply(app)), opts, nil)
	return report, inTime(ctx, ErrCollectTime, err)
}

// collectSometimes collects in a tick that just published, when there is
// enough. What goes wrong is a warning: the pin is good.
func (t *tick) collectSometimes(ctx context.Context, cur published, source *Snapshot) {
	if cur.record.Generations <= atLeast(t.opts.Keep)+slack {
		return
	}
	opts := GCOptions{Keep: t.opts.Keep, Grace: max(defaultGrace, 3*t.opts.Timeout), Delete: true, Relocations: t.opts.Relocations}
	report, err := collect(ctx, t.store, t.layout, opts, source)
	if err == nil {
		cur.record.Generations = report.Kept
		err = t.putRecord(ctx, &cur)
	}
	if err != nil {
		t.warn("%v", err)
	}
}

// atLeast is how many generations an option of n keeps.
func atLeast(n int) int {
	if n == 0 {
		return defaultKeep
	}
	return max(n, MinKeep)
}

// collect looks, says what it is about to delete, looks again, and deletes what
// is still garbage; collecting.go tells why. running is the newest checkpoint
// of the job, where it is known.
func collect(ctx context.Context, store blobstore.Store, layout Layout, opts GCOptions, running *Snapshot) (GCReport, error) {
	opts.Keep = atLeast(opts.Keep)
	if opts.Grace == 0 {
		opts.Grace = defaultGrace
	}
	first, err := look(ctx, store, layout, opts, running)
	if err != nil || !opts.Delete {
		return first.report, err
	}
	if err := first.putExistedBack(ctx); err != nil || first.report.Deleted == 0 {
		return first.report, err
	}
	if opts.ID == "" {
		opts.ID = rand.Text()
	}
	marker := layout.State.Join(announcementPrefix + opts.ID)
	if err := announce(ctx, store, marker, first.doomedFiles()); err != nil {
		return GCReport{}, fmt.Errorf("%w: %w", ErrNothingCollected, err)
	}
	limited, cancel := context.WithTimeoutCause(ctx, collectFor, ErrCollectTime)
	defer cancel()
	second, err := look(limited, store, layout, opts, running)
	if err != nil {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), announcedFor)
		defer cancel()
		return GCReport{}, errors.Join(inTime(limited, ErrCollectTime, err), store.Delete(ending, marker)) // nothing is deleted: ticks need not wait
	}
	second.spareUnannounced(first)
	if err := second.delete(limited); err != nil {
		return second.report, inTime(limited, ErrCollectTime, err) // a deletion may still be under way: the announcement stays
	}
	return second.report, store.Delete(ctx, marker)
}

// look finds out what is garbage now.
func look(ctx context.Context, store blobstore.Store, layout Layout, opts GCOptions, running *Snapshot) (*collector, error) {
	c := &collector{store: store, layout: layout, opts: opts, running: running, files: map[string]blobstore.Object{}, named: map[string]string{}}
	for _, step := range []func(context.Context) error{c.list, c.readPin, c.readGenerations, c.keepGenerations, c.nameFiles} {
		if err := step(ctx); err != nil {
			return c, fmt.Errorf("%w: %w", ErrNothingCollected, err)
		}
	}
	c.decide()
	return c, nil
}

// doomedFiles are the names of the state files that are garbage.
func (c *collector) doomedFiles() []string {
	names := []string{}
	for _, g := range c.report.Files {
		if g.Delete {
			names = append(names, g.URI.Base())
		}
	}
	return names
}

// spareUnannounced keeps the files that have become garbage since the
// announcement.
func (c *collector) spareUnannounced(first *collector) {
	announced := map[string]bool{}
	for _, name := range first.doomedFiles() {
		announced[name] = true
	}
	for i, g := range c.report.Files {
		if g.Delete && !announced[g.URI.Base()] {
			c.report.Files[i].Delete, c.report.Files[i].Why = false, "nobody names it since a moment ago"
			c.report.Deleted--
			c.report.Bytes -= g.Bytes
		}
	}
	c.doomed[len(c.doomed)-1] = slices.DeleteFunc(c.doomed[len(c.doomed)-1], func(o blobstore.Object) bool { return !announced[o.URI.Base()] })
}

func (c *collector) delete(ctx context.Context) error {
	for _, objects := range c.doomed {
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
