package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
)

// replicaFacts are what stands in a folder that pin keeps a copy of the pin in.
type replicaFacts struct {
	app    blobstore.URI
	closed error // why it cannot be looked at; the rest is empty then
	pin    checkpoint.Survey
	probe  rightsProbe
}

// lookAtReplicas looks at them all at once, as far as a tick would, and returns
// those that a tick would take.
func (p *patient) lookAtReplicas(ctx context.Context, g *errgroup.Group, env *environment, apps []appURI) (taken []blobstore.URI) {
	p.replicas = make([]replicaFacts, len(apps))
	for i, app := range apps {
		r := &p.replicas[i]
		r.app = app.URI
		if r.closed = p.nested(i); r.closed != nil {
			continue
		}
		taken = append(taken, r.app)
		g.Go(func() (err error) {
			l := checkpoint.LayoutOf(env.relocations.Apply(r.app))
			if r.closed = listable(ctx, env.store, l); r.closed != nil {
				return ctx.Err()
			}
			if r.pin, err = checkpoint.TakeSurvey(ctx, env.store, r.app, checkpoint.SurveyOptions{Relocations: env.relocations}); err == nil {
				r.probe = tryRights(ctx, env.store, l.Root)
			}
			return err
		})
	}
	return taken
}

// nested is why a tick would refuse a replica for where it lies.
func (p *patient) nested(i int) error {
	app := p.replicas[i].app
	if app.Within(p.app) || p.app.Within(app) {
		return fmt.Errorf("%w: the replica %s and the pin %s", checkpoint.ErrNested, app, p.app)
	}
	for _, other := range p.replicas[:i] {
		if app.Within(other.app) || other.app.Within(app) {
			return fmt.Errorf("%w: the replica %s and the replica %s", checkpoint.ErrNested, app, other.app)
		}
	}
	return nil
}

// replicasFollow holds each replica against what is pinned.
func replicasFollow(p *patient) (found []finding) {
	for _, r := range p.replicas {
		found = append(found, p.judgeReplica(r)...)
	}
	return found
}

func (p *patient) judgeReplica(r replicaFacts) []finding {
	const rights = "ticks need to list, write, read and delete below last-state of a replica, too"
	again := fmt.Sprintf("chkpin copy %s %s brings it up to date, without a limit of time; ticks with --replica do, too", p.app, r.app)
	of := func(err error) error { return fmt.Errorf("replica %s: %w", r.app, err) }
	s := r.pin
	switch {
	case errors.Is(r.closed, checkpoint.ErrNested):
		return fault(r.closed, "give each replica a folder of its own, beside <app>")
	case r.closed != nil:
		return fault(of(r.closed), "")
	case r.probe.write != nil:
		return fault(of(r.probe.write), rights)
	case r.probe.read != nil:
		return fault(of(r.probe.read), rights)
	case r.probe.remove != nil:
		return fault(of(r.probe.remove), rights+"; remove the probe by hand")
	case errors.Is(s.PinErr, blobstore.ErrNotExist) && !s.Existed && len(s.Generations) == 0:
		if p.pin.Pin == nil {
			return notice("the first tick with --replica makes it", "replica %s: nothing is there yet", r.app)
		}
		return doubt(again, "replica %s: nothing was ever copied there", r.app)
	case !s.Restores() && s.Pin == nil && errors.Is(s.PinErr, blobstore.ErrNotExist):
		return fault(of(fmt.Errorf("%w: last-state/_metadata was deleted", checkpoint.ErrPinGone)), again)
	case s.Foreign || s.Described && !p.isCopy(s.Record):
		return fault(of(fmt.Errorf("%w: it is no copy of %s, or a job was pinned there", checkpoint.ErrOccupied, p.app)), "name a folder that holds nothing, or make this one the <app>")
	case !s.Restores():
		return fault(of(s.PinErr), again)
	case !s.Described:
		return notice("the next generation that is copied mends it", "replica %s: pin.json does not describe what is published there", r.app)
	}
	return p.compareReplica(r.app, s, again)
}

// isCopy reports whether a record says that it is of a copy of the pin.
func (p *patient) isCopy(r checkpoint.Record) bool {
	if r.Origin == nil {
		return false
	}
	u, err := blobstore.Parse(r.Origin.App)
	return err == nil && u.Same(p.app)
}

// compareReplica says how far a replica that restores is behind the pin.
func (p *patient) compareReplica(app blobstore.URI, s checkpoint.Survey, again string) []finding {
	there, here := s.Record, p.pin.Record
	switch {
	case !p.pin.Described:
		return fine("replica %s restores checkpoint %d; how far it is behind is not known", app, there.Checkpoint.ID)
	case there.Origin.SHA256 == here.Metadata.SHA256:
		return fine("replica %s restores checkpoint %d, which is what is pinned", app, there.Checkpoint.ID)
	}
	lag := here.Checkpoint.Triggered.Sub(there.Checkpoint.Triggered)
	evidence := fmt.Sprintf("replica %s has %s, %s is published", app, there.Generation, here.Generation)
	if lag > 0 {
		evidence = fmt.Sprintf("replica %s is behind the pin by %s: it has %s, %s is published", app, lag.Round(time.Second), there.Generation, here.Generation)
	}
	if lag >= 0 && lag <= tolerableLag {
		return notice("the next tick brings it up to date, if it has --replica", "%s", evidence)
	}
	return doubt("does the tick have --replica, and what does it exit with? "+again, "%s", evidence)
}
