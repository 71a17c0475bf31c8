package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/checkpoint/metadata"
)

// The checks of what chkpin keeps, and of the store it is in.

func pinRestores(p *patient) []finding {
	s := p.pin
	missing := errors.Is(s.PinErr, blobstore.ErrNotExist)
	switch {
	case p.closed != nil:
		return nil
	case s.Restores():
		found := fine("checkpoint %d restores, with %s of %s, from %s", s.Pin.CheckpointID,
			counted(s.Report.Files, "file"), humanize.IBytes(uint64(s.Report.Bytes)), p.layout.Metadata)
		if !s.Existed {
			found = append(found, doubt(fmt.Sprintf("chkpin gc --yes %s puts it back; does a lifecycle rule delete what is old?", p.app),
				"%s is not there: if last-state is lost, too, resolve takes that for a first start", p.layout.Existed)...)
		}
		return found
	case missing && (s.Existed || len(s.Generations) > 0):
		return fault(fmt.Errorf("%w: %s", checkpoint.ErrPinGone, p.layout.Metadata), p.wayBack())
	case missing:
		return notice("chkpin pin makes the first one; is the URI right, and the volume mounted?", "nothing was ever pinned at %s", p.app)
	}
	if unknownFormat(s.PinErr) {
		return fault(s.PinErr, "this chkpin knows Flink 1.3 to 2.3; take the chkpin that pinned it, or a newer one")
	}
	if as[*checkpoint.DamagedError](s.PinErr) {
		return fault(s.PinErr, p.wayBack())
	}
	return fault(s.PinErr, "")
}

// wayBack is what to do about a pin that is lost.
func (p *patient) wayBack() string {
	for _, g := range p.pin.Generations {
		if g.Finished && g.Err == nil {
			return fmt.Sprintf("generation %s restores, and chkpin resolve falls back to it; the next tick mends the pin", g.Name)
		}
	}
	for _, r := range p.replicas {
		if r.closed == nil && r.pin.Restores() && p.isCopy(r.pin.Record) {
			return fmt.Sprintf("no generation restores, but replica %s does, from checkpoint %d: chkpin resolve %[1]s", r.app, r.pin.Pin.CheckpointID)
		}
	}
	return "no generation restores; find a checkpoint or savepoint that chkpin verify calls restorable, and do not start without state by accident"
}

func generationsRestore(p *patient) []finding {
	s := p.pin
	if s.GenerationsErr != nil {
		return fault(s.GenerationsErr, "")
	}
	var proved, unfinished int
	var broken []string
	for _, g := range s.Generations {
		switch {
		case g.Err != nil:
			broken = append(broken, g.Name)
		case !g.Finished:
			unfinished++
		default:
			proved++
		}
	}
	switch {
	case len(s.Generations) == 0:
		return nil
	case len(broken) > 0:
		return doubt("chkpin verify shows what they miss; ticks make new ones, and there is no way back to these",
			"%d of %s cannot be restored: %s", len(broken), counted(len(s.Generations), "generation"), firstFew(broken))
	case unfinished > 1:
		return notice("each is of a tick that was killed, or is at work; chkpin gc removes them later",
			"%d generations restore, %d are not finished", proved, unfinished)
	}
	return fine("%s to go back to: all that are finished restore", counted(proved, "generation"))
}

func unknownFormat(err error) bool {
	return errors.Is(err, metadata.ErrVersion) || errors.Is(err, metadata.ErrTag)
}

func formatIsKnown(p *patient) []finding {
	damage, isDamage := errors.AsType[*checkpoint.DamagedError](p.source.err)
	switch {
	case unknownFormat(p.source.err):
		return fault(p.source.err, "this chkpin knows Flink 1.3 to 2.3 and pins nothing that it does not know; take a newer chkpin")
	case isDamage:
		return fault(damage, "the pin is left alone; chkpin verify shows what is wrong with the job's checkpoint")
	case p.source.format > 0:
		return fine("the job writes format %d, which this chkpin knows", p.source.format)
	}
	return nil
}

func pinIsNotOnHold(p *patient) []finding {
	s := p.pin
	if errors.Is(s.HoldErr, checkpoint.ErrLayout) {
		return doubt(hintLayout, "%v", s.HoldErr)
	}
	if s.HoldErr != nil {
		return doubt("while it is there and cannot be read, nothing is published; chkpin rollback --release ends the hold", "%v", s.HoldErr)
	}
	published := ""
	if s.Described {
		published = s.Record.Generation
	}
	switch h := s.Hold; {
	case h == nil:
		return nil
	case h.Unfinished(published):
		return doubt(fmt.Sprintf("chkpin rollback %s finishes the rollback; chkpin rollback --release gives it up", p.app), "%s; ticks exit 7", h.Explain(published))
	default:
		return doubt("restart the job with what chkpin resolve prints; chkpin rollback --release ends the hold, too", "%s; ticks exit 7", h.Explain(published))
	}
}

