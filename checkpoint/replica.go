package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

// Replica is what became of one of PinOptions.Replicas in a tick.
type Replica struct {
	App        blobstore.URI
	Result     string // ResultPinned or ResultUnchanged; "" when Err is set
	Generation string // that the replica has published now, "" when nobody knows
	Err        error  // why the replica is behind
}

// ErrBehind wraps every Replica.Err.
var ErrBehind = errors.New("the replica is behind")

// ErrReplicaTime: a replica took more than its part of the tick's time. The next
// tick goes on where this one stopped.
var ErrReplicaTime = errors.New("out of time")

// replicate brings what is pinned to the replicas, all at once, whatever the tick
// itself came to: while a JobManager is away, a replica still catches up. It
// takes no more than half of the tick's time, so that a replica that does not
// answer holds up no later tick for long.
func (t *tick) replicate(ctx context.Context, timeout time.Duration) {
	if len(t.opts.Replicas) == 0 || t.opts.DryRun || !t.current.whole() || t.current.record.Generation == "" || ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout/2, fmt.Errorf("%w after %s", ErrReplicaTime, timeout/2))
	defer cancel()
	replicas := make([]Replica, len(t.opts.Replicas))
	var g errgroup.Group
	for i, app := range t.opts.Replicas {
		g.Go(func() error {
			replicas[i] = t.bringTo(ctx, app)
			return nil
		})
	}
	_ = g.Wait() // none returns an error
	t.pinned.Replicas = replicas
}

// bringTo brings what is pinned to one replica.
func (t *tick) bringTo(ctx context.Context, app blobstore.URI) Replica {
	r := Replica{App: app}
	rec, err := t.readReplica(ctx, app)
	if err == nil {
		r.Generation = rec.Generation
		if rec.copyOf(t.named.App, t.current.record.Metadata.SHA256) {
			r.Result = ResultUnchanged
			return r
		}
		c := t.copyTo(app)
		if _, err = c.run(ctx); err == nil {
			r.Result, r.Generation = ResultPinned, c.source.record.Generation
			t.opts.Logger.Info("replicated", "app", app, "generation", r.Generation, "copied", c.copied.Copied, "bytes", c.copied.BytesCopied)
			t.collectReplica(ctx, c)
			return r
		}
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	r.Err = fmt.Errorf("%w: %s: %w", ErrBehind, app, err)
	return r
}

// readReplica is the record of a replica, zero when there is none.
func (t *tick) readReplica(ctx context.Context, app blobstore.URI) (r Record, err error) {
	_, _, err = readJSON(ctx, t.store, LayoutOf(t.opts.Relocations.Apply(app)).Record, &r)
	if errors.Is(err, errNoRecord) {
		return Record{}, nil // the copy mends it
	}
	return r, err
}

// copyOf reports whether a record is that of a copy of the pin of app, as it was
// when its metadata had this digest.
func (r Record) copyOf(app blobstore.URI, digest string) bool {
	if r.Origin == nil || r.Origin.SHA256 != digest {
		return false
	}
	u, err := blobstore.Parse(r.Origin.App)
	return err == nil && u.Same(app)
}

// replicaHas reports whether what a replica has published is a copy of the pinned
// generation. Its record says so as long as no job was pinned there; but it must
// describe what stands at its constant path.
func (t *tick) replicaHas(ctx context.Context, app blobstore.URI, pinned Record) (bool, error) {
	there, err := (&tick{store: t.store, layout: LayoutOf(t.opts.Relocations.Apply(app))}).lookAtPin(ctx)
	if err != nil || !there.described() {
		return false, err
	}
	r := there.record
	return r.copyOf(t.named.App, pinned.Metadata.SHA256) && r.Generation == pinned.Generation && r.Run.is(pinned.Run) &&
		r.Checkpoint.ID == pinned.Checkpoint.ID, nil
}

// copyTo is the copy of what is published to a replica.
func (t *tick) copyTo(app blobstore.URI) *pinCopy {
	return &pinCopy{
		store: t.store, named: t.named, from: t.layout,
		target: LayoutOf(app), to: LayoutOf(t.opts.Relocations.Apply(app)),
		opts:          CopyOptions{Relocations: t.opts.Relocations, Logger: t.opts.Logger, Sleep: t.opts.Sleep},
		publishedOnly: true,
	}
}

// collectReplica collects garbage there by the rules of [GC], as a tick does at
// home.
func (t *tick) collectReplica(ctx context.Context, c *pinCopy) {
	cur := c.there
	if cur.record.Generations <= atLeast(t.opts.ReplicaKeep)+slack {
		return
	}
	opts := GCOptions{Keep: t.opts.ReplicaKeep, Grace: max(defaultGrace, 3*t.opts.Timeout), Delete: true, Relocations: t.opts.Relocations}
	report, err := collect(ctx, t.store, c.to, opts, c.source.snapshot)
	if err == nil {
		cur.record.Generations = report.Kept
		err = (&tick{store: t.store, layout: c.to}).putRecord(ctx, &cur)
	}
	if err != nil {
		t.opts.Logger.Warn("replica", "app", c.target.App, "error", err)
	}
}
