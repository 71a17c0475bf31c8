package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/chkpin/chkpin/blobstore"
)

// A collection of garbage and a tick may meet on one state file: nobody names
// it for a long time, and then the newest checkpoint names it again, for example
// after a few savepoints were pinned. The tick copies it anew under its old
// name while the collection, which looked before, is about to delete it.
//
// So a collection says in last-state/collecting/ what it is about to delete,
// then looks again, and deletes what is still garbage. A tick reads that after
// its copies and before its last listing. If the tick copied before the
// collection's second look, the file is young by then and stays. If it copied
// later, it finds the collection at work, or what that has deleted missing from
// the listing, and starts again.

const (
	// collectFor is how long after its announcement a collection deletes.
	collectFor = 5 * time.Minute

	// collectionLife is after how long, by the store's clock, a collection that
	// is still announced was killed.
	collectionLife = 2 * collectFor
)

// announcement is the content of an object below last-state/collecting.
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

// collections are those at work, by the names of the files they are about to
// delete: since when.
type collections map[string]time.Time

func collectionsAtWork(ctx context.Context, store blobstore.Store, l Layout) (collections, error) {
	at := collections{}
	for o, err := range store.List(ctx, l.Collecting, blobstore.ListOptions{Shallow: true}) {
		if err != nil {
			return nil, err
		}
		if o.Dir {
			continue
		}
		var a announcement
		_, ok, err := readJSON(ctx, store, o.URI, &a)
		if err != nil && !errors.Is(err, errNoRecord) { // something else that lies there
			return nil, err
		}
		if !ok {
			continue // over by now
		}
		for _, name := range a.Files {
			if o.ModTime.After(at[name]) {
				at[name] = o.ModTime
			}
		}
	}
	return at, nil
}

// threaten reports whether a collection may delete what was copied. now is the
// time by the store's clock.
func (c collections) threaten(copies []fileCopy, now time.Time) bool {
	for _, copied := range copies {
		if since, ok := c[copied.target.Base()]; ok && now.Sub(since) < collectionLife {
			return true
		}
	}
	return false
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
