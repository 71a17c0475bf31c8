package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/chkpin/chkpin/blobstore"
)

// A collection of garbage and a tick may meet on one state file: nobody names
// it for a long time, and then the newest checkpoint names it again, for example
// after a few savepoints were pinned. The tick copies it anew under its old
// name while the collection, which looked before, is about to delete it.
//
// So a collection says in an object of state/ what it is about to delete, then
// looks again, and deletes what is still garbage. A tick lists state/ after its
// copies. If it copied before the collection's second look, the file is young by
// then and stays. If it copied later, the listing shows the collection at work,
// or, when that is over, what it has deleted is missing from the listing; then
// the tick starts again. The name of the announcement sorts before those of
// state files, so a listing in pages that does not show it on the first one was
// begun when the collection was over.

const (
	// collectFor is how long after its announcement a collection deletes.
	collectFor = 5 * time.Minute

	// collectionLife is after how long, by the store's clock, a collection that
	// is still announced was killed.
	collectionLife = 2 * collectFor
)

// announcementPrefix begins the names of announcements.
const announcementPrefix = ".collecting-"

// announcement is the content of such an object.
type announcement struct {
	Layout int      `json:"layout"`
	Files  []string `json:"files"` // names of state files that are about to be deleted
}

// announce says what a collection is about to delete.
func announce(ctx context.Context, store blobstore.Store, u blobstore.URI, files []string) error {
	data, err := json.Marshal(announcement{layoutVersion, files})
	if err == nil {
		_, err = putBytes(ctx, store, u, data, blobstore.PutOptions{})
	}
	return err
}

// threatened reports whether a collection may delete what was copied, by the
// listing that was made afterwards. now is the store's clock.
func (d *delivery) threatened(ctx context.Context, listed map[string]blobstore.Object, copied map[string]bool, now time.Time) (bool, error) {
	for name, o := range listed {
		if !strings.HasPrefix(name, announcementPrefix) || now.Sub(o.ModTime) >= collectionLife {
			continue
		}
		var a announcement
		_, ok, err := readJSON(ctx, d.store, o.URI, &a)
		if err != nil && !errors.Is(err, errNoRecord) { // something else that lies there
			return false, err
		}
		if !ok && err == nil {
			return true, nil // over since the listing: what it has deleted may stand in it
		}
		if slices.ContainsFunc(a.Files, func(f string) bool { return copied[f] }) {
			return true, nil
		}
	}
	return false, nil
}

// youngest is the store's clock as its objects show it, at most a moment behind
// when one was just written.
func youngest(objects map[string]blobstore.Object) (now time.Time) {
	for _, o := range objects {
		if o.ModTime.After(now) {
			now = o.ModTime
		}
	}
	return now
}

// clockBy is the store's clock by those of the objects that were just written, if
// there are any: a volume's clock that was ahead once has left younger ones.
func clockBy(written map[string]bool, listed map[string]blobstore.Object) time.Time {
	just := map[string]blobstore.Object{}
	for name := range written {
		if o, ok := listed[name]; ok {
			just[name] = o
		}
	}
	if now := youngest(just); !now.IsZero() {
		return now
	}
	return youngest(listed)
}
