package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/chkpin/chkpin/blobstore"
)

// ListOptions change what [List] looks for, and where.
type ListOptions struct {
	// Job lists only what belongs to one job: its id or the first digits of it, in
	// any case, or for generations the name of the job that was pinned. What does not tell its
	// job is left out. Folders of other jobs are not looked into.
	Job string

	Relocations Relocations
}

// Kinds of what [List] finds and [Copy] copies.
const (
	KindCheckpoint = "checkpoint"
	KindSavepoint  = "savepoint"
	KindGeneration = "generation" // of a pin; copied, it is a checkpoint or savepoint again
	KindPin        = "pin"        // an application's, with all generations; only of copies
)

// Found is a checkpoint, a savepoint or a generation of a pin.
type Found struct {
	URI  blobstore.URI // its folder
	Kind string        // KindCheckpoint, KindSavepoint or KindGeneration

	// JobID is the name of the folder that Flink keeps the job's checkpoints in,
	// or what pin.json says. Of a savepoint only the first 6 digits are known, from
	// the name of its folder (AbstractFsCheckpointStorageAccess, 1.11 to 2.3).
	JobID   string
	JobName string // of generations only

	CheckpointID  int64
	FormatVersion int32     // 0 when there is no metadata file that can be read
	Triggered     time.Time // of generations only: metadata files do not say it
	Modified      time.Time // of the metadata file, by the store's clock: when it was complete
	Files         int       // distinct state files it depends on
	Bytes         int64     // of state, inline and in files, each range once

	// Published: it is what stands at the constant path of its pin.
	Published bool

	// Err is why it does not restore, or is not known to; nil means that every byte
	// is there. [ErrIncomplete], a *[DamagedError], or an error of the store.
	Err error
}

// Restorable reports whether every byte is there.
func (f Found) Restorable() bool { return f.Err == nil }

// Why is Err in few words, "" when it restores.
func (f Found) Why() string {
	if damaged := (*DamagedError)(nil); errors.As(f.Err, &damaged) {
		return damaged.Reason()
	}
	if f.Err != nil {
		return f.Err.Error()
	}
	return ""
}

// ErrIncomplete: the folder of a checkpoint has no metadata file. Flink writes
// that last.
var ErrIncomplete = errors.New("no _metadata: in progress, failed, or only files of a checkpoint with entropy in its path")

// List finds every checkpoint, savepoint and generation below a folder, and
// proves each as [Verify] does. The folder may be a bucket, the checkpoints of
// all jobs, the folder of one, an application's, or a single checkpoint.
//
// It yields what it has found while it looks further. It goes down by listings
// of single folders and not into those of state files; the folders that
// checkpoints name files in are listed once for many checkpoints. It keeps in
// memory what some thousand state files need, however many there are; only a
// single checkpoint with more takes more.
//
// What is wrong with one checkpoint is in its Err. An error that is yielded is
// about the folder Found.URI, which could not be listed; the sequence goes on
// with the next one. A root below which there is nothing at all is
// [blobstore.ErrNotExist]: object stores do not tell an empty folder from none.
//
// Numbers of one job come highest first, a thousand at a time; all else is in
// the order of the store's listing. A checkpoint that its owner deletes meanwhile
// is left out, and so is a folder that holds only files of one with entropy in its
// path (s3.entropy.key): that is listed where its _metadata is.
func List(ctx context.Context, store blobstore.Store, root blobstore.URI, opts ListOptions) iter.Seq2[Found, error] {
	return func(yield func(Found, error) bool) {
		inner, cancel := context.WithCancel(ctx)
		l := &lister{store: store, opts: opts, root: root, queue: make(chan (<-chan listed), groupsAhead)}
		var walking sync.WaitGroup
		walking.Go(func() {
			defer close(l.queue)
			l.start(inner, root)
		})
		defer l.proving.Wait()
		defer walking.Wait()
		defer cancel()
		for group := range l.queue {
			for x := range group {
				if !yield(x.Found, x.err) {
					return
				}
			}
		}
		switch {
		case ctx.Err() != nil:
			yield(Found{}, context.Cause(ctx))
		case !l.seen:
			yield(Found{URI: root}, &blobstore.Error{Op: "list", URI: root, Err: blobstore.ErrNotExist})
		}
	}
}

const (
	// groupsAhead is how many folders with checkpoints are proved while the one
	// before them is printed.
	groupsAhead = 8

	// groupSize bounds what is gathered of one folder before it is proved: what a
	// page of a listing holds.
	groupSize = 1000

	// deepest is how many folders below the root are gone into. On a volume, a link
	// to a folder above goes round.
	deepest = 32
)

var errTooDeep = errors.New("this many folders below the root; look into it by itself")

// lister walks through folders, and hands what may be a checkpoint to provers.
type lister struct {
	store   blobstore.Store
	opts    ListOptions
	root    blobstore.URI
	entire  sync.Map             // URIs of checkpoints that folders with entropy belong to
	queue   chan (<-chan listed) // one for each group, in the order of the walk
	seen    bool                 // something lies below the root, or nobody knows
	proving sync.WaitGroup
}

// listed is what List yields.
type listed struct {
	Found
	err error
}

