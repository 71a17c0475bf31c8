package checkpoint

import (
	"strings"

	"github.com/chkpin/chkpin/checkpoint/metadata"
)

// Inspection is what a checkpoint consists of.
type Inspection struct {
	Savepoint   bool
	Operators   []OperatorState // in the order of the file
	Ranges      []Reference     // distinct byte ranges, in the order of first mention
	InlineBytes int64           // state inside the metadata file
	StateBytes  int64           // inline state and the distinct ranges
}

// OperatorState is one operator and the size of its state.
type OperatorState struct {
	metadata.Operator
	Bytes int64 // inline and in files, each range once
}

// byteRange identifies a range of a file.
type byteRange struct {
	file         string
	offset, size int64
}

func (r Reference) byteRange() byteRange { return byteRange{r.URI.Canonical(), r.Offset, r.Size} }

// Inspect sums up a checkpoint from its metadata file alone.
func (s *Snapshot) Inspect() (Inspection, error) {
	in := Inspection{Savepoint: s.isSavepoint()}
	for _, op := range s.Operators {
		in.Operators = append(in.Operators, OperatorState{Operator: op})
	}
	refs, err := s.References()
	if err != nil {
		return in, err
	}
	seen := map[byteRange]bool{}
	seenBy := map[int]map[byteRange]bool{} // ranges by operator
	next := 0
	for h := range s.Handles() {
		switch h.Kind {
		case metadata.Inline:
			in.InlineBytes += h.Size()
			in.add(h.Operator, h.Size())
		case metadata.AbsoluteFile, metadata.RelativeFile, metadata.Segment:
			ref := refs[next] // References yields just these handles
			next++
			key := ref.byteRange()
			if !seen[key] {
				seen[key] = true
				in.Ranges = append(in.Ranges, ref)
				in.StateBytes += max(ref.Size, 0)
			}
			if seenBy[h.Operator] == nil {
				seenBy[h.Operator] = map[byteRange]bool{}
			}
			if !seenBy[h.Operator][key] {
				seenBy[h.Operator][key] = true
				in.add(h.Operator, max(ref.Size, 0))
			}
		}
	}
	in.StateBytes += in.InlineBytes
	return in, nil
}

func (in *Inspection) add(operator int, bytes int64) {
	in.Operators[operator].Bytes += bytes
}

// Kind is KindCheckpoint or KindSavepoint. Of a pin, it is what was pinned.
func (s *Snapshot) Kind() string {
	if s.isSavepoint() {
		return KindSavepoint
	}
	return KindCheckpoint
}

// isSavepoint tells by the properties, or by the folder's name for files that
// have none (format versions before 4).
func (s *Snapshot) isSavepoint() bool {
	if s.Properties.Present {
		return s.Properties.Savepoint
	}
	return strings.HasPrefix(s.URI.Dir().Base(), "savepoint-")
}
