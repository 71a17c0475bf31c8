package checkpoint

import (
	"fmt"
	"strings"

	"github.com/chkpin/chkpin/checkpoint/metadata"
)

// Difference is what [Diff] found.
type Difference struct {
	// Operators that differ: those of a in its order, then those only b has.
	Operators []OperatorDifference

	// Notes say what a difference means for a job with the operators of b that
	// starts from a.
	Notes []string
}

// Kinds of [OperatorDifference].
const (
	OperatorAdded   = "added"   // only in b
	OperatorRemoved = "removed" // only in a
	OperatorChanged = "changed" // in parallelism or maximum parallelism
	OperatorResized = "resized" // in the size of its state alone
)

// OperatorDifference is how one operator differs. Operators are the same when
// their ids are, which Flink makes of the uid, or of the shape of the job graph
// where the job gives none.
type OperatorDifference struct {
	ID        metadata.OperatorID
	Name, UID string         // as one of the two says; format versions before 5 do not
	Change    string         // OperatorAdded, OperatorRemoved, OperatorChanged or OperatorResized
	A, B      *OperatorState // nil where it is absent
}

// Equal reports whether both have the same operators with the same parallelism
// and maximum parallelism. The size of state counts only when asked for, since
// it differs between any two checkpoints of a job.
func (d Difference) Equal(sizes bool) bool {
	for _, op := range d.Operators {
		if sizes || op.Change != OperatorResized {
			return false
		}
	}
	return true
}

// Diff compares the operators of two checkpoints, savepoints or pins by what
// their metadata says. a is what would be restored, and b a checkpoint of the
// job that would restore it, such as one that a test of the new version took.
//
// Operators without state need not be in a metadata file: one that is missing in
// b may be there in the job, before it has state.
func Diff(a, b *Snapshot) (Difference, error) {
	var d Difference
	ina, err := a.Inspect()
	if err != nil {
		return d, err
	}
	inb, err := b.Inspect()
	if err != nil {
		return d, err
	}
	inB := make(map[metadata.OperatorID]*OperatorState, len(inb.Operators))
	for i := range inb.Operators {
		inB[inb.Operators[i].ID] = &inb.Operators[i]
	}
	for i := range ina.Operators {
		before := &ina.Operators[i]
		if change := changeOf(before, inB[before.ID]); change != "" {
			d.add(change, before, inB[before.ID])
		}
		delete(inB, before.ID)
	}
	for i := range inb.Operators {
		if after := &inb.Operators[i]; inB[after.ID] != nil {
			d.add(OperatorAdded, nil, after)
		}
	}
	d.Notes = d.notes(a)
	return d, nil
}

// changeOf is "" for an operator that did not change.
func changeOf(a, b *OperatorState) string {
	switch {
	case b == nil:
		return OperatorRemoved
	case a.Parallelism != b.Parallelism || a.MaxParallelism != b.MaxParallelism:
		return OperatorChanged
	case a.Bytes != b.Bytes:
		return OperatorResized
	}
	return ""
}

func (d *Difference) add(change string, a, b *OperatorState) {
	op := OperatorDifference{Change: change, A: a, B: b}
	for _, s := range []*OperatorState{a, b} { // the newer one's names, if it has any
		if s == nil {
			continue
		}
		op.ID = s.ID
		if s.Name != "" {
			op.Name = s.Name
		}
		if s.UID != "" {
			op.UID = s.UID
		}
	}
	d.Operators = append(d.Operators, op)
}

// String names an operator in a message.
func (op OperatorDifference) String() string {
	for _, name := range []string{op.UID, op.Name} {
		if name != "" {
			return fmt.Sprintf("%s (%s)", op.ID, name)
		}
	}
	return op.ID.String()
}

func (d Difference) notes(a *Snapshot) (notes []string) {
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	stateful := a.stateful()
	var lost []string
	for _, op := range d.Operators {
		if op.Change == OperatorRemoved && stateful[op.ID] {
			lost = append(lost, op.String())
		}
	}
	if len(lost) > 0 {
		// Checkpoints.loadAndValidateCheckpoint and throwNonRestoredStateException,
		// master of 2022 and later.
		note("starting b from a needs --allowNonRestoredState, which drops the state of %s: %s", plural(len(lost), "operator"), strings.Join(lost, ", "))
	}
	for _, op := range d.Operators {
		if op.A == nil || op.B == nil {
			continue
		}
		// StateAssignmentOperation.checkParallelismPreconditions, 1.12 and later.
		if op.A.MaxParallelism < op.B.Parallelism {
			note("b does not start from a: operator %s runs with parallelism %d, and its state allows at most %d", op, op.B.Parallelism, op.A.MaxParallelism)
		} else if op.A.MaxParallelism != op.B.MaxParallelism {
			note("b does not start from a if it sets the maximum parallelism of operator %s to %d: its state has %d. Where the job sets none, Flink takes that of the state", op, op.B.MaxParallelism, op.A.MaxParallelism)
		}
	}
	return append(notes, d.renamed()...)
}

// renamed tells which operators look as if only their id was another: Flink
// makes ids of the job graph where an operator has no uid.
func (d Difference) renamed() (notes []string) {
	added := map[string]OperatorDifference{}
	for _, op := range d.Operators {
		if op.Change == OperatorAdded && op.Name != "" {
			added[op.Name] = op
		}
	}
	for _, op := range d.Operators {
		if other, ok := added[op.Name]; ok && op.Change == OperatorRemoved {
			notes = append(notes, fmt.Sprintf("operator %s of a and %s of b are both called %q: was its uid changed, or is it missing?", op, other, op.Name))
		}
	}
	return notes
}

// stateful is which operators have state that Flink does not skip in silence
// when no operator takes it: any handle, of a subtask or the coordinator.
func (s *Snapshot) stateful() map[metadata.OperatorID]bool {
	has := map[metadata.OperatorID]bool{}
	for h := range s.Handles() {
		has[s.Operators[h.Operator].ID] = true
	}
	return has
}
