package metadata

import (
	"encoding/binary"
	"fmt"
	"iter"
)

// Kind is the form of a handle: where the bytes of state are.
type Kind uint8

const (
	Inline       Kind = iota + 1 // tag 1: inside _metadata itself
	AbsoluteFile                 // tag 2: a file, absolute path
	RelativeFile                 // tag 6: a file, path relative to the directory of _metadata
	Segment                      // tag 15: a range of a merged file, absolute path
	EmptySegment                 // tag 16: a segment of nothing
	Directory                    // one of the two directories that an operator handle of tag 17 names
)

var kindNames = [...]string{
	Inline: "inline", AbsoluteFile: "file", RelativeFile: "relative-file",
	Segment: "segment", EmptySegment: "empty-segment", Directory: "directory",
}

func (k Kind) String() string { return enumName(kindNames[:], uint8(k), "kind") }

// Role is what the state of a handle is for.
type Role uint8

const (
	Coordinator        Role = iota + 1 // of an operator coordinator; belongs to no subtask
	ManagedOperator                    // operator state
	RawOperator                        // raw operator state
	ManagedKeyed                       // keyed state by key groups
	RawKeyed                           // raw keyed state by key groups (timers, for example)
	IncrementalMeta                    // incremental keyed state: what describes the other files
	IncrementalShared                  // incremental keyed state: files that other checkpoints may use too (SST)
	IncrementalPrivate                 // incremental keyed state: files of this checkpoint alone (OPTIONS, MANIFEST)
	ChangelogBase                      // changelog: materialized state by key groups
	ChangelogMeta                      // changelog: as IncrementalMeta, in materialized incremental state
	ChangelogShared                    // changelog: as IncrementalShared, in materialized incremental state
	ChangelogPrivate                   // changelog: as IncrementalPrivate, in materialized incremental state
	ChangelogDelta                     // changelog: changes since the base
	InputChannel                       // in-flight data of an unaligned checkpoint, read side
	OutputChannel                      // in-flight data of an unaligned checkpoint, write side
)

var roleNames = [...]string{
	Coordinator: "coordinator", ManagedOperator: "managed-operator", RawOperator: "raw-operator",
	ManagedKeyed: "managed-keyed", RawKeyed: "raw-keyed",
	IncrementalMeta: "incremental-meta", IncrementalShared: "incremental-shared", IncrementalPrivate: "incremental-private",
	ChangelogBase: "changelog-base", ChangelogMeta: "changelog-meta", ChangelogShared: "changelog-shared",
	ChangelogPrivate: "changelog-private", ChangelogDelta: "changelog-delta",
	InputChannel: "input-channel", OutputChannel: "output-channel",
}

func (r Role) String() string { return enumName(roleNames[:], uint8(r), "role") }

func enumName(names []string, i uint8, what string) string {
	if int(i) < len(names) && names[i] != "" {
		return names[i]
	}
	return fmt.Sprintf("%s(%d)", what, i)
}

// A Handle is one state handle of a [File]: a cursor into its bytes, decoded when asked.
// Handles come from [File.Handles] only, and are comparable.
type Handle struct {
	Kind     Kind
	Role     Role
	Operator int   // index in File.Operators
	Subtask  int   // index in Operator.Subtasks; -1 for the coordinator's
	Offset   int64 // of its tag; of its text for a Directory

	flags flags
	file  *File
}

// flags holds what the position of a handle tells about it.
type flags uint8

const (
	flagShared flags = 1 << iota
	flagOperatorDelegate
)

// cursor is a Handle as a File stores it: 8 bytes, so that a million handles cost little.
type cursor struct {
	offset uint32
	kind   Kind
	role   Role
	flags  flags
}

// run says which subtask the cursors from first on belong to, up to the next run.
type run struct {
	first, operator, subtask int32
}

