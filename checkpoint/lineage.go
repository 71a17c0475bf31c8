package checkpoint

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/chkpin/chkpin/blobstore"
)

// Restored says what a run started from, as latest.restored of the REST API
// does: after --fromSavepoint the folder of the pin and the pinned checkpoint's
// id; after a failover the run's own checkpoint.
type Restored struct {
	ID   int64
	Path blobstore.URI
}

// verdict is whether a run may replace what is pinned.
type verdict struct {
	publish  bool
	restored *int64 // the checkpoint of this pin that the run restored, where known
	reason   string // when held, for people

	configured   bool // only the cluster's configuration says that the run restored from this pin
	startedEmpty bool // held, and it restored nothing
	replaced     bool // held, since the pin goes on with another run
}

func hold(format string, args ...any) verdict { return verdict{reason: fmt.Sprintf(format, args...)} }

// lineage judges runs by what they came from.
type lineage struct {
	layout   Layout
	siblings blobstore.URI   // see PinOptions.Siblings
	replicas []blobstore.URI // see PinOptions.Replicas
	pinned   Record          // what is published; a zero Generation means no history

	// configured asks what an application-mode cluster was told to start from,
	// the witness that survives failovers; "" when nothing.
	configured func() (string, error)

	// replicaHas asks whether a replica has published the copy of what is pinned
	// here, and nothing else.
	replicaHas func(app blobstore.URI) (bool, error)
}

// judge decides whether a run continues the pinned history. It is the guard
// against replacing good state by that of a job that started empty, came from
// somewhere else, or was itself replaced.
func (l lineage) judge(run Run, restored *Restored) (verdict, error) {
	seen := l.pinned.Seen
	if seen != nil && !seen.is(run) {
		seen = nil
	}
	if l.pinned.Generation != "" && l.pinned.Run.is(run) {
		v := verdict{publish: true}
		if seen != nil {
			v.restored = &seen.RestoredID
		}
		return v, nil
	}
	if restored != nil && l.isSibling(restored.Path) {
		return hold("this run restored from %s, the pin of a job with another name: was it renamed?", restored.Path), nil
	}
	if l.pinned.Generation == "" {
		return verdict{publish: true}, nil
	}
	if slices.ContainsFunc(l.pinned.Previous, run.is) {
		return l.replaced(), nil
	}
	if restored != nil && l.layout.holds(restored.Path) {
		return l.fromPin(restored.ID), nil
	}
	if seen != nil {
		return l.fromPin(seen.RestoredID), nil
	}
	if restored != nil {
		if app, ok := l.replicaAt(restored.Path); ok {
			return l.fromReplica(app, restored)
		}
	}
	if l.cameBack(run, restored) {
		return l.replaced(), nil
	}
	if before := l.pinned.heldBefore(run); before != nil {
		v := hold("this run did not come from the pin when it was first seen, and was held")
		v.startedEmpty = before.StartedEmpty
		return v, nil
	}
	own := restored != nil && run.Folder != "" && within(restored.Path, run.Folder)
	if restored != nil {
		if from := l.ancestor(restored.Path); from != "" {
			if restored.ID < l.pinned.Checkpoint.ID {
				return hold("this run restored checkpoint %d of %s, which is older than the pin", restored.ID, from), nil
			}
			return verdict{publish: true}, nil
		}
	}
	if restored != nil && !own {
		return hold("this run restored from %s, which does not come from the pin", restored.Path), nil
	}
	path, err := l.configured()
	if err != nil {
		return verdict{}, err
	}
	u, err := blobstore.Parse(path)
	switch {
	case err != nil || !l.layout.holds(u):
		v := hold("this run did not restore from the pin: it started empty")
		v.startedEmpty = restored == nil // else it failed over before it was first seen
		return v, nil
	case own && restored.ID <= l.pinned.Checkpoint.ID: // after checkpoint n it would count from n+1
		return hold("this run was to restore from the pin, but it is at checkpoint %d and cannot have restored checkpoint %d", restored.ID, l.pinned.Checkpoint.ID), nil
	}
	return verdict{publish: true, configured: true}, nil
}

// origin says what a run started from, in the words of [Pinned.RestoredFrom],
// and which checkpoint that was.
func (l lineage) origin(run Run, restored *Restored) (from string, id int64) {
	before := l.pinned.heldBefore(run)
	switch seen := l.pinned.Seen; {
	case restored != nil && l.layout.holds(restored.Path):
		return RestoredPin, restored.ID
	case seen != nil && seen.is(run):
		return RestoredPin, seen.RestoredID
	case restored != nil && l.isReplica(restored.Path):
		return RestoredPin, restored.ID
	case restored == nil, before != nil && before.StartedEmpty:
		return RestoredNothing, 0
	case run.Folder != "" && within(restored.Path, run.Folder):
		return RestoredOwn, restored.ID
	case l.ancestor(restored.Path) != "":
		return RestoredLineage, restored.ID
	}
	return RestoredElsewhere, restored.ID
}

