package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chkpin/chkpin/blobstore"
)

// ResolveOptions change what [Resolve] accepts.
type ResolveOptions struct {
	// Strict refuses a damaged pin instead of falling back to the newest
	// generation that proves.
	Strict bool

	// MaxAge refuses state whose checkpoint was triggered longer ago; 0 means
	// any age.
	MaxAge time.Duration

	Relocations Relocations
	Now         func() time.Time // nil means time.Now
}

// Resolved is a path that restores.
type Resolved struct {
	Path         blobstore.URI // what --fromSavepoint takes
	Generation   string        // "" when chkpin did not write what is there
	JobID        string
	CheckpointID int64
	Triggered    time.Time // zero when unknown
	Warnings     []string
}

// Args are the arguments for Flink's entry points. The long option is the same
// in every release (StandaloneApplicationClusterEntryPoint and the flink
// command, 1.13 to 2.3).
func (r Resolved) Args() []string { return []string{"--fromSavepoint", r.Path.String()} }

// Resolve proves the pin of app and says what to start from: the constant path,
// or, when that is missing or damaged, the newest generation that proves.
//
// [ErrNoPin] means that nothing was ever pinned, the one case in which starting
// without state is right. Where not even the folder above app exists it is not
// that but [blobstore.ErrContainer], as of a volume that nobody mounted. [ErrPinGone] and *[DamagedError] mean that there was
// state and it cannot be had; [ErrTooOld] that it is older than MaxAge.
func Resolve(ctx context.Context, store blobstore.Store, app blobstore.URI, opts ResolveOptions) (Resolved, error) {
	layout := LayoutOf(opts.Relocations.Apply(app))
	var rec Record
	var notes []string
	var damaged *DamagedError
	_, ok, err := readJSON(ctx, store, layout.Record, &rec)
	switch {
	case errors.As(err, &damaged):
		rec, notes = Record{}, []string{err.Error()}
	case err != nil:
		return Resolved{}, err
	}
	snap, err := prove(ctx, store, layout.Metadata, opts.Relocations)
	if errors.Is(err, blobstore.ErrNotExist) || errors.As(err, &damaged) {
		return fallBack(ctx, store, layout, app, rec, err, opts)
	}
	if err != nil {
		return Resolved{}, err
	}
	if digest := digestOf(snap.Bytes()); !ok || rec.Metadata.SHA256 != digest {
		notes = append(notes, fmt.Sprintf("%s does not describe what is published; the next tick mends it", layout.Record))
		found, err := findGeneration(ctx, store, layout, digest)
		if err != nil {
			return Resolved{}, err
		}
		rec = Record{}
		if found != nil {
			rec = *found
		}
	}
	return resolved(LayoutOf(app).Metadata, snap, rec, notes, opts)
}

// fallBack looks for a generation when the constant path does not restore.
// cause is why it does not.
func fallBack(ctx context.Context, store blobstore.Store, l Layout, app blobstore.URI, rec Record, cause error, opts ResolveOptions) (Resolved, error) {
	var damaged *DamagedError
	if errors.As(cause, &damaged) && opts.Strict {
		return Resolved{}, cause
	}
	found, snap, err := newestProvable(ctx, store, l, rec.Generation, opts.Relocations)
	switch {
	case err != nil:
		return Resolved{}, err
	case found != nil && opts.Strict:
		return Resolved{}, &DamagedError{URI: LayoutOf(app).Metadata.String(), Missing: []string{LayoutOf(app).Metadata.String()}, Err: cause}
	case found != nil:
		path := LayoutOf(app).generation(found.Generation).Join(MetadataName)
		return resolved(path, snap, *found, []string{fmt.Sprintf("falling back to generation %s: %v", found.Generation, cause)}, opts)
	case damaged != nil:
		return Resolved{}, cause
	}
	gone, err := everPinned(ctx, store, l, rec)
	switch {
	case err != nil:
		return Resolved{}, err
	case gone:
		return Resolved{}, fmt.Errorf("%w: %s", ErrPinGone, app)
	}
	if mounts, ok := store.(blobstore.Mounter); ok { // what is not mounted looks empty
		if _, err := mounts.Mount(ctx, l.App); errors.Is(err, blobstore.ErrContainer) {
			return Resolved{}, err
		}
	}
	return Resolved{}, fmt.Errorf("%w: %s", ErrNoPin, app)
}

// everPinned reports whether there was state here once.
func everPinned(ctx context.Context, store blobstore.Store, l Layout, rec Record) (bool, error) {
	if rec.Generation != "" {
		return true, nil
	}
	if _, err := store.Stat(ctx, l.Existed); !errors.Is(err, blobstore.ErrNotExist) {
		return err == nil, err
	}
	names, err := generationNames(ctx, store, l)
	return len(names) > 0, err
}

func resolved(path blobstore.URI, s *Snapshot, rec Record, notes []string, opts ResolveOptions) (Resolved, error) {
	r := Resolved{
		Path:         path,
		Generation:   rec.Generation,
		JobID:        rec.Run.JobID,
		CheckpointID: s.CheckpointID,
		Triggered:    rec.Checkpoint.Triggered,
		Warnings:     append(notes, Warnings(s)...),
	}
	if opts.MaxAge > 0 {
		now := time.Now
		if opts.Now != nil {
			now = opts.Now
		}
		if r.Triggered.IsZero() {
			return r, fmt.Errorf("%w, for all that is known: nobody knows when checkpoint %d was triggered", ErrTooOld, r.CheckpointID)
		}
		if now().Sub(r.Triggered) > opts.MaxAge {
			return r, fmt.Errorf("%w: checkpoint %d was triggered %s", ErrTooOld, r.CheckpointID, r.Triggered.Format(time.RFC3339))
		}
	}
	return r, nil
}
