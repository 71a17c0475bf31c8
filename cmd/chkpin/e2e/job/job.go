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
	Keys             int  // keys of the ledger, all of them met within their first Keys numbers
	BlobBytes        int  // state of each key
	ListElements     int  // operator list state of each ballast subtask, 8 bytes each
	BroadcastEntries int  // operator broadcast state of the ledger, 16 bytes each
	PaceMillis       int  // pause of the source after each number of a lane
	SlowMicros       int  // pause of each ledger subtask before each number: slower than the source, it fills the buffers
	Finishing        bool // with branches that finish, Brief and Uneven; from Flink 1.14
}

// InFiles are the options that put every operator subtask above the 20 KB up to which Flink keeps state inside _metadata.
func InFiles() Options {
	return Options{Keys: 200, BlobBytes: 1000, ListElements: 2700, BroadcastEntries: 1500, PaceMillis: 2}
}

// Inline are the options with so little state that _metadata holds all of it. With RocksDB that also takes a higher
// state.storage.fs.memory-threshold than Flink's: its file of options alone has more than 20 KB.
func Inline() Options {
	return Options{Keys: 20, BlobBytes: 10, ListElements: 10, BroadcastEntries: 10, PaceMillis: 2}
}

// Slow makes the ledger slower than the source, so that there is always data in flight, for unaligned checkpoints to hold.
// With buffers of 4 KB (taskmanager.memory.segment-size) that was some 3,000 numbers, 2 to 4 s of the ledger's work; Flink's
// default is 32 KB.
func (o Options) Slow() Options {
	o.PaceMillis, o.SlowMicros = 0, 1000
	return o
}

// Args spells the options as the job reads them.
func (o Options) Args() []string {
	finishing := "0"
	if o.Finishing {
		finishing = "1"
	}
	return []string{
		"--keys", strconv.Itoa(o.Keys),
		"--blob-bytes", strconv.Itoa(o.BlobBytes),
		"--list-elements", strconv.Itoa(o.ListElements),
		"--broadcast-entries", strconv.Itoa(o.BroadcastEntries),
		"--pace-ms", strconv.Itoa(o.PaceMillis),
		"--slow-micros", strconv.Itoa(o.SlowMicros),
		"--finishing", finishing,
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
	// is inspected when its first number arrives or one of its timers fires.
	Found       Tally // what keys were found to hold
	Missing     int   // keys met that held nothing
	BadBlobs    int   // keys whose blob does not follow from their count
	BadOrigins  int   // keys whose blob from when they were first met is another
	BadMaps     int   // keys whose positions in the lanes do not add up to their count
	BadLists    int   // keys whose list of recent counts does not follow from their count
	BadSums     int   // keys whose sum or sum of squares (reducing and aggregating state) does not follow from their count
	Gaps        int   // numbers that did not follow the key's last one in their lane: lost or repeated
	Timers      int   // keys whose restored timer fired, in processing time
	EventTimers int   // the same in event time

	// Read is how far every ledger subtask has come in each lane: its numbers up to this one, 0 before the first.
	Read [lanes]int
}

// A Report is what one run of the job has logged. If it has started several times, after failovers or again in the same
// session cluster, all but Attempts is about the last time.
type Report struct {
	Attempts int // how often the job has started

	Empty       int // subtasks of ballast and ledger that started without state
	Restored    int // subtasks of both that started with state
	Parallelism int // of the ledger

	From      []int64     // ids of the checkpoints that wrote the restored operator state: one, if all is well
	Elements  int         // elements of restored list state, in all ballast subtasks
	Share     Tally       // what the ledger held according to restored list state, of all its subtasks
	Union     []Tally     // what the ledger held according to restored union state, as each subtask read it
	Broadcast []int       // entries of broadcast state, as each ledger subtask read it
	First     map[int]int // numbers that the source had read before, by lane: it has passed on another one

	Brief  Brief
	Uneven Uneven

	Checkpoints map[int64]Snapshot // by checkpoint id
}

// Brief is what the branch has done of which everything finishes at once.
type Brief struct {
	Started int // subtasks, with state or without
	Numbers int // numbers met
}

// BriefNumbers are the numbers that the branch Brief meets before it has finished.
const BriefNumbers = 10

// FinishedTasks are the tasks that have finished when those have that are to: both of Brief and one of Uneven.
const FinishedTasks = 3

// Uneven is what the branch has done of which one subtask finishes at once and the other does not.
type Uneven struct {
	Empty    int // subtasks that started without state
	Restored int // subtasks that started with state

	// As far as checkpoints tell:
	Numbers int // numbers that the subtask met that goes on
	Again   int // numbers met after a restore that the finished subtask had met
	Gaps    int // numbers that did not follow the last one
}

// Parse reads the log lines of one run. Lines without Mark are skipped.
func Parse(lines []string) (Report, error) {
	var p parser
	p.begin()
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
		if !p.add(event, &v) {
			return Report{}, fmt.Errorf("job: unknown event in log line %q", line)
		}
		if v.err != nil {
			return Report{}, fmt.Errorf("job: log line %q: %w", line, v.err)
		}
	}
	return p.end(), nil
}

