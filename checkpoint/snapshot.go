package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"strings"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint/metadata"
)

// MetadataName is the name Flink gives the metadata file of every checkpoint
// and savepoint (AbstractFsCheckpointStorageAccess.METADATA_FILE_NAME).
const MetadataName = "_metadata"

// maxMetadata bounds what is read into memory. Flink itself reads the file into
// one heap; real ones of 900,000 handles have 100 MB.
const maxMetadata = 1 << 30

// Snapshot is a checkpoint, savepoint or pin whose metadata file was read.
type Snapshot struct {
	*metadata.File
	URI    blobstore.URI // the metadata file, as named
	Object blobstore.Object

	relocations Relocations
}

// Relocation says that what checkpoints name below From is found below To: the
// volume is mounted elsewhere, or the files were moved.
type Relocation struct{ From, To blobstore.URI }

// ParseRelocation reads FROM=TO, two URIs. It splits at the "=" that stands
// before a scheme, because paths may hold "=" too.
func ParseRelocation(text string) (Relocation, error) {
	for i := range len(text) {
		if text[i] != '=' {
			continue
		}
		to, err := blobstore.Parse(text[i+1:])
		if err != nil || to.Scheme() == "" {
			continue
		}
		from, err := blobstore.Parse(text[:i])
		return Relocation{from, to}, err
	}
	return Relocation{}, fmt.Errorf("%w: %q is not FROM=TO, two URIs such as file:/state=file:///mnt/state", blobstore.ErrURI, text)
}

// UnmarshalText is [ParseRelocation].
func (r *Relocation) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRelocation(string(text))
	return err
}

// Relocations are tried in order; the first whose From holds the URI wins.
type Relocations []Relocation

// Apply says where u is found. Folders are compared by identity, not by
// spelling.
func (rs Relocations) Apply(u blobstore.URI) blobstore.URI {
	for _, r := range rs {
		if rel, ok := u.Rel(r.From); ok {
			return r.To.Join(rel)
		}
	}
	return u
}

// LoadOptions change where a checkpoint is looked for.
type LoadOptions struct {
	Relocations Relocations
}

// Load reads and parses the metadata file of a checkpoint, savepoint or pin. u
// is its folder or the file itself. A file that does not parse is a
// *[DamagedError].
func Load(ctx context.Context, store blobstore.Store, u blobstore.URI, opts LoadOptions) (*Snapshot, error) {
	if u.Base() == MetadataName {
		return load(ctx, store, u, opts.Relocations)
	}
	s, err := load(ctx, store, u.Join(MetadataName), opts.Relocations)
	if !errors.Is(err, blobstore.ErrNotExist) {
		return s, err
	}
	file, fileErr := load(ctx, store, u, opts.Relocations) // Flink takes a metadata file under any name
	if errors.Is(fileErr, blobstore.ErrNotExist) {
		return nil, err
	}
	return file, fileErr
}

func load(ctx context.Context, store blobstore.Store, u blobstore.URI, rs Relocations) (*Snapshot, error) {
	data, obj, err := blobstore.ReadAll(ctx, store, rs.Apply(u), maxMetadata)
	if err != nil {
		return nil, err
	}
	return parse(u, obj, data, rs)
}

// loadAt reads a metadata file of the pin, at is where it is found: what has
// been relocated is not relocated again.
func loadAt(ctx context.Context, store blobstore.Store, at blobstore.URI, rs Relocations) (*Snapshot, error) {
	data, obj, err := blobstore.ReadAll(ctx, store, at, maxMetadata)
	if err != nil {
		return nil, err
	}
	return parse(at, obj, data, rs)
}

func parse(u blobstore.URI, obj blobstore.Object, data []byte, rs Relocations) (*Snapshot, error) {
	f, err := metadata.Parse(data)
	if err != nil {
		return nil, &DamagedError{URI: u.String(), Err: err}
	}
	return &Snapshot{File: f, URI: u, Object: obj, relocations: rs}, nil
}

// Reference is a byte range of a file that a checkpoint needs.
type Reference struct {
	URI      blobstore.URI // as named, relative names resolved against the metadata file's folder
	Location blobstore.URI // where to look for it, after relocation
	Kind     metadata.Kind // AbsoluteFile, RelativeFile or Segment
	Offset   int64         // of the range in the file
	Size     int64         // of the range; -1 when the checkpoint does not say
	Shared   bool          // also used by other checkpoints of the job

	open bool // the file may hold more than this handle names
}

// References returns every byte range the checkpoint depends on, in the order
// of the file and once for each handle that names it: several handles may name
// one range. A path that cannot be read is a *[DamagedError].
func (s *Snapshot) References() ([]Reference, error) {
	refs := make([]Reference, 0, s.NumHandles())
	for r, err := range s.references() {
		if err != nil {
			return nil, err
		}
		refs = append(refs, r)
	}
	return refs, nil
}

// references is [Snapshot.References] one at a time. After an error it ends.
func (s *Snapshot) references() iter.Seq2[Reference, error] {
	return func(yield func(Reference, error) bool) {
		for h := range s.Handles() {
			switch h.Kind {
			case metadata.AbsoluteFile, metadata.RelativeFile, metadata.Segment:
			default:
				continue
			}
			u, err := s.resolve(h)
			if err != nil {
				yield(Reference{}, &DamagedError{URI: s.URI.String(), Err: fmt.Errorf("state handle at offset %d: %w", h.Offset, err)})
				return
			}
			r := Reference{
				URI:      u,
				Location: s.relocations.Apply(u),
				Kind:     h.Kind,
				Offset:   h.Start(),
				Size:     h.Size(),
				Shared:   h.Shared(),
				open:     h.Kind == metadata.Segment || h.Role == metadata.ChangelogDelta,
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

// resolve names the file of a handle the way Flink's Path does: relative names
// against the folder of the metadata file.
func (s *Snapshot) resolve(h metadata.Handle) (blobstore.URI, error) {
	text, err := h.Path()
	if err != nil {
		return blobstore.URI{}, err
	}
	if h.Kind != metadata.RelativeFile {
		return blobstore.Parse(text)
	}
	if strings.Contains(text, ":") {
		// Measured on 1.15.4 and 2.3.0: Path(parent, child) then fails to load.
		return blobstore.URI{}, fmt.Errorf("relative name %q holds a colon, which Flink does not resolve", text)
	}
	dir := s.URI.Dir()
	for strings.HasPrefix(text, "../") {
		text, dir = text[3:], dir.Dir()
	}
	return dir.Join(path.Clean("/" + text)), nil
}
