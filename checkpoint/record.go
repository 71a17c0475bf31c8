package checkpoint

import (
	"bytes"
	"cmp"
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

// lastState is the name of the folder of a pin, stateFolder that of its state
// files, of a pin as of a copy.
const (
	lastState   = "last-state"
	stateFolder = "state"
)

// recordName is the name of the record of the pin and of each generation.
const recordName = "pin.json"

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
	root := app.Join(lastState)
	return Layout{
		App:         app,
		Root:        root,
		Metadata:    root.Join(MetadataName),
		Record:      root.Join(recordName),
		Hold:        root.Join("hold.json"),
		Generations: root.Join("generations"),
		State:       root.Join(stateFolder),
		Existed:     app.Join("chkpin.json"),
	}
}

// spelledLike is the same layout with the scheme and endpoint of u.
func (l Layout) spelledLike(u blobstore.URI) Layout { return LayoutOf(l.App.SpelledLike(u)) }

func (l Layout) generation(name string) blobstore.URI { return l.Generations.Join(name) }

// merged is a folder that holds nothing; see [Snapshot.moved].
func (l Layout) merged(generation string) blobstore.URI {
	return l.generation(generation).Join("merged")
}

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

// splitGeneration is the reverse of nameGeneration; 0 for other names.
func splitGeneration(name string) (sequence, checkpointID int64) {
	m := generationName.FindStringSubmatch(name)
	if m == nil {
		return 0, 0
	}
	sequence, _ = strconv.ParseInt(m[1], 10, 64)
	checkpointID, _ = strconv.ParseInt(m[2], 10, 64)
	return sequence, checkpointID
}

// sequenceOf is the number of a generation, 0 for other names.
func sequenceOf(generation string) int64 {
	sequence, _ := splitGeneration(generation)
	return sequence
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

	// StartedEmpty: it had restored nothing when it was first refused. Only
	// [Record.Held] knows; after a failover the JobManager tells otherwise.
	StartedEmpty bool `json:"startedEmpty,omitempty"`
}

// StartTime is Started as a time, in UTC.
func (r Run) StartTime() string { return time.UnixMilli(r.Started).UTC().Format(time.RFC3339) }

func (r Run) is(s Run) bool { return r.JobID == s.JobID && r.Started == s.Started }

// covers reports whether r is s and tells nothing less of it.
func (r Run) covers(s Run) bool { return r.is(s) && (s.Folder == "" || s.Folder == r.Folder) }

// Record is the content of pin.json, of the published pin or of a generation.
// It describes; what a pin names is in its metadata file only.
type Record struct {
	Layout     int              `json:"layout"`
	Generation string           `json:"generation"`
	Parent     string           `json:"parent,omitempty"` // the generation that was published when this one was made
	Metadata   MetadataRecord   `json:"metadata"`
	Checkpoint CheckpointRecord `json:"checkpoint"`
	Run        Run              `json:"run"`

	// Previous are the runs this lineage had before Run, newest first.
	Previous []Run `json:"previous,omitempty"`

	// Seen is the run that restored from this pin last: Run itself, or one that
	// has nothing pinned yet. Later failovers hide that it did.
	Seen *Seen `json:"seen,omitempty"`

	// Held are runs that were refused, newest first: a failover gives them a
	// checkpoint of their own to restore from, and hides that they started
	// empty.
	Held []Run `json:"held,omitempty"`

	// Highest is the number of the newest generation, where a rollback has
	// published one with a lower number; new ones are numbered after it.
	Highest int64 `json:"highest,omitempty"`

	// Lost is the newest checkpoint that was published and could not be put back,
	// because an older generation is the first that proves: a job in CLAIM mode
	// deletes what it restored. A run that restored it goes on with the pin.
	Lost int64 `json:"lost,omitempty"`

	// Origin says of what this is a copy, as long as no tick has worked on it.
	Origin *Origin `json:"origin,omitempty"`

	Files       int   `json:"files"`       // state files the generation names
	Bytes       int64 `json:"bytes"`       // of the byte ranges in them
	Proved      int   `json:"proved"`      // files whose size was seen before publishing
	Generations int   `json:"generations"` // kept at that time; tells a tick when to collect garbage
}