// fromPin judges a run that restored checkpoint id from this pin.
func (l lineage) fromPin(id int64) verdict {
	v := verdict{publish: true}
	switch {
	case id < l.pinned.Checkpoint.ID:
		v = hold("this run restored checkpoint %d of the pin, which has moved on since", id)
	case !l.pinned.isCurrent(id):
		v = hold("this run restored checkpoint %d of the pin, which was rolled back since", id)
	}
	v.restored = &id
	return v
}

// fromReplica judges a run that restored from a replica. A checkpoint's number
// alone does not tell what it was: the replica must be a copy of what is pinned
// here now, in which no other job was pinned.
func (l lineage) fromReplica(app blobstore.URI, restored *Restored) (verdict, error) {
	if restored.ID < l.pinned.Checkpoint.ID {
		return hold("this run restored checkpoint %d from the replica %s, which is older than the pin", restored.ID, app), nil
	}
	same, err := l.replicaHas(app)
	switch {
	case err != nil:
		return verdict{}, err
	case !same:
		return hold("this run restored checkpoint %d from the replica %s, which is not a copy of what is pinned here", restored.ID, app), nil
	}
	return l.fromPin(restored.ID), nil
}

// replicaAt is the replica that a restore path is.
func (l lineage) replicaAt(path blobstore.URI) (blobstore.URI, bool) {
	for _, app := range l.replicas {
		if LayoutOf(app).holds(path) {
			return app, true
		}
	}
	return blobstore.URI{}, false
}

func (l lineage) isReplica(path blobstore.URI) bool {
	_, ok := l.replicaAt(path)
	return ok
}

// replaced is the verdict on a run whose pin a later run of the lineage restored.
func (l lineage) replaced() verdict {
	v := hold("this run was replaced: the pin has gone on with, or back to, job %s", l.pinned.Run.JobID)
	v.replaced = true
	return v
}

// cameBack reports whether a run has the constant job id of one that was replaced,
// and goes on from there: its JobManager has recovered. Where jobs take turns, as
// blue and green do, it is a new one that restored what its predecessor wrote.
func (l lineage) cameBack(run Run, restored *Restored) bool {
	other := l.pinned.Run
	if run.JobID == other.JobID || !slices.ContainsFunc(l.pinned.Previous, func(p Run) bool { return p.JobID == run.JobID }) {
		return false
	}
	return restored == nil || other.Folder == run.Folder || other.wrote(restored.Path) == ""
}

var savepointName = regexp.MustCompile(`^savepoint-([0-9a-f]{6})-`)

// anonymous is how the id of every job in application mode with high
// availability begins: it is fixed, and names no job.
const anonymous = "000000"

// ancestor says which run of the lineage wrote the checkpoint or savepoint, ""
// if none did. A savepoint is known by the first six digits of the job id in
// its name, since it may be written anywhere.
func (l lineage) ancestor(path blobstore.URI) string {
	for _, r := range append([]Run{l.pinned.Run}, l.pinned.Previous...) {
		if slices.ContainsFunc(l.pinned.Held, func(h Run) bool { return h.JobID == r.JobID }) {
			continue // a constant job id: a run that started empty writes there too
		}
		if from := r.wrote(path); from != "" {
			return from
		}
	}
	return ""
}

// wrote says what of the run a checkpoint or savepoint is, "" if nothing tells
// that.
func (r Run) wrote(path blobstore.URI) string {
	if r.Folder != "" && within(path, r.Folder) {
		return "job " + r.JobID
	}
	if m := savepointName.FindStringSubmatch(path.Base()); m != nil && len(r.JobID) >= 6 && m[1] == r.JobID[:6] && m[1] != anonymous {
		return "a savepoint of job " + r.JobID
	}
	return ""
}

// holds reports whether a restore path is this pin: its folder, its metadata
// file, or those of a generation.
func (l Layout) holds(u blobstore.URI) bool {
	return u.Same(l.Root) || u.Same(l.Metadata) || u.Within(l.Generations)
}

// isSibling reports whether a restore path is the pin of another job of the
// session cluster.
func (l lineage) isSibling(path blobstore.URI) bool {
	if l.siblings.IsZero() || l.layout.holds(path) {
		return false
	}
	rel, below := path.Rel(l.siblings)
	parts := strings.Split(rel, "/")
	return below && len(parts) > 1 && parts[1] == l.layout.Root.Base()
}

func within(u blobstore.URI, folder string) bool {
	f, err := blobstore.Parse(folder)
	return err == nil && u.Within(f)
}