var (
	checkpointName = regexp.MustCompile(`^chk-(\d+)$`)
	jobIDName      = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// candidate tells by its name what a folder may be; false for other names, whose
// metadata tells the kind if they have any.
func candidate(u blobstore.URI) (Found, bool) {
	f := Found{URI: u}
	if m := checkpointName.FindStringSubmatch(u.Base()); m != nil {
		id, err := strconv.ParseInt(m[1], 10, 64)
		f.Kind, f.CheckpointID = KindCheckpoint, id
		if parent := u.Dir().Base(); jobIDName.MatchString(parent) {
			f.JobID = parent
		}
		return f, err == nil
	}
	if m := savepointName.FindStringSubmatch(u.Base()); m != nil {
		f.Kind, f.JobID = KindSavepoint, m[1]
		return f, true
	}
	if sequence, id := splitGeneration(u.Base()); sequence > 0 && u.Dir().Base() == "generations" {
		f.Kind, f.CheckpointID = KindGeneration, id
		return f, true
	}
	return f, false
}

// list lists one folder.
func (l *lister) list(ctx context.Context, dir blobstore.URI) iter.Seq2[blobstore.Object, error] {
	return func(yield func(blobstore.Object, error) bool) {
		for o, err := range l.store.List(ctx, l.opts.Relocations.Apply(dir), blobstore.ListOptions{Shallow: true}) {
			l.seen = true
			if err == nil {
				o.URI = dir.Join(o.URI.Base())
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

// start goes into a root of any kind.
func (l *lister) start(ctx context.Context, root blobstore.URI) {
	if root.Base() == MetadataName {
		root = root.Dir()
	}
	switch f, ok := candidate(root); {
	case ok:
		for _, err := range l.list(ctx, root) { // is anything there?
			if err != nil {
				l.fail(ctx, root, err)
				return
			}
			l.prove(ctx, &group{candidates: []Found{f}})
			return
		}
	case root.Base() == "generations" && root.Dir().Base() == lastState:
		l.walkPin(ctx, root.Dir())
	case root.Base() == lastState:
		l.walkPin(ctx, root)
	default:
		l.walk(ctx, root, 0)
	}
}

// walk goes through a folder, which lies so many below the root, and those below.
func (l *lister) walk(ctx context.Context, dir blobstore.URI, depth int) {
	if depth > deepest {
		l.fail(ctx, dir, &blobstore.Error{Op: "list", URI: dir, Err: errTooDeep})
		return
	}
	var found []Found
	prove := func() {
		if len(found) > 0 {
			l.prove(ctx, &group{candidates: found})
		}
		found = nil
	}
	defer prove()
	ofState := map[string]blobstore.URI{} // folders that would hold state files, in a folder of checkpoints
	checkpoints := jobIDName.MatchString(dir.Base())
	for o, err := range l.list(ctx, dir) {
		if err != nil {
			l.fail(ctx, dir, err)
			break
		}
		name := o.URI.Base()
		f, ok := candidate(o.URI)
		switch {
		case !o.Dir && name == MetadataName: // this folder is one, under a name of its own
			found = append(found, Found{URI: dir})
		case !o.Dir: // also markers such as chk-7_$folder$
		case ok:
			checkpoints = checkpoints || f.Kind == KindCheckpoint
			found = append(found, f)
		case name == lastState:
			l.walkPin(ctx, o.URI)
		case name == "shared" || name == "taskowned":
			ofState[name] = o.URI
		case l.opts.Job != "" && jobIDName.MatchString(name) && !l.opts.wants(name):
		default:
			l.walk(ctx, o.URI, depth+1)
		}
		if len(found) == groupSize {
			prove()
		}
	}
	// Flink makes both when a job starts (FsCheckpointStorageAccess, 1.13 to 2.3).
	if checkpoints || len(ofState) == 2 {
		return
	}
	for _, u := range ofState {
		l.walk(ctx, u, depth+1)
	}
}

// wants reports whether something of this job is to be listed. The id may be
// the first digits only, in any case.
func (o ListOptions) wants(jobID string) bool {
	id := strings.ToLower(o.Job)
	return id == "" || jobID != "" && (strings.HasPrefix(jobID, id) || strings.HasPrefix(id, jobID))
}

// walkPin lists the generations of a pin, newest first, and what stands at the
// constant path if that is none of them.
func (l *lister) walkPin(ctx context.Context, root blobstore.URI) {
	g := &group{pin: root}
	for o, err := range l.list(ctx, root) {
		if err != nil {
			l.fail(ctx, root, err)
			return
		}
		g.published = g.published || !o.Dir && o.URI.Base() == MetadataName
	}
	names, err := generationNames(ctx, l.store, LayoutOf(l.opts.Relocations.Apply(root.Dir())))
	if err != nil {
		l.fail(ctx, root, err)
		return
	}
	for _, name := range names {
		f, _ := candidate(root.Join("generations", name))
		g.candidates = append(g.candidates, f)
	}
	if g.published || len(names) > 0 {
		l.prove(ctx, g)
	}
}

// fail yields that a folder cannot be listed.
func (l *lister) fail(ctx context.Context, dir blobstore.URI, err error) {
	out := make(chan listed, 1)
	out <- listed{Found{URI: dir}, err}
	close(out)
	l.enqueue(ctx, out)
}

func (l *lister) enqueue(ctx context.Context, out <-chan listed) bool {
	select {
	case l.queue <- out:
		return true
	case <-ctx.Done():
		return false
	}
}

// prove has a group proved while the walk goes on.
func (l *lister) prove(ctx context.Context, g *group) {
	g.candidates = slices.DeleteFunc(g.candidates, func(f Found) bool { return f.Kind != KindGeneration && !l.opts.wants(f.JobID) })
	slices.SortStableFunc(g.candidates, func(a, b Found) int {
		if a.Kind == KindGeneration { // in the order of their own numbers
			return 0
		}
		return cmp.Compare(b.CheckpointID, a.CheckpointID)
	})
	out := make(chan listed)
	if l.enqueue(ctx, out) {
		p := &prover{lister: l, group: g, out: out}
		l.proving.Go(func() {
			defer close(out)
			p.run(ctx)
		})
	}
}
