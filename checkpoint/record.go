package checkpoint

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/chkpin/chkpin/blobstore"
)

// layoutVersion is written into every record; a higher one is refused, so that
// an old chkpin never meddles with what a newer one made.
const layoutVersion = 1

// Layout names what chkpin keeps below an application's folder. The names are a
// promise: Flink deployments hold [Layout.Metadata].
type Layout struct {
	App         blobstore.URI
	Root        blobstore.URI // last-state
	Metadata    blobstore.URI // last-state/_metadata: the constant path, the truth
	Record      blobstore.URI // last-state/pin.json: describes it
	Hold        blobstore.URI // last-state/hold.json
	Generations blobstore.URI // last-state/generations
	State       blobstore.URI // last-state/state
	Existed     blobstore.URI // chkpin.json: state existed here once
}

// LayoutOf names the parts of the pin of an application.
func LayoutOf(app blobstore.URI) Layout {
	root := app.Join("last-state")
	return Layout{
		App:         app,
		Root:        root,
		Metadata:    root.Join(MetadataName),
		Record:      root.Join("pin.json"),
		Hold:        root.Join("hold.json"),
		Generations: root.Join("generations"),
		State:       root.Join("state"),
		Existed:     app.Join("chkpin.json"),
	}
}

// spelledLike is the same layout with the scheme and endpoint of u.
func (l Layout) spelledLike(u blobstore.URI) Layout { return LayoutOf(l.App.SpelledLike(u)) }

func (l Layout) generation(name string) blobstore.URI { return l.Generations.Join(name) }

// stateName is where the bytes of a source file go, by the identity of the
// source alone: ticks find what earlier ticks copied, and listings of the
// folder split evenly by first digit.
func stateName(source blobstore.URI) string {
	return digestOf([]byte(source.Canonical()))[:40]
}

var generationName = regexp.MustCompile(`^(\d{8,})-chk-(\d+)$`)

func nameGeneration(sequence int64, checkpointID int64) string {
	return fmt.Sprintf("%08d-chk-%d", sequence, checkpointID)
}

// sequenceOf is the number of a generation, 0 for other names.
func sequenceOf(generation string) int64 {
	m := generationName.FindStringSubmatch(generation)
	if m == nil {
		return 0
	}
	n, _ := strconv.ParseInt(m[1], 10, 64)
	return n
}

// Run is one run of a job: what its JobManager calls it and where it writes.
// A job id alone does not name a run, since it can be constant; a start time
// alone neither, since it changes when a JobManager recovers.
type Run struct {
	JobID   string `json:"jobId"`
	JobName string `json:"jobName,omitempty"`
	Started int64  `json:"started"` // milliseconds since 1970, by the JobManager's clock

	// Folder is <checkpoints.dir>/<job id>, "" when no checkpoint told it yet.
	Folder string `json:"folder,omitempty"`
}

// StartTime is Started as a time, in UTC.
func (r Run) StartTime() string { return time.UnixMilli(r.Started).UTC().Format(time.RFC3339) }

func (r Run) is(s Run) bool { return r.JobID == s.JobID && r.Started == s.Started }

// Record is the content of pin.json, of the published pin or of a generation.
// It describes; what a pin names is in its metadata file only.
type Record struct {
	Layout     int              `json:"layout"`
	Generation string           `json:"generation"`
	Metadata   MetadataRecord   `json:"metadata"`
	Checkpoint CheckpointRecord `json:"checkpoint"`
	Run        Run              `json:"run"`

	// Previous are the runs this lineage had before Run, newest first.
	Previous []Run `json:"previous,omitempty"`

	// Seen is a run that restored from this pin and has nothing pinned yet.
	// Later failovers hide that it did.
	Seen *Seen `json:"seen,omitempty"`

	// Held are runs that were refused, newest first: a failover gives them a
	// checkpoint of their own to restore from, and hides that they started
	// empty.
	Held []Run `json:"held,omitempty"`

	Files       int   `json:"files"`       // state files the generation names
	Bytes       int64 `json:"bytes"`       // of the byte ranges in them
	Proved      int   `json:"proved"`      // files whose size was seen before publishing
	Generations int   `json:"generations"` // kept at that time; tells a tick when to collect garbage
}

