package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/chkpin/chkpin/blobstore"
)

// Hold is the content of hold.json. While it stands, nothing is published
// except from a run that restored what is held; see [Rollback], which writes
// it.
//
// It ends in one of these ways:
//
//   - A run restored the held checkpoint from the pin and a tick pins it. That
//     tick writes Ended, on the condition that the hold is still the one it
//     read. It does not delete: a store deletes without a condition, and a tick
//     that is late would delete the hold of a later rollback.
//   - [Release], or somebody, deletes hold.json. Then the pinned run publishes
//     again, if it is still alive.
type Hold struct {
	Layout       int    `json:"layout"`
	Generation   string `json:"generation,omitempty"`
	CheckpointID int64  `json:"checkpointId,omitempty"`
	Reason       string `json:"reason,omitempty"`

	// Known are the runs that had been seen before the hold. They do not end it,
	// whatever they restored: a run that restored checkpoint 4 of the pin and went
	// wrong has not restored it again when the pin is rolled back to 4.
	Known []Run `json:"known,omitempty"`

	// Ended says what ended the hold; then it holds nothing any more.
	Ended string `json:"ended,omitempty"`
}

// keeps reports whether the hold keeps a run that restored this checkpoint of
// the pin (nil: none that is known) from publishing.
func (h *Hold) keeps(run Run, restored *int64) bool {
	switch {
	case h == nil:
		return false
	case restored == nil || *restored != h.CheckpointID:
		return true
	}
	return slices.ContainsFunc(h.Known, run.is)
}

// Unfinished reports whether a generation other than the held one is published:
// the rollback was killed in between, or another chkpin has published over it.
// [Rollback] again finishes it. What is published is not to be started from.
func (h *Hold) Unfinished(published string) bool {
	return h.Generation != "" && published != "" && h.Generation != published
}

// Explain says for people why nothing but what is held goes on from this
// published generation.
func (h *Hold) Explain(published string) string {
	text := "the pin is on hold"
	if h.Reason != "" {
		text += ": " + h.Reason
	}
	if h.Unfinished(published) {
		text += fmt.Sprintf("; the rollback to %s is not finished, %s is published", h.Generation, published)
	}
	return text
}

// standingHold is readHold for those who heed a hold: one that cannot be
// understood holds everybody.
func standingHold(ctx context.Context, store blobstore.Store, l Layout) (standing *Hold, file *blobstore.Object, err error) {
	standing, file, err = readHold(ctx, store, l)
	if errors.Is(err, errNoRecord) {
		return &Hold{Reason: err.Error()}, file, nil
	}
	return standing, file, err
}

// readHold reads the hold that stands, nil if none does. file is hold.json, nil
// if there is none.
func readHold(ctx context.Context, store blobstore.Store, l Layout) (standing *Hold, file *blobstore.Object, err error) {
	var h Hold
	obj, ok, err := readJSON(ctx, store, l.Hold, &h)
	switch {
	case errors.Is(err, errNoRecord):
		return nil, &obj, err
	case err != nil || !ok:
		return nil, nil, err
	case h.Ended != "":
		return nil, &obj, nil
	}
	return &h, &obj, nil
}

// putHold writes hold.json unless somebody has written there since it was read:
// then it is an errOvertaken.
func putHold(ctx context.Context, store blobstore.Store, l Layout, h Hold, read *blobstore.Object) (obj blobstore.Object, err error) {
	h.Layout = layoutVersion
	data, err := json.MarshalIndent(h, "", " ")
	if err == nil {
		obj, err = putBytes(ctx, store, l.Hold, append(data, '\n'), unchanged(read))
	}
	if errors.Is(err, blobstore.ErrPrecondition) {
		err = errOvertaken
	}
	return obj, err
}

// endHold ends the hold that the run which was just pinned has fulfilled. If it
// is another one by now, that stands.
func (t *tick) endHold(ctx context.Context, h *Hold, read *blobstore.Object) {
	if h == nil {
		return
	}
	ended := *h
	ended.Ended = fmt.Sprintf("job %s restored it and is pinned", t.obs.Run.JobID)
	if _, err := putHold(ctx, t.store, t.layout, ended, read); err != nil && !errors.Is(err, errOvertaken) {
		t.warn("published, but the hold is still there: %v", err)
	}
}
