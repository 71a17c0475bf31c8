package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/chkpin/chkpin/blobstore"
)

// ResolveFirst is [Resolve] for several applications in the order of preference,
// such as one and its replicas: it says what to start from in the first that has
// something. A later one that is known to be newer is a warning.
//
// [ErrNoPin] means that nothing was ever pinned for any of them. Where one of
// several cannot be had, or not be reached, and none restores, the error is a
// *[NoneRestoresError].
func ResolveFirst(ctx context.Context, store blobstore.Store, apps []blobstore.URI, opts ResolveOptions) (Resolved, error) {
	var refused []Candidate
	var errs []error
	for i, app := range apps {
		r, err := Resolve(ctx, store, app, opts)
		r.Candidates = append(refused, r.Candidates...)
		if err == nil {
			r.Warnings = append(r.Warnings, newerLater(ctx, store, apps[i+1:], r, opts)...)
			return r, nil
		}
		if len(apps) == 1 || ctx.Err() != nil {
			return r, err
		}
		refused = append(r.Candidates, Candidate{URI: app, Why: err.Error(), Preferred: true})
		errs = append(errs, err)
	}
	none := &NoneRestoresError{Apps: apps, Errs: errs}
	if none.neverPinned() {
		for i := range refused { // the error says it
			refused[i].Preferred = refused[i].Preferred && !slices.ContainsFunc(apps, refused[i].URI.Same)
		}
		return Resolved{Candidates: refused}, fmt.Errorf("%w: %s", ErrNoPin, joinURIs(apps))
	}
	return Resolved{Candidates: refused}, none
}

// newerLater reads, of applications that were not needed, only what they say
// they hold. What cannot be read is not known to be newer.
func newerLater(ctx context.Context, store blobstore.Store, apps []blobstore.URI, chosen Resolved, opts ResolveOptions) (warnings []string) {
	for _, app := range apps {
		var rec Record
		_, ok, err := readJSON(ctx, store, LayoutOf(opts.Relocations.Apply(app)).Record, &rec)
		if err != nil || !ok {
			continue
		}
		later := rec.Checkpoint.Triggered.After(chosen.Triggered) && !chosen.Triggered.IsZero()
		if rec.Run.JobID == chosen.JobID {
			later = rec.Checkpoint.ID > chosen.CheckpointID
		}
		if later {
			warnings = append(warnings, fmt.Sprintf("%s holds something newer: checkpoint %d of job %s", app, rec.Checkpoint.ID, rec.Run.JobID))
		}
	}
	return warnings
}

// NoneRestoresError says why none of several applications restores.
type NoneRestoresError struct {
	Apps []blobstore.URI
	Errs []error // one for each
}

func (e *NoneRestoresError) Error() string {
	var why []string
	for _, err := range e.Errs {
		why = append(why, err.Error())
	}
	return fmt.Sprintf("none of %s restores: %s", plural(len(e.Apps), "application"), strings.Join(why, "; "))
}

// Unwrap leaves out what was never pinned: it is not why nothing restores.
func (e *NoneRestoresError) Unwrap() []error {
	var errs []error
	for _, err := range e.Errs {
		if !errors.Is(err, ErrNoPin) {
			errs = append(errs, err)
		}
	}
	return errs
}

func (e *NoneRestoresError) neverPinned() bool { return len(e.Unwrap()) == 0 }

func joinURIs(uris []blobstore.URI) string {
	var texts []string
	for _, u := range uris {
		texts = append(texts, u.String())
	}
	return strings.Join(texts, ", ")
}
