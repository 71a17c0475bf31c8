package checkpoint

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint/metadata"
)

// group is what is proved together: checkpoints that lie in one folder and are
// likely to name the same files.
type group struct {
	candidates []Found

	pin       blobstore.URI // last-state, when these are its generations
	published bool          // something stands at its constant path
}

const (
	// firstRound is how many checkpoints of a group are proved with the first
	// listing of the folders of state files: few, so that something is printed soon.
	// Each round is twice as long, so that a folder with the files of a thousand
	// checkpoints is listed seven times.
	firstRound = 8

	// roundFiles ends a round early, so that memory is bounded.
	roundFiles = 32_768

	// reading is how many metadata files of a group are read at once, unless they
	// are large.
	reading = 4
	large   = 1 << 20
)

// prover proves one group.
type prover struct {
	*lister
	*group
	out chan<- listed

	constant string // digest of what stands at the constant path
	matched  bool   // it is one of the generations
}

// run sends what it found of each candidate, in their order.
func (p *prover) run(ctx context.Context) {
	if p.published {
		p.constant = p.digest(ctx, p.pin.Join(MetadataName))
	}
	length := firstRound
	for rest := p.candidates; len(rest) > 0 && ctx.Err() == nil; length *= 2 {
		rest = rest[p.round(ctx, rest[:min(length, len(rest))]):]
	}
	if !p.pin.IsZero() && !p.matched && p.opts.Job == "" {
		p.round(ctx, []Found{{URI: p.pin, Published: true}})
	}
}

// digest is that of a file, "" when it cannot be read: then no generation is
// like it, and looking at it by itself tells why.
func (p *prover) digest(ctx context.Context, u blobstore.URI) string {
	r, _, err := p.store.Open(ctx, p.opts.Relocations.Apply(u))
	if err != nil {
		return ""
	}
	defer r.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, r); err != nil {
		return ""
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// proof is one candidate and the files it needs.
type proof struct {
	Found
	metadata string // the file
	needs    []need
}

// need is a file, by its number in a census, and the size it must have.
type need struct {
	file int
	extent
}

// round proves candidates until enough files are to be looked for, and returns
// how many it took.
func (p *prover) round(ctx context.Context, candidates []Found) (taken int) {
	var files census
	var proofs []*proof
	atOnce := 1 // the first one shows how large they are
	for taken < len(candidates) && len(files.files) < roundFiles {
		next := candidates[taken:min(taken+atOnce, len(candidates))]
		atOnce = reading
		for i, s := range p.read(ctx, next) {
			x := &proof{Found: next[i]}
			if s != nil {
				x.Err = x.note(s, &files)
			}
			if s != nil && s.Object.Size > large {
				atOnce = 1
			}
			proofs = append(proofs, x)
		}
		taken += len(next)
	}
	_ = files.take(ctx, p.store) // each folder has its own error
	for _, x := range proofs {
		x.Kind = cmp.Or(x.Kind, KindCheckpoint)
		if x.Err == nil {
			x.Err = x.judge(&files)
		}
		if ctx.Err() != nil {
			return taken
		}
		if !p.listed(x.Found) || p.gone(ctx, x.Found) || p.scattered(ctx, x.Found) {
			continue
		}
		select {
		case p.out <- listed{Found: x.Found}:
		case <-ctx.Done():
			return taken
		}
	}
	return taken
}

// read loads candidates, all at once, and fills in what tells about them beside
// their metadata. What cannot be loaded is nil and has its Err.
func (p *prover) read(ctx context.Context, candidates []Found) []*Snapshot {
	snapshots := make([]*Snapshot, len(candidates))
	var g errgroup.Group
	for i := range candidates {
		f := &candidates[i]
		g.Go(func() error {
			snapshots[i], f.Err = load(ctx, p.store, f.URI.Join(MetadataName), p.opts.Relocations)
			if errors.Is(f.Err, blobstore.ErrNotExist) {
				f.Err = p.absent(f)
			}
			return nil
		})
		if f.Kind == KindGeneration {
			g.Go(func() error { p.describe(ctx, f); return nil })
		}
	}
	_ = g.Wait()
	for i, s := range snapshots {
		if s != nil && p.constant != "" && digestOf(s.Bytes()) == p.constant {
			candidates[i].Published, p.matched = true, true
		}
	}
	return snapshots
}

// absent is why there is no metadata file.
func (p *prover) absent(f *Found) error {
	if f.URI.Same(p.pin) {
		u := f.URI.Join(MetadataName).String()
		return &DamagedError{URI: u, Missing: []string{u}}
	}
	return ErrIncomplete
}

// describe reads the manifest of a generation. One that is missing or broken
// keeps nobody from restoring.
func (p *prover) describe(ctx context.Context, f *Found) {
	r, ok, err := readManifest(ctx, p.store, p.opts.Relocations.Apply(f.URI))
	if err == nil && ok {
		f.JobID, f.JobName, f.Triggered = r.Run.JobID, r.Run.JobName, r.Checkpoint.Triggered
	}
}

// note fills in what the metadata says, and asks for the files it names.
func (x *proof) note(s *Snapshot, files *census) error {
	x.metadata = s.URI.String()
	x.FormatVersion, x.CheckpointID, x.Modified = s.Version, s.CheckpointID, s.Object.ModTime
	if x.Kind == "" {
		x.Kind = s.Kind()
	}
	for h := range s.Handles() {
		if h.Kind == metadata.Inline {
			x.Bytes += h.Size()
		}
	}
	type fileRange struct {
		file         int
		offset, size int64
		open         bool
	}
	ranges := make([]fileRange, 0, s.NumHandles()) // sorted, since maps of so many take much more memory
	for r, err := range s.references() {
		if err != nil {
			return err
		}
		ranges = append(ranges, fileRange{files.ask(r.Location), r.Offset, r.Size, r.open})
	}
	slices.SortFunc(ranges, func(a, b fileRange) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.offset, b.offset), cmp.Compare(a.size, b.size))
	})
	for i, r := range ranges {
		if i == 0 || r.file != ranges[i-1].file {
			x.needs = append(x.needs, need{file: r.file})
		}
		x.needs[len(x.needs)-1].add(r.offset, r.size, r.open)
		if i == 0 || r.file != ranges[i-1].file || r.offset != ranges[i-1].offset || r.size != ranges[i-1].size {
			x.Bytes += max(r.size, 0)
		}
	}
	x.Files = len(x.needs)
	return nil
}

