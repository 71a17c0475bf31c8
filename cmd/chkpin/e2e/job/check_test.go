package job_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/cmd/chkpin/e2e/job"
)

func TestARestoreThatFoundEverything(t *testing.T) {
	report := parse(t, restoredRun)

	assert.True(t, report.Settled(restored()))
	assert.NoError(t, report.Check(restored()))
}

// Each difference that a log line can show is one that Check names.
func TestCheckNamesWhatIsDifferent(t *testing.T) {
	for name, c := range map[string]struct{ replace, by, want string }{
		"an operator without state": {
			"BALLAST-RESTORED subtask=1 parallelism=2 attempt=0 from=4 elements=2700", "BALLAST-EMPTY subtask=1 parallelism=2 attempt=0",
			"operator subtasks that started without state: 1, want 0"},
		"operator state of another checkpoint": {"from=4 elements", "from=3 elements",
			"checkpoints that wrote the operator state: [3 4], want 4 each"},
		"list elements lost":        {"elements=2700", "elements=2699", "elements of operator list state: 5399, want 5400"},
		"a share lost":              {"share.numbers=500", "share.numbers=0", "what the shares of list state add up to"},
		"union state lost":          {"union.keys=200", "union.keys=100", "union state, by subtask"},
		"broadcast state lost":      {"broadcast=1500", "broadcast=0", "entries of broadcast state, by subtask: [0 1500], want 1500 each"},
		"the state of other counts": {"found.digest=0000000000000001", "found.digest=0000000000000005", "keyed state"},
		"a key lost":                {"missing=0", "missing=1", "keys without state: 1, want 0"},
		"a blob":                    {"badBlobs=0", "badBlobs=1", "keys with the blob of another count: 1, want 0"},
		"a blob that stays":         {"badOrigins=0", "badOrigins=1", "keys with another blob than they began with: 1, want 0"},
		"a map":                     {"badMaps=0", "badMaps=1", "keys with the positions of another count: 1, want 0"},
		"a list":                    {"badLists=0", "badLists=1", "keys with the list of another count: 1, want 0"},
		"a sum":                     {"badSums=0", "badSums=1", "keys with the sums of another count: 1, want 0"},
		"a timer lost":              {"timers=90", "timers=89", "restored timers that fired in processing time: 199, want 200"},
		"an event timer lost":       {"eventTimers=90", "eventTimers=89", "restored timers that fired in event time: 199, want 200"},
		"a number lost":             {"gaps=0 timers", "gaps=1 timers", "numbers lost or repeated: 1, want 0"},
		"nothing in flight":         {"read=470", "read=450", "numbers in flight at the checkpoint: 0, want some"},
		"a finished operator ran":   {"UNEVEN-RESTORED subtask=1", "BRIEF-RESTORED subtask=1", "what ran of the branch that had finished: {Started:1 Numbers:0}"},
		"a finished subtask ran":    {"numbers=80 again=0", "numbers=80 again=1", "the branch of which one subtask had finished"},
		"a subtask stands still":    {"numbers=80", "numbers=0", "whether the subtask that had not finished has gone on"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, restoredRun, c.replace)
			report := parse(t, strings.Replace(restoredRun, c.replace, c.by, 1))
			assert.ErrorContains(t, report.Check(restored()), c.want)
		})
	}
}

func TestCheckNamesWhatWasNotExpected(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*job.Restore)
		want   string
	}{
		"another checkpoint":  {func(w *job.Restore) { w.Checkpoint = 3 }, "checkpoints that wrote the operator state: [4], want 3 each"},
		"another parallelism": {func(w *job.Restore) { w.Parallelism = 3 }, "ledger subtasks: 2, want 3"},
		"data in flight":      {func(w *job.Restore) { w.InFlight = false }, "numbers in flight at the checkpoint: 20, want 0"},
		"a branch":            {func(w *job.Restore) { w.Options.Finishing = false }, "the branch of which one subtask had finished"},
	} {
		t.Run(name, func(t *testing.T) {
			want := restored()
			c.change(&want)
			assert.ErrorContains(t, parse(t, restoredRun).Check(want), c.want)
		})
	}
}

func TestARestoreIsNotSettled(t *testing.T) {
	for name, c := range map[string]struct{ replace, by string }{
		"before all keys are met":                   {"found.keys=90", "found.keys=80"},
		"before all timers fire":                    {" timers=90", " timers=80"},
		"before all event timers fire":              {"eventTimers=90", "eventTimers=80"},
		"before the source has gone on":             {"BALLAST-FIRST lane=1 read=470", "BALLAST-FIRST lane=0 read=450"},
		"before one subtask is past what was there": {"read0=460", "read0=450"},
		"before the uneven branch has gone on":      {"numbers=80", "numbers=0"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, restoredRun, c.replace)
			assert.False(t, parse(t, strings.Replace(restoredRun, c.replace, c.by, 1)).Settled(restored()))
		})
	}
	lines := strings.SplitAfter(restoredRun, "\n")
	onlyOneSubtask := strings.Join(lines[:len(lines)-3], "")
	assert.False(t, parse(t, onlyOneSubtask).Settled(restored()))
}

func TestAKeyThatHoldsNothingIsMetToo(t *testing.T) {
	lost := strings.NewReplacer("found.keys=90", "found.keys=89", "missing=0", "missing=1").Replace(restoredRun)
	lost = strings.ReplaceAll(lost, "found.keys=110 found.numbers=500 found.digest=0000000000000002 missing=1", "found.keys=110 found.numbers=500 found.digest=0000000000000002 missing=0")

	report := parse(t, lost)
	assert.True(t, report.Settled(restored()))
	assert.ErrorContains(t, report.Check(restored()), "keys without state: 1, want 0")
}
