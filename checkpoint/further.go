package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chkpin/chkpin/blobstore"
)

// looksFurther reports whether more than the pin was asked for.
func (o ResolveOptions) looksFurther() bool { return len(o.Checkpoints)+len(o.Savepoints) > 0 }

// lookFurther looks below the folders of the options for state that is newer
// than the pin, and takes the newest that proves. noPin is why there is no pin,
// nil when there is one; it stands when there is nothing else either.
func (f *finder) lookFurther(ctx context.Context, noPin error) error {
	hold, _, err := standingHold(ctx, f.store, f.layout)
	if err != nil {
		return err
	}
	if hold != nil {
		f.warn("%s is there: while the pin is on hold, nothing else counts", f.named.Hold)
		return noPin
	}
	s := search{finder: f, any: f.opts.AnyLineage, floor: -1}
	if noPin == nil {
		s.floor, s.pinned = f.result.CheckpointID, f.result.metadata.Object.ModTime
	}
	if !s.any {
		if err := s.knowAuthor(ctx); err != nil {
			return err
		}
	}
	for _, root := range f.opts.Checkpoints {
		if err := s.checkpointsBelow(ctx, root); err != nil {
			return err
		}
	}
	for _, root := range f.opts.Savepoints {
		if err := s.savepointsBelow(ctx, root); err != nil {
			return err
		}
	}
	if s.constant && len(s.found) > 0 {
		f.warn("job id %s names several runs, which write to one folder: numbers there are not in the order of time", s.author.JobID)
	}
	taken, err := s.take(ctx)
	if err != nil || !taken {
		return cmp.Or(err, noPin)
	}
	if !errors.Is(noPin, ErrNoPin) {
		f.lost = cmp.Or(f.lost, noPin)
	}
	return nil
}

// search is one look at what lies outside of the pin.
type search struct {
	*finder
	any    bool      // whatever job wrote it
	floor  int64     // only checkpoints after this one count
	pinned time.Time // when the store took in what is pinned; zero when nothing is

	// author is the run whose checkpoints continue the pinned history; its JobID
	// is "" when no history is known.
	author     Run
	constant   bool // its job id is that of other runs, too
	held       bool // one of those was held
	rolledBack bool // what it wrote after the pin was rolled back

	found []outside
}

// outside is a checkpoint or savepoint that is not part of the pin.
type outside struct {
	metadata blobstore.Object
	folder   blobstore.URI // as the caller spells it
	id       int64
	jobID    string // as far as the place or the name tells it
}

func (o outside) isSavepoint() bool { return savepointName.MatchString(o.folder.Base()) }

// knowAuthor finds out whose checkpoints count: those of the run that restored
// from the pin and has nothing pinned yet, or those of the pinned run. All others
// were replaced.
func (s *search) knowAuthor(ctx context.Context) error {
	rec := s.record
	names, err := generationNames(ctx, s.store, s.layout)
	if err != nil {
		return err
	}
	for _, name := range names { // newest first
		if rec.Generation != "" && sequenceOf(name) <= sequenceOf(rec.Generation) {
			break
		}
		r, ok, err := readManifest(ctx, s.store, s.layout.generation(name))
		switch {
		case err != nil:
			return err
		case ok && rec.Generation == "":
			rec = r // pin.json was lost
			s.result.Lineage = rec.lineage()
		case ok && r.Run.is(rec.Run) && (sequenceOf(name) <= rec.Highest || !s.told):
			s.rolledBack = true // from this generation; one beyond was never published
		}
	}
	s.author = rec.Run
	if seen := rec.waiting(); seen != nil && rec.isCurrent(seen.RestoredID) {
		s.author, s.rolledBack = seen.Run, false
	}
	same := func(r Run) bool { return r.JobID == s.author.JobID && !r.is(s.author) }
	s.held = slices.ContainsFunc(rec.Held, same)
	s.constant = s.held || same(rec.Run) || slices.ContainsFunc(rec.Previous, same)
	return nil
}

var (
	jobFolderName        = regexp.MustCompile(`^[0-9a-f]{32}$`)
	checkpointFolderName = regexp.MustCompile(`^chk-\d+$`)
)

