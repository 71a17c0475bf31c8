// Package matrix keeps what became of each cell of the restore matrix: a file of results that grows while cells run, and
// the page that people read.
package matrix

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A Cell is one combination of what can differ when a pin is made and restored.
type Cell struct {
	Release string `json:"release"` // of Flink, exact
	State   string `json:"state"`   // how the job keeps its state, and what is pinned
	Store   string `json:"store"`
	Restore string `json:"restore"` // how a job is started from the pin
}

// String is the cell's name, such as 2.3.0/rocksdb-incremental/file/application.
func (c Cell) String() string {
	return strings.Join([]string{c.Release, c.State, c.Store, c.Restore}, "/")
}

// Cells are those that the names name. It panics on what is no name of a cell: names are written in code.
func Cells(names ...string) (cells []Cell) {
	for _, name := range names {
		parts := strings.Split(name, "/")
		if len(parts) != 4 || slices.Contains(parts, "") {
			panic("matrix: " + name + " does not name a release, a state, a store and a way to restore")
		}
		cells = append(cells, Cell{Release: parts[0], State: parts[1], Store: parts[2], Restore: parts[3]})
	}
	return cells
}

// Matching returns the function that tells which cells a pattern means, such as 2.3.0/rocksdb-incremental/*: a * stands
// for anything, slashes too.
func Matching(pattern string) func(Cell) bool {
	expression := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$")
	return func(c Cell) bool { return expression.MatchString(c.String()) }
}

// An Outcome is what became of a cell.
type Outcome string

const (
	Yes    Outcome = "yes"    // the pin restored, was made anew and restored again
	No     Outcome = "no"     // Flink refuses it, or deletes the pin: as expected, and in the note
	Failed Outcome = "FAILED" // anything else
)

// A Result is what became of a cell, and when.
type Result struct {
	Cell
	Outcome Outcome `json:"outcome"`
	Note    string  `json:"note"`    // one line: what was seen, or the reason
	Seconds float64 `json:"seconds"` // of wall time, two cells at a time on one machine
	Day     string  `json:"day"`     // such as 2026-11-27
}

// Results are those of all cells that have run, in a file.
type Results struct {
	file string
	all  []Result
}

// The names of the files in the folder of the results.
const (
	rawFile  = "restore-matrix.json"
	pageFile = "restore-matrix.md"
)

// Open reads the results in a folder, none if there are none yet.
func Open(folder string) (*Results, error) {
	r := &Results{file: filepath.Join(folder, rawFile)}
	text, err := os.ReadFile(r.file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("matrix: %w", err)
	}
	if err := json.Unmarshal(text, &r.all); err != nil {
		return nil, fmt.Errorf("matrix: %s: %w", r.file, err)
	}
	return r, nil
}

// Done reports whether the cell has a result other than Failed.
func (r *Results) Done(c Cell) bool {
	return slices.ContainsFunc(r.all, func(done Result) bool { return done.Cell == c && done.Outcome != Failed })
}

// Keep forgets the results of cells that are not in the list, and puts the others in its order.
func (r *Results) Keep(cells []Cell) {
	r.all = slices.DeleteFunc(r.all, func(done Result) bool { return !slices.Contains(cells, done.Cell) })
	slices.SortStableFunc(r.all, func(a, b Result) int {
		return cmp.Compare(slices.Index(cells, a.Cell), slices.Index(cells, b.Cell))
	})
}

// Put adds a result, in the place of an earlier one of the same cell.
func (r *Results) Put(result Result) {
	for i := range r.all {
		if r.all[i].Cell == result.Cell {
			r.all[i] = result
			return
		}
	}
	r.all = append(r.all, result)
}