// judge compares what is needed with what is there.
func (x *proof) judge(files *census) error {
	missing, wrong := 0, 0
	for _, n := range x.needs {
		found := files.files[n.file]
		switch {
		case found.folder.err != nil:
			return found.folder.err
		case !found.exists:
			missing++
		case !n.fits(found.size):
			wrong++
		}
	}
	var parts []string
	if missing > 0 {
		parts = append(parts, fmt.Sprintf("%d of %s missing", missing, plural(len(x.needs), "file")))
	}
	if wrong > 0 {
		parts = append(parts, fmt.Sprintf("%d of %s of the wrong size", wrong, plural(len(x.needs), "file")))
	}
	if len(parts) == 0 {
		return nil
	}
	return &DamagedError{URI: x.metadata, Err: errors.New(strings.Join(parts, ", "))}
}

// listed reports whether this was asked for, now that its job is known.
func (p *prover) listed(f Found) bool {
	return p.opts.wants(f.JobID) || f.JobName != "" && f.JobName == p.opts.Job
}

// entropyName is what Flink puts in the place of s3.entropy.key in the paths of
// state files, and leaves out in that of _metadata (EntropyInjector,
// StringUtils.generateRandomAlphanumericString, 1.13.6, 1.20.5, 2.3.0).
var entropyName = regexp.MustCompile(`^[0-9A-Za-z]+$`)

// scattered reports whether a folder without a metadata file holds files of a
// checkpoint whose metadata file stands at the same path without one of the folders
// below the root.
func (p *prover) scattered(ctx context.Context, f Found) bool {
	if !errors.Is(f.Err, ErrIncomplete) || f.Kind != KindCheckpoint {
		return false
	}
	path, below := f.URI.Rel(p.root)
	if !below {
		return false
	}
	folders := strings.Split(path, "/")
	for i, name := range folders[:len(folders)-1] {
		if !entropyName.MatchString(name) || jobIDName.MatchString(name) {
			continue
		}
		u := p.root.Join(slices.Delete(slices.Clone(folders), i, i+1)...)
		if _, known := p.entire.Load(u.String()); known {
			return true
		}
		if _, err := p.store.Stat(ctx, p.opts.Relocations.Apply(u.Join(MetadataName))); err == nil {
			p.entire.Store(u.String(), true)
			return true
		}
	}
	return false
}

// gone reports whether what does not restore was deleted since it was read: by
// Flink, which subsumes a checkpoint in any order of its files, or by gc.
func (p *prover) gone(ctx context.Context, f Found) bool {
	if damaged := (*DamagedError)(nil); !errors.As(f.Err, &damaged) || f.URI.Same(p.pin) {
		return false
	}
	_, err := p.store.Stat(ctx, p.opts.Relocations.Apply(f.URI.Join(MetadataName)))
	return errors.Is(err, blobstore.ErrNotExist)
}