// checkpointsBelow looks into a folder of job folders, or a job folder.
func (s *search) checkpointsBelow(ctx context.Context, root blobstore.URI) error {
	var jobs, others []string
	loose, empty := false, true
	for o, err := range s.store.List(ctx, s.opts.Relocations.Apply(root), blobstore.ListOptions{Shallow: true}) {
		if err != nil {
			return err
		}
		empty = false
		switch name := o.URI.Base(); {
		case !o.Dir:
		case checkpointFolderName.MatchString(name):
			loose = true
		case !jobFolderName.MatchString(name):
		case s.any || name == s.author.JobID:
			jobs = append(jobs, name)
		default:
			others = append(others, name)
		}
	}
	s.tellNothing(root, empty, "job folder or checkpoint", loose || len(jobs)+len(others) > 0)
	s.refuseOthers(root, "job folder", others)
	if loose {
		if err := s.looseCheckpoints(ctx, root); err != nil {
			return err
		}
	}
	for _, job := range jobs {
		if err := s.checkpointsOf(ctx, root.Join(job), job); err != nil {
			return err
		}
	}
	return nil
}

// looseCheckpoints are those directly in a folder that was named: a job folder,
// or what execution.checkpointing.create-subdir=false makes.
func (s *search) looseCheckpoints(ctx context.Context, root blobstore.URI) error {
	job := root.Base()
	if !jobFolderName.MatchString(job) {
		job = ""
	}
	switch {
	case s.any || job != "" && job == s.author.JobID:
		return s.checkpointsOf(ctx, root, job)
	case job != "":
		s.refuseOthers(root.Dir(), "job folder", []string{job})
	default:
		s.refuse(true, root, "the checkpoints in it have no job folder that would say whose they are")
	}
	return nil
}

func (s *search) checkpointsOf(ctx context.Context, folder blobstore.URI, jobID string) error {
	ids, err := checkpointIDs(ctx, s.store, s.opts.Relocations.Apply(folder))
	if err != nil {
		return err
	}
	for _, id := range ids {
		u := folder.Join("chk-" + strconv.FormatInt(id, 10))
		if err := s.consider(ctx, outside{folder: u, id: id, jobID: jobID}); err != nil {
			return err
		}
	}
	return nil
}

// savepointsBelow looks into a folder of savepoints, or at a single one, as
// "flink stop" prints it. They carry the first six digits of the job id in their
// names.
func (s *search) savepointsBelow(ctx context.Context, root blobstore.URI) error {
	var others []string
	consider := func(folder blobstore.URI) error {
		m := savepointName.FindStringSubmatch(folder.Base())
		switch {
		case s.any:
			return s.consider(ctx, outside{folder: folder})
		case m[1] == anonymous || !strings.HasPrefix(s.author.JobID, m[1]):
			others = append(others, folder.Base())
			return nil
		}
		return s.considerSavepoint(ctx, folder)
	}
	single := savepointName.MatchString(root.Base())
	empty, some := true, single
	for o, err := range s.store.List(ctx, s.opts.Relocations.Apply(root), blobstore.ListOptions{Shallow: true}) {
		if err != nil {
			return err
		}
		empty = false
		if single {
			break
		}
		if name := o.URI.Base(); o.Dir && savepointName.MatchString(name) {
			some = true
			if err := consider(root.Join(name)); err != nil {
				return err
			}
		}
	}
	s.tellNothing(root, empty, "savepoint", some)
	if single && !empty {
		if err := consider(root); err != nil {
			return err
		}
	}
	s.refuseOthers(root, "savepoint", others)
	return nil
}

// tellNothing keeps a mistyped folder from meaning in silence that there is
// nothing newer than the pin.
func (s *search) tellNothing(root blobstore.URI, empty bool, what string, some bool) {
	switch {
	case empty:
		s.warn("nothing is at %s: is it the right folder, and the volume mounted?", root)
	case !some:
		s.warn("no %s is directly in %s: is it the right folder?", what, root)
	}
}