// Write writes both files, each whole: a run that is interrupted goes on where it was.
func (r *Results) Write() error {
	raw, err := json.MarshalIndent(r.all, "", " ")
	if err != nil {
		return fmt.Errorf("matrix: %w", err)
	}
	for file, text := range map[string][]byte{r.file: append(raw, '\n'), filepath.Join(filepath.Dir(r.file), pageFile): r.Page()} {
		if err := os.WriteFile(file+".new", text, 0o644); err != nil {
			return fmt.Errorf("matrix: %w", err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			return fmt.Errorf("matrix: %w", err)
		}
	}
	return nil
}

// Today is the day of a result.
func Today(now time.Time) string { return now.UTC().Format(time.DateOnly) }

// Page is the table as Markdown.
func (r *Results) Page() []byte {
	count := map[Outcome]int{}
	days := []string{}
	for _, one := range r.all {
		count[one.Outcome]++
		if !slices.Contains(days, one.Day) {
			days = append(days, one.Day)
		}
	}
	slices.Sort(days)

	var page bytes.Buffer
	page.WriteString(preamble)
	if len(days) > 0 {
		fmt.Fprintf(&page, "\nRun %s: %d cells, %d yes, %d no", strings.Join(days, ", "), len(r.all), count[Yes], count[No])
		if count[Failed] > 0 {
			fmt.Fprintf(&page, ", %d FAILED", count[Failed])
		}
		page.WriteString(".\n")
	}
	page.WriteString("\n| release | state | store | restore | restores | what was seen | seconds | run |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, one := range r.all {
		fmt.Fprintf(&page, "| %s | %s | %s | %s | %s | %s | %.0f | %s |\n", one.Release, one.State, one.Store, one.Restore,
			one.Outcome, strings.ReplaceAll(one.Note, "|", `\|`), one.Seconds, one.Day)
	}
	return page.Bytes()
}

const preamble = `# What restores: real Flink, every release, every kind of state

<!-- written by "make matrix"; do not edit -->

Each row is one cell that ran on a real cluster. Yes: a job with state that can be checked ran, was pinned by ` + "`chkpin pin`" + `, and
was cancelled; **its checkpoint folder and all else that Flink had written was deleted**; a new job was started from the
pin, and compared what it found with what the pinned checkpoint had held: every key's value, list, map, sums and timers, list,
union and broadcast state, the positions of the source, so that no number was lost or came twice. It completed two more
checkpoints, the pin was still the same bytes, it was pinned again, cancelled and deleted, and the second pin
restored in the same way. No: Flink refuses what was pinned, or deletes the pin; the row says how that shows.
Any difference from what was expected is a row that says FAILED.

The reference job is [PinnedState.java](../cmd/chkpin/e2e/job/PinnedState.java); state is above Flink's inline threshold unless the row
says otherwise; parallelism 2; a checkpoint every second, one retained. ` + "`make matrix`" + ` runs the cells that have no result here,
` + "`make matrix CELLS='2.3.0/rocksdb-incremental/*'`" + ` those that the pattern names. Raw results: [restore-matrix.json](restore-matrix.json).
What the rows settle about Flink: [flink.md](flink.md).

**state**: ` + "`-canonical`, `-native`" + `: a savepoint is pinned; ` + "`-stopped`" + `: that of ` + "`chkpin stop`" + `. **restore**: application: the entry
point of a container, with ` + "`--fromSavepoint <app>/last-state/_metadata`" + `; rest-, run-: a session cluster, by REST or by
` + "`flink run`" + `, in that claim mode (none: the release has no modes); -p1, -p3: with another parallelism; to-: a newer release restores; back-to-: an older one.

These are stories of their own, in which every restore is compared in the same way. claim: the job claims the pin; claim-of-a-copy: a ` + "`chkpin copy`" + ` of it.
generations, legacy-generations: four rounds of jobs whose own checkpoints may go on naming files of the pin, with collections of garbage. failover: a
TaskManager dies before the restored job has a checkpoint of its own. constant-id: all runs have one job id, and so one checkpoint folder;
constant-id-collision: in it lie checkpoints with numbers that the restored job comes to, so there, and only there, nothing is deleted before the first
restore, of which the operator state alone is compared. changelog-off: the job that restores keeps no changelog.
`