// jobContinuesThePin says what the next tick would make of the run.
func jobContinuesThePin(p *patient) []finding {
	held := as[*checkpoint.HeldError](p.tickErr)
	switch {
	case held && p.pin.Hold != nil: // the check of holds says it
		return nil
	case held:
		return fault(p.tickErr, "")
	case errors.Is(p.tickErr, checkpoint.ErrNewer):
		return doubt("is another chkpin at work, or are two jobs? The next tick settles it, or says so again", "%v", p.tickErr)
	case p.tickErr == nil && p.ticked() && p.pin.Pin != nil:
		return fine("the job that runs goes on from what is pinned")
	}
	return nil
}

func pinIsOurs(p *patient) []finding {
	s := p.pin
	switch {
	case s.Pin == nil:
		return nil
	case s.Foreign:
		return doubt("stop what copies there: a copied _metadata names files that Flink deletes. The next tick of a job that restored from it replaces it",
			"%s was not written by chkpin", p.layout.Metadata)
	case !s.Outside.IsZero():
		return doubt("chkpin copy moves a pin, with --relocated from a copy such as this; the next tick that pins something makes this one whole as well",
			"the pin was copied by something else than chkpin: it names files of another place, such as %s, and restores only as long as they are there", s.Outside)
	case errors.Is(s.RecordErr, checkpoint.ErrLayout):
		return doubt(hintLayout, "%v", s.RecordErr)
	case s.RecordErr != nil:
		return doubt("the next tick mends it", "%v", s.RecordErr)
	case !s.Described:
		return notice("the next tick mends it", "%s does not describe what is published, as after a tick that was killed", p.layout.Record)
	}
	return nil
}

// oneWriter looks for signs of two jobs, two deployments or two chkpins that
// share one pin.
func oneWriter(p *patient) (found []finding) {
	if a, b, mixed := interleaved(p.pin.Generations); mixed {
		found = append(found, doubt("give each job an <app> of its own, or name the one that is meant with --job; pin --all does so for a session cluster",
			"generations of job %s and of job %s alternate: two jobs share this pin", a, b)...)
	}
	if c := p.cluster; c != nil && len(c.live) > 1 && sameName(p) {
		found = append(found, doubt("two deployments of one job run at once: cancel the one that is not meant",
			"%d live jobs have the name %q", len(c.live), c.live[0].Name)...)
	}
	for _, r := range p.pin.Record.Held {
		found = append(found, notice("cancel it if it still runs and is not meant to", "a run of job %s, started %s, did not come from the pin and was held", r.JobID, r.StartTime())...)
	}
	for _, o := range p.pin.Collections {
		age := p.storeNow().Sub(o.ModTime)
		if age >= checkpoint.CollectionLife {
			found = append(found, notice("nothing to do: the next collection removes the announcement", "a collection of garbage was killed %s ago", age.Round(time.Second))...)
			continue
		}
		found = append(found, notice("nothing to do: ticks wait for it", "a collection of garbage is at work, since %s", age.Round(time.Second))...)
	}
	return found
}

// storeNow is the time by the store's clock.
func (p *patient) storeNow() time.Time {
	if p.probe.modTime.IsZero() {
		return p.now
	}
	return p.probe.modTime
}

// interleaved reports whether a job was pinned, another one after it, and then
// the first one again. A successor never comes before the one it replaced.
func interleaved(generations []checkpoint.SurveyedGeneration) (a, b string, mixed bool) {
	var seen []string // job ids in the order of pinning
	for _, g := range slices.Backward(generations) {
		id := g.Record.Run.JobID
		if id == "" || len(seen) > 0 && seen[len(seen)-1] == id {
			continue
		}
		if slices.Contains(seen, id) {
			return seen[len(seen)-1], id, true
		}
		seen = append(seen, id)
	}
	return "", "", false
}

func sameName(p *patient) bool {
	for _, j := range p.cluster.live {
		if j.Name != p.cluster.live[0].Name {
			return false
		}
	}
	return true
}