func (s *search) refuseOthers(root blobstore.URI, what string, others []string) {
	switch {
	case len(others) == 0:
	case s.author.JobID == "":
		s.refuse(true, root, "nothing is known of the lineage, so %s cannot be told to be of it: %s", plural(len(others), what), few(others))
	default:
		s.refuse(false, root, "%s not of job %s, which the pinned history goes on with: %s", plural(len(others), what), s.author.JobID, few(others))
	}
}

// considerSavepoint reads the number of a savepoint of the author, which its name
// does not tell.
func (s *search) considerSavepoint(ctx context.Context, folder blobstore.URI) error {
	snap, err := s.load(ctx, folder)
	if snap == nil {
		return err
	}
	return s.consider(ctx, outside{folder: folder, id: snap.CheckpointID, jobID: s.author.JobID})
}

// load reads the metadata file of a folder. One that cannot be restored from is
// refused, and nil.
func (s *search) load(ctx context.Context, folder blobstore.URI) (*Snapshot, error) {
	snap, err := Load(ctx, s.store, folder.Join(MetadataName), LoadOptions{s.opts.Relocations})
	switch {
	case errors.Is(err, blobstore.ErrNotExist):
		s.refuse(false, folder, "not complete: it has no %s", MetadataName)
		return nil, nil
	case as[*DamagedError](err):
		s.refuse(true, folder, "%v", err)
		return nil, nil
	}
	return snap, err
}

// consider keeps a checkpoint or savepoint if it would be newer than the pin.
func (s *search) consider(ctx context.Context, o outside) error {
	obj, err := s.store.Stat(ctx, s.opts.Relocations.Apply(o.folder.Join(MetadataName)))
	if errors.Is(err, blobstore.ErrNotExist) {
		s.refuse(false, o.folder, "not complete: it has no %s", MetadataName)
		return nil
	}
	if err != nil {
		return err
	}
	o.metadata = obj
	earlier := !obj.ModTime.After(s.pinned)
	switch {
	case s.any && earlier:
		s.refuse(false, o.folder, "written before the pin")
	case s.any:
		s.found = append(s.found, o)
	case o.id <= s.floor:
		s.refuse(false, o.folder, "not newer than the pin, which is checkpoint %d", s.floor)
	case s.held:
		s.refuse(true, o.folder, "job id %s is also that of a run that was held", o.jobID)
	case s.rolledBack:
		s.refuse(true, o.folder, "the pin was rolled back from it")
	case s.constant && earlier:
		s.refuse(true, o.folder, "written before the pin: it is of an earlier run with job id %s", o.jobID)
	default:
		s.found = append(s.found, o)
	}
	return nil
}

// take chooses the newest of what was found that proves. Within a lineage
// numbers decide; of jobs that have nothing in common, and of runs that share a
// job id, what the store took in last.
func (s *search) take(ctx context.Context) (taken bool, err error) {
	slices.SortStableFunc(s.found, func(a, b outside) int {
		byTime := b.metadata.ModTime.Compare(a.metadata.ModTime)
		switch {
		case s.any && byTime == 0 && a.isSavepoint() != b.isSavepoint():
			// Object stores count in seconds; the savepoint a job is stopped with comes last.
			if a.isSavepoint() {
				return -1
			}
			return 1
		case s.any:
			return cmp.Or(byTime, cmp.Compare(b.id, a.id))
		case s.constant:
			return byTime
		}
		return cmp.Or(cmp.Compare(b.id, a.id), byTime)
	})
	for _, o := range s.found {
		snap, err := s.load(ctx, o.folder)
		if err != nil {
			return false, err
		}
		if snap == nil {
			continue
		}
		report, err := Verify(ctx, s.store, snap)
		if err == nil {
			err = report.Err(snap.URI)
		}
		switch {
		case as[*DamagedError](err):
			s.refuse(true, o.folder, "%v", err)
			continue
		case err != nil:
			return false, err
		}
		r := &s.result
		r.Path, r.Generation, r.metadata, r.outside = snap.URI, "", snap, true
		r.JobID, r.CheckpointID, r.Triggered = o.jobID, snap.CheckpointID, time.Time{}
		return true, nil
	}
	return false, nil
}
