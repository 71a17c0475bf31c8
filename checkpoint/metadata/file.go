package metadata

import (
	"encoding/hex"
	"fmt"
	"math"
)

// A File is a parsed _metadata. It stays on top of the bytes it was parsed from.
// It is immutable and safe for concurrent use.
type File struct {
	Version      int32   // of the format, 2 to 6
	Dialect      Dialect // which reading of a version that has several
	CheckpointID int64
	Masters      []Master
	Operators    []Operator
	Properties   Properties

	// HighestTag is the highest handle tag in the file. Releases added tags without a new format version, so it
	// decides together with Version, and with what came to version 3 without a tag, which Flink can read the file: 6
	// needs 1.11, 7 needs 1.13, 8 to 12 need 1.15 (8 to 10 in the Flink114 dialect: 1.14), 13 and 14 need 1.16, 15 to
	// 17 need 1.20.
	HighestTag byte

	data    []byte
	cursors []cursor
	runs    []run
	tags    uint32 // bit n: tag n occurs
}

// Dialect names the readings of one format version. Nothing in the file tells them apart; [Parse] takes the
// first that fits the whole file.
type Dialect uint8

const (
	// Standard is how every release but the two below reads and writes.
	Standard Dialect = iota
	// Flink111 is version 3 of Flink 1.11: channel state without the index of the subtask
	// (ChannelStateHandleSerializer 1.11.6 and 1.12.7). Later releases refuse it.
	Flink111
	// Flink114 is version 3 of Flink 1.14 with the changelog of that release, which lacked several fields. Later
	// releases refuse it.
	Flink114
)

var dialectNames = [...]string{Standard: "standard", Flink111: "flink-1.11", Flink114: "flink-1.14"}

func (d Dialect) String() string { return enumName(dialectNames[:], uint8(d), "dialect") }

// A Master is the state of a hook in the JobManager. Its payload is opaque to everybody but the hook: files it
// may name are invisible here.
type Master struct {
	Name    string
	Version int32
	Size    int // bytes of payload
}

// An Operator is the state of one operator.
type Operator struct {
	ID             OperatorID
	Name, UID      string // as the job spells them, for display; since version 5, empty if the job gives none
	Parallelism    int32
	MaxParallelism int32
	Finished       bool // all subtasks have finished (1.14 and later); Subtasks is empty then
	Subtasks       []Subtask
}

// OperatorID identifies an operator across jobs. The id of a vertex in the REST interface is the id of the
// operator that heads its chain.
type OperatorID [16]byte

// String returns the 32 hex digits that Flink shows.
func (id OperatorID) String() string { return hex.EncodeToString(id[:]) }

// A Subtask is one parallel instance of an operator.
type Subtask struct {
	Index    int32
	Finished bool // has finished and left no state (1.14 and later)
}

// Parse reads a _metadata of format version 2 to 6. It checks all of it up to the last byte, so a file that broke
// off is never accepted; of the master states and of what is inline it checks the lengths only.
// The file keeps data, which must not be changed any more.
//
// Every error is a [*FormatError]. No input makes Parse panic or take more memory than a small multiple of
// its size.
func Parse(data []byte) (*File, error) {
	if err := checkSize(len(data)); err != nil {
		return nil, &FormatError{Field: "file", Err: err}
	}
	file, failure := parse(data, Standard)
	if failure == nil {
		return file, nil
	}
	if file.Version == 3 {
		for _, dialect := range []Dialect{Flink111, Flink114} {
			if file, failure := parse(data, dialect); failure == nil {
				return file, nil
			}
		}
	}
	return nil, failure
}

// checkSize refuses what is too large for the offsets of a cursor.
func checkSize(n int) error {
	if int64(n) > math.MaxInt32 {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, n)
	}
	return nil
}

// Bytes returns the file as it was given to [Parse]. It must not be changed.
func (f *File) Bytes() []byte { return f.data }

// Changelog reports whether keyed state is kept as a changelog (state.changelog.enabled), of any release.
func (f *File) Changelog() bool {
	const tags = 1<<keyedChangelog | 1<<keyedChangelogInMemory | 1<<keyedChangelogFiles |
		1<<keyedChangelogFilesV2 | 1<<keyedChangelogV2
	return f.tags&tags != 0
}