func rightsAreThere(p *patient) []finding {
	if p.closed != nil {
		fix := hintFor(p.closed, verdictOf(context.Background(), p.closed))
		return fault(p.closed, fix+"; what only the store can tell was not looked at")
	}
	switch pr := p.probe; {
	case pr.write != nil:
		return fault(pr.write, "ticks need to write below last-state; manifests/iam/tick.json has the rights of a tick on S3")
	case pr.read != nil:
		return fault(pr.read, "ticks need to read what they wrote; manifests/iam/tick.json has the rights of a tick on S3")
	case pr.remove != nil:
		return fault(pr.remove, "ticks collect garbage below last-state, and need to delete there; remove the probe by hand")
	case pr.unconditional:
		return doubt("let one chkpin at a time pin here; current releases of S3 services know If-None-Match and If-Match",
			"the store ignores conditions of writes: of two chkpins, the later wins")
	}
	return fine("listing, writing, reading and deleting below %s work", p.layout.Root)
}

func bucketKeepsThePin(p *patient) (found []finding) {
	if errors.Is(p.rules.lifecycleErr, errors.ErrUnsupported) {
		return nil
	}
	if err := p.rules.lifecycleErr; err != nil {
		return notice("let someone with s3:GetLifecycleConfiguration look: no rule may delete or archive below last-state",
			"lifecycle rules could not be read: %v", err)
	}
	const fix = "leave <app>/last-state out of the rule, by its prefix: the files of a pin stay in use for as long as checkpoints name them, whatever their age"
	for _, r := range p.rules.lifecycle {
		name := fmt.Sprintf("lifecycle rule %q on keys below %q", r.ID, r.Prefix)
		only := ""
		if r.Narrowed {
			only = ", of objects with certain tags or sizes"
		}
		switch {
		case r.Deletes() && !r.Narrowed:
			found = append(found, misconfigured(fix, "%s deletes %s%s", name, whenOf(r), only)...)
		case r.Deletes():
			found = append(found, doubt(fix, "%s deletes %s%s", name, whenOf(r), only)...)
		case r.Archives():
			found = append(found, doubt(fix, "%s moves objects to %s after %d days%s, from where nothing can be restored at once", name, r.Archive, r.ArchivesAfter, only)...)
		}
	}
	if len(found) == 0 {
		return fine("no lifecycle rule deletes or archives what is below last-state")
	}
	return found
}

func versionsArePruned(p *patient) []finding {
	switch err := p.rules.versionedErr; {
	case errors.Is(err, errors.ErrUnsupported):
		return nil
	case err != nil:
		return notice("s3:GetBucketVersioning reads it", "whether the bucket keeps versions could not be read: %v", err)
	case !p.rules.versioned:
		return fine("the bucket keeps no versions")
	}
	for _, r := range p.rules.lifecycle {
		if r.ClearsOld {
			return fine("the bucket keeps versions, and lifecycle rule %q removes old ones", r.ID)
		}
	}
	return notice("add a lifecycle rule that removes noncurrent versions below last-state after some days",
		"the bucket keeps versions: what ticks replace and collect goes on costing")
}

// tolerableSkew is by how much clocks may differ without anyone noticing.
const tolerableSkew = time.Minute

func clocksAgree(p *patient) (found []finding) {
	const fix = "let NTP set the clocks; ages (--max-age, this page) are wrong by as much, and S3 refuses requests from 15 minutes on. What is pinned does not depend on clocks"
	compare := func(whose string, theirs, ours time.Time) {
		if theirs.IsZero() {
			return
		}
		if skew := theirs.Sub(ours); skew.Abs() > tolerableSkew {
			found = append(found, doubt(fix, "the clock of %s differs from ours by %s", whose, skew.Abs().Round(time.Second))...)
		}
	}
	compare("the store", p.probe.modTime, p.probe.written)
	if c := p.asked(); c != nil {
		compare("the JobManager", c.job.Now, c.answered)
	}
	if len(found) == 0 && (!p.probe.modTime.IsZero() || p.asked() != nil) {
		return fine("the clocks agree to within a minute")
	}
	return found
}

// counted is a number and its word, in the plural if need be.
func counted(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// firstFew names at most three.
func firstFew(names []string) string {
	if len(names) > 3 {
		return strings.Join(names[:3], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

func whenOf(r blobstore.LifecycleRule) string {
	if !r.DeletesOn.IsZero() {
		return "from " + r.DeletesOn.Format(time.DateOnly)
	}
	return fmt.Sprintf("after %d days", r.DeletesAfter)
}
