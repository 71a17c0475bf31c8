package blobstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// RuleReader is a [Store] that can tell what its service does to objects on its
// own, by rules that an administrator has set. Reading them may need rights of
// its own; [errors.ErrUnsupported] means that the service, or the kind of store,
// has no such rules.
type RuleReader interface {
	// Versioned reports whether the bucket of u keeps what is overwritten or
	// deleted.
	Versioned(ctx context.Context, u URI) (bool, error)

	// LifecycleRules are the rules in force that can touch objects below dir.
	LifecycleRules(ctx context.Context, dir URI) ([]LifecycleRule, error)
}

// LifecycleRule is what a service does to objects that have come of age.
type LifecycleRule struct {
	ID     string
	Prefix string // of the keys it is about; "" is the whole bucket

	// Narrowed says that tags or sizes limit the rule further, so that it may
	// spare what the prefix covers.
	Narrowed bool

	DeletesAfter  int       // days after which objects are deleted; 0 when they are not, by age
	DeletesOn     time.Time // date from which objects are deleted; zero when there is none
	ArchivesAfter int       // days after which objects move to where they cannot be read at once; 0 when they do not
	Archive       string    // the storage class that is
	ClearsOld     bool      // deletes versions that are no longer current
}

// Deletes reports whether the rule deletes current objects.
func (r LifecycleRule) Deletes() bool { return r.DeletesAfter > 0 || !r.DeletesOn.IsZero() }

// Archives reports whether the rule takes current objects out of reach.
func (r LifecycleRule) Archives() bool { return r.Archive != "" }

// Touches reports whether the rule's prefix and a folder have objects in common.
func (r LifecycleRule) Touches(dir URI) bool {
	folder := dir.Key() + "/"
	return strings.HasPrefix(folder, r.Prefix) || strings.HasPrefix(r.Prefix, folder)
}

func (m Mux) rules(op string, u URI) (RuleReader, error) {
	s, err := m.store(op, u)
	if err != nil {
		return nil, err
	}
	reader, ok := s.(RuleReader)
	if !ok {
		return nil, &Error{Op: op, URI: u, Err: fmt.Errorf("no rules at %s: %w", u.Family(), errors.ErrUnsupported)}
	}
	return reader, nil
}

// Versioned implements [RuleReader] for stores that do.
func (m Mux) Versioned(ctx context.Context, u URI) (bool, error) {
	reader, err := m.rules("read versioning of", u)
	if err != nil {
		return false, err
	}
	return reader.Versioned(ctx, u)
}

// LifecycleRules implements [RuleReader] for stores that do.
func (m Mux) LifecycleRules(ctx context.Context, dir URI) ([]LifecycleRule, error) {
	reader, err := m.rules("read lifecycle of", dir)
	if err != nil {
		return nil, err
	}
	return reader.LifecycleRules(ctx, dir)
}