// Origin is the pin that another is a copy of.
type Origin struct {
	App    string `json:"app"`
	SHA256 string `json:"sha256"` // of the metadata file that was copied
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

// existed is the content of chkpin.json.
type existed struct {
	Layout int `json:"layout"`
	Run    Run `json:"run"` // the first that was pinned
}

// maxRecord bounds a record: small, so that reading one is one short request.
const maxRecord = 4096

// encode makes the JSON of a record, forgetting the oldest runs until it is
// small: those that were replaced long ago first.
func (r Record) encode() []byte {
	for {
		data, err := json.MarshalIndent(r, "", " ")
		if err != nil {
			panic(err) // plain strings and numbers
		}
		data = append(data, '\n')
		switch {
		case len(data) < maxRecord:
			return data
		case len(r.Previous) > keepRuns:
			r.Previous = r.Previous[:len(r.Previous)-1]
		case len(r.Held) > 0:
			r.Held = r.Held[:len(r.Held)-1]
		case len(r.Previous) > 0:
			r.Previous = r.Previous[:len(r.Previous)-1]
		default:
			return data
		}
	}
}

// maxHeld is how many refused runs a record remembers.
const maxHeld = 4

// withHeld remembers a refused run.
func (r Record) withHeld(run Run) Record {
	others := slices.DeleteFunc(slices.Clone(r.Held), run.is)
	r.Held = append([]Run{run}, others[:min(len(others), maxHeld-1)]...)
	return r
}

// heldBefore is what is remembered of a run that was refused, nil if it was not.
func (r Record) heldBefore(run Run) *Run {
	if i := slices.IndexFunc(r.Held, run.is); i >= 0 {
		return &r.Held[i]
	}
	return nil
}

// succeeds adds to r, whose run is the one pinned now, what the record before it
// knew of the lineage.
func (r Record) succeeds(before Record) Record {
	r.Origin = nil
	if before.Generation == "" {
		return r
	}
	r.Highest = max(before.Highest, sequenceOf(before.Generation))
	back := r.Highest > sequenceOf(r.Generation)
	if !back {
		r.Highest = 0
	}
	runs := slices.Concat(r.Previous, []Run{before.Run}, before.Previous)
	if back { // by now r knows less than what it is rolled back from
		runs = slices.Concat([]Run{before.Run}, before.Previous, r.Previous)
	}
	known := []Run{r.Run}
	for _, run := range runs {
		if !slices.ContainsFunc(known, run.is) {
			known = append(known, run)
		}
	}
	r.Previous = known[1:]
	r.Seen, r.Held = before.Seen, before.Held
	if before.Run.is(r.Run) {
		r.Run.Folder = cmp.Or(r.Run.Folder, before.Run.Folder) // a savepoint does not tell it
		return r
	}
	if !back {
		// With a constant job id, refused runs wrote where this one writes; now that it
		// is accepted, so is its folder.
		r.Held = slices.DeleteFunc(slices.Clone(r.Held), func(h Run) bool { return h.JobID == r.Run.JobID })
	}
	return r
}

// next is the number that a new generation gets.
func (r Record) next() int64 { return max(sequenceOf(r.Generation), r.Highest) + 1 }

// waiting is the run that restored from the pin and has nothing pinned yet. One that
// has, and was rolled back over, is among the previous ones.
func (r Record) waiting() *Seen {
	if r.Seen == nil || r.Seen.is(r.Run) || slices.ContainsFunc(r.Previous, r.Seen.is) {
		return nil
	}
	return r.Seen
}

// isCurrent reports whether a run that restored this checkpoint from the pin goes on
// with it: what is published, or was and could not be put back.
func (r Record) isCurrent(id int64) bool {
	return id == r.Checkpoint.ID || id == r.Lost && id > r.Checkpoint.ID
}

// errNoRecord: what stands where a record should is none.
var errNoRecord = errors.New("not a record of chkpin")

// maxJSON bounds what is read for JSON: an announcement of a million files.
const maxJSON = 64 << 20

// readJSON reads what chkpin wrote as JSON; false means that there is none.
func readJSON(ctx context.Context, store blobstore.Store, u blobstore.URI, into any) (blobstore.Object, bool, error) {
	data, obj, err := blobstore.ReadAll(ctx, store, u, maxJSON)
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
		return obj, false, &DamagedError{URI: u.String(), Err: fmt.Errorf("%w: %w", errNoRecord, err)}
	}
	if layout.Layout > layoutVersion {
		return obj, false, &DamagedError{URI: u.String(), Err: fmt.Errorf("%w: layout %d, this one knows %d", ErrLayout, layout.Layout, layoutVersion)}
	}
	if err := json.Unmarshal(data, into); err != nil || layout.Layout < 1 {
		return obj, false, &DamagedError{URI: u.String(), Err: errNoRecord}
	}
	return obj, true, nil
}

// readManifest reads the record of a generation; false for one that is not
// finished, or whose record is none.
func readManifest(ctx context.Context, store blobstore.Store, generation blobstore.URI) (r Record, ok bool, err error) {
	_, ok, err = readJSON(ctx, store, generation.Join(recordName), &r)
	if errors.Is(err, errNoRecord) {
		return r, false, nil
	}
	return r, ok, err
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func putBytes(ctx context.Context, store blobstore.Store, u blobstore.URI, data []byte, opts blobstore.PutOptions) (blobstore.Object, error) {
	return store.Put(ctx, u, bytes.NewReader(data), opts)
}
