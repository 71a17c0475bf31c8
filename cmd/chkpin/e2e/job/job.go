// Package job holds the Flink job of the end-to-end tests, PinnedState.java, and reads what it logs: what its
// state held at each checkpoint and, after a restore, what it got back.
package job

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Class is the job's Java class, in the unnamed package.
const Class = "PinnedState"

// Mark begins the job's own log lines, after what the logger puts before each.
const Mark = "PINNED-STATE "

// The job reads its numbers in two lanes, whatever the parallelism of the cluster.
const lanes = 2

//go:embed PinnedState.java
var source string

// Source is the text of the class.
func Source() []byte { return []byte(source) }

// Options are the job's arguments.
type Options struct {
	Keys         int // keys of the ledger, all of them met within their first Keys numbers
	BlobBytes    int // state of each key
	ListElements int // operator list state of each ballast subtask, 8 bytes each
	PaceMillis   int // pause after each number of a lane
}

// Args spells the options as the job reads them.
func (o Options) Args() []string {
	return []string{
		"--keys", strconv.Itoa(o.Keys),
		"--blob-bytes", strconv.Itoa(o.BlobBytes),
		"--list-elements", strconv.Itoa(o.ListElements),
		"--pace-ms", strconv.Itoa(o.PaceMillis),
	}
}

// AllElements is the number of elements in the list state of all ballast subtasks.
func (o Options) AllElements() int { return lanes * o.ListElements }

// A Tally is what the keys of the ledger hold together. Two ledgers with the same tally hold the same count
// for every key, short of a collision of 64-bit digests.
type Tally struct {
	Keys    int
	Numbers int    // numbers read, of all keys
	Digest  uint64 // of every key and its count
}

func (t Tally) plus(other Tally) Tally {
	return Tally{t.Keys + other.Keys, t.Numbers + other.Numbers, t.Digest + other.Digest}
}

// A Snapshot is what the ledger's subtasks logged about one checkpoint, added up.
type Snapshot struct {
	Subtasks int   // how many have logged it
	Held     Tally // what the checkpoint holds

	// The rest is about the restore that the run began with, as far as it had been looked at by then: a key
	// is inspected when its first number arrives or its timer fires.
	Found    Tally // what keys were found to hold
	Missing  int   // keys met that held nothing
	BadBlobs int   // keys whose blob does not follow from their count
	BadMaps  int   // keys whose positions in the lanes do not add up to their count
	Gaps     int   // numbers that did not follow the key's last one in their lane: lost or repeated
	Timers   int   // keys whose restored timer fired
}

// A Report is what one run of the job has logged.
type Report struct {
	Empty    int // subtasks of ballast and ledger that started without state
	Restored int // subtasks of both that started with state

	From     []int64 // ids of the checkpoints that wrote the restored operator state: one, if all is well
	Elements int     // elements of restored list state, in all subtasks
	Expected []Tally // what the ledger held according to restored union state, as each subtask read it

	Checkpoints map[int64]Snapshot // by checkpoint id
}

// Parse reads the log lines of one run. Lines without Mark are skipped.
func Parse(lines []string) (Report, error) {
	report := Report{Checkpoints: map[int64]Snapshot{}}
	from := map[int64]bool{}
	for _, line := range lines {
		_, text, marked := strings.Cut(line, Mark)
		if !marked {
			continue
		}
		event, rest, _ := strings.Cut(text, " ")
		v := values{text: map[string]string{}}
		for _, field := range strings.Fields(rest) {
			name, value, _ := strings.Cut(field, "=")
			v.text[name] = value
		}

		switch event {
		case "BALLAST-EMPTY", "LEDGER-EMPTY":
			report.Empty++
		case "BALLAST-RESTORED":
			report.Restored++
			report.Elements += v.integer("elements")
			v.ids("from", from)
		case "LEDGER-RESTORED":
			report.Restored++
			report.Expected = append(report.Expected, v.tally(""))
			v.ids("from", from)
		case "CHECKPOINT":
			id := int64(v.integer("id"))
			report.Checkpoints[id] = report.Checkpoints[id].plus(v.snapshot())
		default:
			return Report{}, fmt.Errorf("job: unknown event in log line %q", line)
		}
		if v.err != nil {
			return Report{}, fmt.Errorf("job: log line %q: %w", line, v.err)
		}
	}
	report.From = slices.Sorted(maps.Keys(from))
	return report, nil
}

// Latest is the snapshot of the highest checkpoint id, empty if there is none.
func (r Report) Latest() Snapshot {
	if len(r.Checkpoints) == 0 {
		return Snapshot{}
	}
	return r.Checkpoints[slices.Max(slices.Collect(maps.Keys(r.Checkpoints)))]
}

func (s Snapshot) plus(other Snapshot) Snapshot {
	return Snapshot{
		Subtasks: s.Subtasks + other.Subtasks,
		Held:     s.Held.plus(other.Held),
		Found:    s.Found.plus(other.Found),
		Missing:  s.Missing + other.Missing,
		BadBlobs: s.BadBlobs + other.BadBlobs,
		BadMaps:  s.BadMaps + other.BadMaps,
		Gaps:     s.Gaps + other.Gaps,
		Timers:   s.Timers + other.Timers,
	}
}

// values are the fields of one log line; the first one that is missing or malformed leaves its error in err.
type values struct {
	text map[string]string
	err  error
}

func (v *values) note(name string, err error) {
	if err != nil && v.err == nil {
		v.err = fmt.Errorf("field %s: %w", name, err)
	}
}

func (v *values) integer(name string) int {
	value, err := strconv.Atoi(v.text[name])
	v.note(name, err)
	return value
}

func (v *values) digest(name string) uint64 {
	value, err := strconv.ParseUint(v.text[name], 16, 64)
	v.note(name, err)
	return value
}

func (v *values) ids(name string, into map[int64]bool) {
	for _, text := range strings.Split(v.text[name], ",") {
		id, err := strconv.ParseInt(text, 10, 64)
		v.note(name, err)
		into[id] = true
	}
}

func (v *values) tally(prefix string) Tally {
	return Tally{
		Keys:    v.integer(prefix + "keys"),
		Numbers: v.integer(prefix + "numbers"),
		Digest:  v.digest(prefix + "digest"),
	}
}

func (v *values) snapshot() Snapshot {
	return Snapshot{
		Subtasks: 1,
		Held:     v.tally(""),
		Found:    v.tally("found."),
		Missing:  v.integer("missing"),
		BadBlobs: v.integer("badBlobs"),
		BadMaps:  v.integer("badMaps"),
		Gaps:     v.integer("gaps"),
		Timers:   v.integer("timers"),
	}
}
