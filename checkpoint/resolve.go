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
// without state is right. [ErrPinGone] and *[DamagedError] mean that there was
// state and it cannot be had; [ErrTooOld] that it is older than MaxAge.
func Resolve(ctx context.Context, store blobstore.Store, app blobstore.URI, opts ResolveOptions) (Resolved, error) {
	layout := LayoutOf(app)
	snap, err := prove(ctx, store, layout.Metadata, opts.Relocations)
	var damaged *DamagedError
	switch {
	case err == nil:
		return describePin(ctx, store, layout, snap, opts)
	case !errors.Is(err, blobstore.ErrNotExist) && !errors.As(err, &damaged):
		return Resolved{}, err
	case damaged != nil && opts.Strict:
		return Resolved{}, err
	}
	return fallBack(ctx, store, layout, err, opts)
}

// describePin fills in what the record says about the published pin.
func describePin(ctx context.Context, store blobstore.Store, l Layout, s *Snapshot, opts ResolveOptions) (Resolved, error) {
	var rec Record
	var notes []string
	_, ok, err := readJSON(ctx, store, l.Record, &rec)
	if damaged := (*DamagedError)(nil); errors.As(err, &damaged) {
		notes = append(notes, err.Error())
	} else if err != nil {
		return Resolved{}, err
	}
	if ok && rec.Metadata.SHA256 != digestOf(s.Bytes()) {
		ok = false // a tick was killed before it wrote the record, or the file is not ours
	}
	if !ok {
		notes = append(notes, fmt.Sprintf("%s does not describe what is published; the next tick mends it", l.Record))
		rec = Record{}
	}
	return resolved(l.Metadata, s, rec, notes, opts)
}

// fallBack looks for a generation when the constant path does not restore.
// cause is why it does not.
func fallBack(ctx context.Context, store blobstore.Store, l Layout, cause error, opts ResolveOptions) (Resolved, error) {
	names, err := generationNames(ctx, store, l)
	if err != nil {
		return Resolved{}, err
	}
	for _, name := range names {
		var rec Record
		dir := l.generation(name)
		_, ok, err := readJSON(ctx, store, dir.Join("pin.json"), &rec)
		if err != nil || !ok {
			continue
		}
		snap, err := prove(ctx, store, dir, opts.Relocations)
		if damaged := (*DamagedError)(nil); errors.As(err, &damaged) || errors.Is(err, blobstore.ErrNotExist) {
			continue
		} else if err != nil {
			return Resolved{}, err
		}
		if opts.Strict {
			return Resolved{}, fmt.Errorf("%w: %w", ErrPinGone, cause)
		}
		return resolved(dir.Join(MetadataName), snap, rec, []string{fmt.Sprintf("falling back to generation %s: %v", name, cause)}, opts)
	}
	if damaged := (*DamagedError)(nil); errors.As(cause, &damaged) {
		return Resolved{}, cause
	}
	var e existed
	_, ok, err := readJSON(ctx, store, l.Existed, &e)
	switch {
	case err != nil:
		return Resolved{}, err
	case ok || len(names) > 0:
		return Resolved{}, fmt.Errorf("%w: %s", ErrPinGone, l.App)
	}
	return Resolved{}, fmt.Errorf("%w: %s", ErrNoPin, l.App)
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
		if age := now().Sub(r.Triggered); r.Triggered.IsZero() || age > opts.MaxAge {
			return r, fmt.Errorf("%w: checkpoint %d was triggered %s", ErrTooOld, r.CheckpointID, r.Triggered.Format(time.RFC3339))
		}
	}
	return r, nil
}
