package job

import (
	"errors"
	"fmt"
	"slices"
)

// A Restore is what a run of the job is to begin with.
type Restore struct {
	Checkpoint int64 // id of the checkpoint, or of the savepoint
	Held       Tally // what the ledger held at it ([Snapshot].Held)
	Options    Options

	// Parallelism is that of the ledger in this run, whatever it was in the one that made the checkpoint. 0: 2.
	Parallelism int

	// InFlight says that the checkpoint holds data in flight: it was unaligned, and the ledger slow. Other checkpoints
	// and all savepoints hold none.
	InFlight bool
}

func (w Restore) parallelism() int {
	if w.Parallelism == 0 {
		return 2
	}
	return w.Parallelism
}

// InFlight is the number of numbers that were on the way from the source to the ledger at the checkpoint that the job was
// restored from, where its ledger held this. It is known when the source has passed on a number in every lane.
func (r Report) InFlight(held Tally) (numbers int, known bool) {
	for _, read := range r.First {
		numbers += read
	}
	return numbers - held.Numbers, len(r.First) == lanes
}

// Settled reports whether the last checkpoint tells all that [Report.Check] asks for: every key has been met and its
// timers have fired, and the ledger has come to numbers that were not in flight. Timers that are lost never fire.
func (r Report) Settled(want Restore) bool {
	latest := r.Latest()
	if latest.Subtasks != want.parallelism() || latest.Found.Keys+latest.Missing < want.Options.Keys ||
		latest.Timers < latest.Found.Keys || latest.EventTimers < latest.Found.Keys {
		return false
	}
	for lane, read := range latest.Read {
		if first, known := r.First[lane]; !known || read <= first {
			return false
		}
	}
	return !want.Options.Finishing || r.Uneven.Numbers > 0
}

// Check compares what the job has found with what it is to begin with. The error joins one for each difference. Until
// the report is [Report.Settled] there are differences.
func (r Report) Check(want Restore) error {
	var differences []error
	check := func(what string, got, want any) {
		if got != want {
			differences = append(differences, fmt.Errorf("%s: %+v, want %+v", what, got, want))
		}
	}
	each := func(what string, same bool, got, want any) {
		if !same {
			differences = append(differences, fmt.Errorf("%s: %+v, want %+v each", what, got, want))
		}
	}
	latest, parallelism := r.Latest(), want.parallelism()

	check("ledger subtasks", r.Parallelism, parallelism)
	check("operator subtasks that started without state", r.Empty, 0)
	check("restored subtasks of ballast and ledger", r.Restored, lanes+parallelism)
	each("checkpoints that wrote the operator state", slices.Equal(r.From, []int64{want.Checkpoint}), r.From, want.Checkpoint)
	check("elements of operator list state", r.Elements, want.Options.AllElements())
	check("what the shares of list state add up to", r.Share, want.Held)
	each("union state, by subtask", slices.Equal(r.Union, slices.Repeat([]Tally{want.Held}, parallelism)), r.Union, want.Held)
	entries := want.Options.BroadcastEntries
	each("entries of broadcast state, by subtask", slices.Equal(r.Broadcast, slices.Repeat([]int{entries}, parallelism)), r.Broadcast, entries)

	check("ledger subtasks in the last checkpoint", latest.Subtasks, parallelism)
	check("keyed state", latest.Found, want.Held)
	check("keys without state", latest.Missing, 0)
	check("keys with the blob of another count", latest.BadBlobs, 0)
	check("keys with another blob than they began with", latest.BadOrigins, 0)
	check("keys with the positions of another count", latest.BadMaps, 0)
	check("keys with the list of another count", latest.BadLists, 0)
	check("keys with the sums of another count", latest.BadSums, 0)
	check("restored timers that fired in processing time", latest.Timers, want.Held.Keys)
	check("restored timers that fired in event time", latest.EventTimers, want.Held.Keys)
	check("numbers lost or repeated", latest.Gaps, 0)
	inFlight, known := r.InFlight(want.Held)
	check("whether the source has gone on in all lanes", known, true)
	if !want.InFlight {
		check("numbers in flight at the checkpoint", inFlight, 0)
	} else if inFlight <= 0 {
		differences = append(differences, fmt.Errorf("numbers in flight at the checkpoint: %d, want some", inFlight))
	}

	check("what ran of the branch that had finished", r.Brief, Brief{})
	uneven := Uneven{}
	if want.Options.Finishing {
		uneven = Uneven{Restored: 2, Numbers: r.Uneven.Numbers}
		check("whether the subtask that had not finished has gone on", r.Uneven.Numbers > 0, true)
	}
	check("the branch of which one subtask had finished", r.Uneven, uneven)
	return errors.Join(differences...)
}