// Handles returns the state handles that lead to bytes of state, in file order: the leaves of whatever
// nesting there is. Handles of tag 17 add the two directories they name before the segment they wrap.
func (f *File) Handles() iter.Seq[Handle] {
	return func(yield func(Handle) bool) {
		for i, run := range f.runs {
			end := len(f.cursors)
			if i+1 < len(f.runs) {
				end = int(f.runs[i+1].first)
			}
			for _, c := range f.cursors[run.first:end] {
				h := Handle{
					Kind: c.kind, Role: c.role, Operator: int(run.operator), Subtask: int(run.subtask),
					Offset: int64(c.offset), flags: c.flags, file: f,
				}
				if !yield(h) {
					return
				}
			}
		}
	}
}

// NumHandles returns how many handles [File.Handles] has.
func (f *File) NumHandles() int { return len(f.cursors) }

// String names the handle for messages, without its path.
func (h Handle) String() string {
	owner := fmt.Sprintf("operators[%d]", h.Operator)
	if h.Subtask >= 0 {
		owner += fmt.Sprintf(".subtasks[%d]", h.Subtask)
	}
	return fmt.Sprintf("%v handle (%v of %s) at offset %d", h.Kind, h.Role, owner, h.Offset)
}

// Path returns the text of an AbsoluteFile, RelativeFile, Segment or Directory, exactly as Flink wrote it: nothing in it
// is escaped. For the other kinds the error is [ErrNoPath]. It is [ErrText] for a text whose Go string would not
// encode to the same bytes again (a surrogate without partner, an overlong form): such a text names a file
// that Go cannot name.
func (h Handle) Path() (string, error) {
	text, ok := h.text()
	if !ok {
		return "", fmt.Errorf("metadata: %v: %w", h, ErrNoPath)
	}
	s, ok := decodeText(text)
	if !ok {
		return "", fmt.Errorf("metadata: %v: %w", h, ErrText)
	}
	return s, nil
}

// Size returns the number of bytes of state, -1 if unknown: Flink does write -1 for a file whose length it did
// not learn (FileStateHandle, FsCheckpointStateOutputStream). It is always -1 for a Directory.
func (h Handle) Size() int64 {
	at := h.Offset + 1
	switch h.Kind {
	case Inline:
		_, end := h.file.textAt(at)
		return int64(h.file.uint32At(end))
	case AbsoluteFile:
		return h.file.int64At(at)
	case RelativeFile:
		_, end := h.file.textAt(at)
		return h.file.int64At(end)
	case Segment:
		return h.file.int64At(at + 8)
	case EmptySegment:
		return 0
	}
	return -1
}

// Start returns where the bytes of a Segment begin in its file; it is 0 for the other kinds.
func (h Handle) Start() int64 {
	if h.Kind != Segment {
		return 0
	}
	return h.file.int64At(h.Offset + 1)
}

// Shared reports whether other checkpoints may use the same file: the handle stands in the shared list of an
// incremental keyed handle, or is a Segment of shared scope.
//
// A file that is not shared may still lie below Flink's shared/ directory: RocksDB's private files do
// (RocksDBStateUploader 1.11.6 and 1.13.6, RocksIncrementalSnapshotStrategy 1.20.3).
func (h Handle) Shared() bool { return h.flags&flagShared != 0 }

// OperatorDelegate reports whether the handle belongs to an operator handle of tag 17: as its delegate (a
// Segment or EmptySegment) or as one of its directories. An EmptySegment anywhere else cannot be restored.
func (h Handle) OperatorDelegate() bool { return h.flags&flagOperatorDelegate != 0 }

// text returns the bytes of the path, which end where the file goes on.
func (h Handle) text() ([]byte, bool) {
	at := h.Offset
	switch h.Kind {
	case AbsoluteFile:
		at += 1 + 8
	case RelativeFile:
		at++
	case Segment:
		at += 1 + 8 + 8 + 4
	case Directory:
	default:
		return nil, false
	}
	text, _ := h.file.textAt(at)
	return text, true
}

// textAt returns the text whose length stands at offset, and the offset after it.
func (f *File) textAt(offset int64) ([]byte, int64) {
	start := offset + 2
	end := start + int64(binary.BigEndian.Uint16(f.data[offset:]))
	return f.data[start:end], end
}

func (f *File) uint32At(offset int64) uint32 { return binary.BigEndian.Uint32(f.data[offset:]) }
func (f *File) int64At(offset int64) int64   { return int64(binary.BigEndian.Uint64(f.data[offset:])) }