// parser collects the lines of the last attempt.
type parser struct {
	Report
	attempt int
	started map[string]bool // operators' subtasks
	from    map[int64]bool
	uneven  map[int]Uneven // what each subtask said last
}

// begin forgets all but the number of attempts.
func (p *parser) begin() {
	*p = parser{
		Report:  Report{Attempts: p.Attempts, First: map[int]int{}, Checkpoints: map[int64]Snapshot{}},
		started: map[string]bool{}, from: map[int64]bool{}, uneven: map[int]Uneven{},
	}
}

// start notes the start of an operator's subtask. A new attempt shows by its number, which is that of the first again
// when a job has been submitted anew, or by a subtask that has started before.
func (p *parser) start(operator string, v *values) {
	attempt, subtask := v.integer("attempt"), fmt.Sprintf("%s %d", operator, v.integer("subtask"))
	if len(p.started) == 0 || attempt != p.attempt || p.started[subtask] {
		p.begin()
		p.Attempts++
	}
	p.attempt, p.started[subtask] = attempt, true
}

// add reports whether it knows the event.
func (p *parser) add(event string, v *values) (known bool) {
	operator, what, _ := strings.Cut(event, "-")
	if what == "EMPTY" || what == "RESTORED" {
		p.start(operator, v)
	}
	switch event {
	case "BALLAST-EMPTY":
		p.Empty++
	case "BALLAST-RESTORED":
		p.Restored++
		p.Elements += v.integer("elements")
		v.ids("from", p.from)
	case "BALLAST-FIRST":
		p.First[v.integer("lane")] = v.integer("read")
	case "LEDGER-EMPTY":
		p.Empty++
		p.Parallelism = v.integer("parallelism")
	case "LEDGER-RESTORED":
		p.Restored++
		p.Parallelism = v.integer("parallelism")
		p.Share = p.Share.plus(v.tally("share."))
		p.Union = append(p.Union, v.tally("union."))
		p.Broadcast = append(p.Broadcast, v.integer("broadcast"))
		v.ids("from", p.from)
	case "CHECKPOINT":
		id := int64(v.integer("id"))
		p.Checkpoints[id] = p.Checkpoints[id].plus(v.snapshot())
	case "BRIEF-EMPTY", "BRIEF-RESTORED":
		p.Brief.Started++
	case "BRIEF-NUMBER":
		p.Brief.Numbers++
	case "UNEVEN-EMPTY":
		p.Uneven.Empty++
	case "UNEVEN-RESTORED":
		p.Uneven.Restored++
		v.ids("from", p.from)
	case "UNEVEN-CHECKPOINT":
		p.uneven[v.integer("subtask")] = Uneven{Numbers: v.integer("numbers"), Again: v.integer("again"), Gaps: v.integer("gaps")}
	default:
		return false
	}
	return true
}

func (p *parser) end() Report {
	p.From = slices.Sorted(maps.Keys(p.from))
	for _, subtask := range p.uneven {
		p.Uneven.Numbers += subtask.Numbers
		p.Uneven.Again += subtask.Again
		p.Uneven.Gaps += subtask.Gaps
	}
	return p.Report
}

// Latest is the snapshot of the highest checkpoint id, empty if there is none.
func (r Report) Latest() Snapshot {
	if len(r.Checkpoints) == 0 {
		return Snapshot{}
	}
	return r.Checkpoints[slices.Max(slices.Collect(maps.Keys(r.Checkpoints)))]
}

func (s Snapshot) plus(other Snapshot) Snapshot {
	if s.Subtasks == 0 {
		return other
	}
	sum := Snapshot{
		Subtasks:    s.Subtasks + other.Subtasks,
		Held:        s.Held.plus(other.Held),
		Found:       s.Found.plus(other.Found),
		Missing:     s.Missing + other.Missing,
		BadBlobs:    s.BadBlobs + other.BadBlobs,
		BadOrigins:  s.BadOrigins + other.BadOrigins,
		BadMaps:     s.BadMaps + other.BadMaps,
		BadLists:    s.BadLists + other.BadLists,
		BadSums:     s.BadSums + other.BadSums,
		Gaps:        s.Gaps + other.Gaps,
		Timers:      s.Timers + other.Timers,
		EventTimers: s.EventTimers + other.EventTimers,
	}
	for lane := range sum.Read {
		sum.Read[lane] = min(s.Read[lane], other.Read[lane])
	}
	return sum
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
	if v.text[name] == "none" {
		return
	}
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
		Subtasks:    1,
		Held:        v.tally(""),
		Found:       v.tally("found."),
		Missing:     v.integer("missing"),
		BadBlobs:    v.integer("badBlobs"),
		BadOrigins:  v.integer("badOrigins"),
		BadMaps:     v.integer("badMaps"),
		BadLists:    v.integer("badLists"),
		BadSums:     v.integer("badSums"),
		Gaps:        v.integer("gaps"),
		Timers:      v.integer("timers"),
		EventTimers: v.integer("eventTimers"),
		Read:        [lanes]int{v.integer("read0"), v.integer("read1")},
	}
}