// MetadataRecord tells one metadata file from another.
type MetadataRecord struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
	Tag    string `json:"tag,omitempty"` // the store's, of the published file
}

// CheckpointRecord describes the checkpoint that was pinned.
type CheckpointRecord struct {
	ID            int64     `json:"id"`
	Source        string    `json:"source"` // its folder
	Savepoint     bool      `json:"savepoint,omitempty"`
	Triggered     time.Time `json:"triggered,omitzero"` // by the JobManager's clock
	FormatVersion int32     `json:"formatVersion"`
}

// Seen is a run that restored from the pin.
type Seen struct {
	Run
	RestoredID int64 `json:"restoredId"` // the checkpoint it restored
}

// Hold is the content of hold.json: while it is there, nothing is published
// except from a run that restored the held checkpoint.
type Hold struct {
	Layout       int    `json:"layout"`
	Generation   string `json:"generation,omitempty"`
	CheckpointID int64  `json:"checkpointId,omitempty"`
	Reason       string `json:"reason,omitempty"`
}

// existed is the content of chkpin.json.
type existed struct {
	Layout int `json:"layout"`
}

// maxRecord bounds a record: small, so that reading one is one short request.
const maxRecord = 4096

// encode makes the JSON of a record, dropping the oldest runs of the lineage
// until it is small.
func (r Record) encode() []byte {
	for {
		data, err := json.MarshalIndent(r, "", " ")
		if err != nil {
			panic(err) // plain strings and numbers
		}
		if len(data) < maxRecord || len(r.Previous) == 0 {
			return append(data, '\n')
		}
		r.Previous = r.Previous[:len(r.Previous)-1]
	}
}

// maxHeld is how many refused runs a record remembers.
const maxHeld = 4

// withHeld remembers a refused run.
func (r Record) withHeld(run Run) Record {
	r.Held = append([]Run{run}, r.Held[:min(len(r.Held), maxHeld-1)]...)
	return r
}

// isHeld reports whether a run was refused before.
func (r Record) isHeld(run Run) bool {
	return slices.ContainsFunc(r.Held, run.is)
}

// succeeds adds what the record before it knew of the lineage to r, whose run
// is the one pinned now.
func (r Record) succeeds(before Record) Record {
	r.Previous = before.Previous
	if before.Generation != "" && !before.Run.is(r.Run) {
		r.Previous = append([]Run{before.Run}, before.Previous...)
	}
	if before.Run.is(r.Run) && r.Run.Folder == "" {
		r.Run.Folder = before.Run.Folder // a savepoint does not tell it
	}
	if before.Seen != nil && !before.Seen.is(r.Run) {
		r.Seen = before.Seen
	}
	r.Held = slices.DeleteFunc(slices.Clone(before.Held), func(h Run) bool { return h.JobID == r.Run.JobID })
	return r
}

// readJSON reads a small record; false means that there is none.
func readJSON(ctx context.Context, store blobstore.Store, u blobstore.URI, into any) (blobstore.Object, bool, error) {
	data, obj, err := blobstore.ReadAll(ctx, store, u, 1<<20)
	if errors.Is(err, blobstore.ErrNotExist) {
		return obj, false, nil
	}
	if err != nil {
		return obj, false, err
	}
	var layout struct {
		Layout int `json:"layout"`
	}
	if err := json.Unmarshal(data, &layout); err != nil {
		return obj, false, &DamagedError{URI: u.String(), Err: fmt.Errorf("not a record of chkpin: %w", err)}
	}
	if layout.Layout != layoutVersion {
		return obj, false, &DamagedError{URI: u.String(), Err: fmt.Errorf("layout %d, this chkpin knows %d", layout.Layout, layoutVersion)}
	}
	return obj, true, json.Unmarshal(data, into)
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func putBytes(ctx context.Context, store blobstore.Store, u blobstore.URI, data []byte, opts blobstore.PutOptions) (blobstore.Object, error) {
	opts.Size = int64(len(data))
	return store.Put(ctx, u, bytes.NewReader(data), opts)
}
