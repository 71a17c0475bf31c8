package checkpoint

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

// Survey is what stands below an application's folder, each part with what is
// wrong with it.
type Survey struct {
	Existed bool // chkpin.json is there: state was pinned here once

	Pin     *Snapshot // last-state/_metadata; nil when there is none that parses
	Report  Report    // of the files that Pin names
	PinErr  error     // why the pin does not restore, blobstore.ErrNotExist if there is none; nil when it does
	Foreign bool      // Pin is no generation of chkpin: something else wrote it

	// Outside is a file that Pin, which chkpin wrote, names and that is not below this
	// <app>: something else than chkpin copied the pin here. Zero if there is none.
	Outside blobstore.URI

	Record    Record // pin.json; zero when there is none
	RecordErr error  // why it cannot be read
	Described bool   // Record is about Pin; the next tick mends it otherwise

	Hold    *Hold // nil when the pin is not on hold
	HoldErr error // why hold.json cannot be read

	Generations    []SurveyedGeneration // newest first
	GenerationsErr error                // why they cannot be listed

	// Collections are those that announced what they are about to delete and are
	// not over, with the time of their announcement by the store's clock.
	Collections    []blobstore.Object
	CollectionsErr error
}

// SurveyedGeneration is one generation of a pin.
type SurveyedGeneration struct {
	Name     string
	Finished bool   // its manifest was written, which comes last
	Record   Record // the manifest; zero when it is not finished
	Err      error  // why it does not restore; nil when it does
}

// CollectionLife is after how long, by the store's clock, a collection that is
// still announced was killed.
const CollectionLife = collectionLife

// SurveyOptions change where a survey looks.
type SurveyOptions struct {
	Relocations Relocations
}

// TakeSurvey looks at everything that chkpin keeps for an application and changes
// nothing. It proves the pin and each generation. What cannot be looked at is
// part of the result; only the end of ctx is an error.
func TakeSurvey(ctx context.Context, store blobstore.Store, app blobstore.URI, opts SurveyOptions) (Survey, error) {
	var s Survey
	l := LayoutOf(opts.Relocations.Apply(app))
	g, gctx := errgroup.WithContext(ctx)
	look := func(do func()) { g.Go(func() error { do(); return gctx.Err() }) }
	look(func() {
		_, err := store.Stat(gctx, l.Existed)
		s.Existed = err == nil
	})
	look(func() { s.Pin, s.Report, s.PinErr = examine(gctx, store, l.Metadata, opts.Relocations) })
	look(func() { _, _, s.RecordErr = readJSON(gctx, store, l.Record, &s.Record) })
	look(func() { s.Hold, _, s.HoldErr = readHold(gctx, store, l) })
	look(func() { s.Generations, s.GenerationsErr = surveyGenerations(gctx, store, l, opts.Relocations) })
	look(func() { s.Collections, s.CollectionsErr = collections(gctx, store, l) })
	if err := g.Wait(); err != nil {
		return s, err
	}
	if s.HoldErr != nil { // a hold that cannot be read holds, too
		s.Hold = &Hold{Reason: s.HoldErr.Error()}
	}
	if s.Pin != nil {
		digest := digestOf(s.Pin.Bytes())
		s.Described = s.Record.Metadata.SHA256 == digest
		s.Foreign = !s.Described && s.GenerationsErr == nil && !s.wrote(digest)
		if !s.Foreign {
			s.Outside = namedOutside(s.Pin, l)
		}
	}
	return s, ctx.Err()
}

// namedOutside is the first file that a pin names outside of its own folder.
func namedOutside(pin *Snapshot, l Layout) blobstore.URI {
	files, err := pin.files()
	if err != nil {
		return blobstore.URI{} // which is why it does not restore
	}
	for _, f := range files {
		if !f.Location.Within(l.State) {
			return f.URI
		}
	}
	return blobstore.URI{}
}

// wrote reports whether a generation has this digest.
func (s Survey) wrote(digest string) bool {
	for _, g := range s.Generations {
		if g.Record.Metadata.SHA256 == digest {
			return true
		}
	}
	return false
}

// Restores reports whether the published pin restores.
func (s Survey) Restores() bool { return s.Pin != nil && s.PinErr == nil }

// PinnedAt is when the pinned checkpoint was triggered, by the JobManager's
// clock; zero when nobody knows.
func (s Survey) PinnedAt() time.Time {
	if !s.Described {
		return time.Time{}
	}
	return s.Record.Checkpoint.Triggered
}

// examine is prove with what was found.
func examine(ctx context.Context, store blobstore.Store, at blobstore.URI, rs Relocations) (*Snapshot, Report, error) {
	s, err := loadAt(ctx, store, at, rs)
	if err != nil {
		return nil, Report{}, err
	}
	report, err := Verify(ctx, store, s)
	if err != nil {
		return s, report, err
	}
	return s, report, report.Err(s.URI)
}

func surveyGenerations(ctx context.Context, store blobstore.Store, l Layout, rs Relocations) ([]SurveyedGeneration, error) {
	names, err := generationNames(ctx, store, l)
	if err != nil {
		return nil, err
	}
	found := make([]SurveyedGeneration, len(names))
	for i, name := range names {
		g := SurveyedGeneration{Name: name}
		g.Record, g.Finished, g.Err = readManifest(ctx, store, l.generation(name))
		if g.Finished && g.Err == nil {
			_, g.Err = prove(ctx, store, l.generation(name).Join(MetadataName), rs)
		}
		found[i] = g
	}
	return found, nil
}

// collections lists the announcements.
func collections(ctx context.Context, store blobstore.Store, l Layout) (found []blobstore.Object, err error) {
	for o, err := range store.List(ctx, l.State, blobstore.ListOptions{Shallow: true}) {
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(o.URI.Base(), announcementPrefix) {
			found = append(found, o)
		}
	}
	return found, nil
}

// LeftAhead lists the checkpoints in a job's folder with a higher number than
// that of latest which were complete before it was: an earlier run of the same
// job id left them, and the job will run into them. Highest first.
func LeftAhead(ctx context.Context, store blobstore.Store, latest Latest, opts LoadOptions) ([]int64, error) {
	at := func(u blobstore.URI) blobstore.URI { return opts.Relocations.Apply(u).Join(MetadataName) }
	ids, err := checkpointIDs(ctx, store, opts.Relocations.Apply(latest.Path.Dir()))
	if err != nil {
		return nil, err
	}
	completed, err := store.Stat(ctx, at(latest.Path))
	if err != nil {
		return nil, err
	}
	var left []int64
	for _, id := range ids {
		if id <= latest.ID {
			break
		}
		o, err := store.Stat(ctx, at(latest.Path.Dir().Join("chk-"+strconv.FormatInt(id, 10))))
		if errors.Is(err, blobstore.ErrNotExist) {
			continue // not complete
		}
		if err != nil {
			return nil, err
		}
		if o.ModTime.Before(completed.ModTime) {
			left = append(left, id)
		}
	}
	return left, nil
}

// Holds reports whether a restore path is this pin: its folder, its metadata
// file, or those of a generation.
func (l Layout) Holds(u blobstore.URI) bool { return l.holds(u) }
