package job_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/cmd/chkpin/e2e/job"
)

// One run: restored from checkpoint 4, which held 20 numbers in flight, then its own checkpoint 5.
const restoredRun = `
12:00:01,000 INFO  CheckpointCoordinator [main] - Reset the checkpoint ID of job 00 to 5
12:00:01,200 INFO  PinnedState [Map (1/2)#0] - PINNED-STATE BALLAST-RESTORED subtask=1 parallelism=2 attempt=0 from=4 elements=2700
12:00:01,200 INFO  PinnedState [Map (2/2)#0] - PINNED-STATE BALLAST-RESTORED subtask=2 parallelism=2 attempt=0 from=4 elements=2700
12:00:01,300 INFO  PinnedState [KeyedProcess (1/2)#0] - PINNED-STATE LEDGER-RESTORED subtask=1 parallelism=2 attempt=0 from=4 share.keys=90 share.numbers=500 share.digest=ffffffffffffffff union.keys=200 union.numbers=900 union.digest=0000000000000003 broadcast=1500
12:00:01,300 INFO  PinnedState [KeyedProcess (2/2)#0] - PINNED-STATE LEDGER-RESTORED subtask=2 parallelism=2 attempt=0 from=4 share.keys=110 share.numbers=400 share.digest=0000000000000004 union.keys=200 union.numbers=900 union.digest=0000000000000003 broadcast=1500
12:00:01,310 INFO  PinnedState [Map (1/2)#0] - PINNED-STATE UNEVEN-RESTORED subtask=1 parallelism=2 attempt=0 from=none
12:00:01,310 INFO  PinnedState [Map (2/2)#0] - PINNED-STATE UNEVEN-RESTORED subtask=2 parallelism=2 attempt=0 from=4
12:00:01,400 INFO  PinnedState [Map (1/2)#0] - PINNED-STATE BALLAST-FIRST lane=0 read=450
12:00:01,400 INFO  PinnedState [Map (2/2)#0] - PINNED-STATE BALLAST-FIRST lane=1 read=470
12:00:02,000 INFO  PinnedState [Map (2/2)#0] - PINNED-STATE UNEVEN-CHECKPOINT subtask=2 numbers=40 again=0 gaps=0
12:00:02,000 INFO  PinnedState [KeyedProcess (1/2)#0] - PINNED-STATE CHECKPOINT id=5 keys=90 numbers=600 digest=ffffffffffffffff found.keys=90 found.numbers=400 found.digest=0000000000000001 missing=0 badBlobs=0 badOrigins=0 badMaps=0 badLists=0 badSums=0 gaps=0 timers=90 eventTimers=90 read0=470 read1=490
12:00:02,000 INFO  PinnedState [KeyedProcess (2/2)#0] - PINNED-STATE CHECKPOINT id=5 keys=110 numbers=500 digest=0000000000000003 found.keys=110 found.numbers=500 found.digest=0000000000000002 missing=0 badBlobs=0 badOrigins=0 badMaps=0 badLists=0 badSums=0 gaps=0 timers=110 eventTimers=110 read0=460 read1=500
12:00:02,900 INFO  PinnedState [Map (2/2)#0] - PINNED-STATE UNEVEN-CHECKPOINT subtask=2 numbers=80 again=0 gaps=0
`

// The same job before, when it started with nothing.
const firstRun = `
PINNED-STATE BRIEF-EMPTY subtask=1 parallelism=2 attempt=0
PINNED-STATE BALLAST-EMPTY subtask=1 parallelism=2 attempt=0
PINNED-STATE BRIEF-EMPTY subtask=2 parallelism=2 attempt=0
PINNED-STATE BRIEF-NUMBER number=1
PINNED-STATE BRIEF-NUMBER number=6
PINNED-STATE UNEVEN-EMPTY subtask=1 parallelism=2 attempt=0
PINNED-STATE UNEVEN-EMPTY subtask=2 parallelism=2 attempt=0
PINNED-STATE BALLAST-EMPTY subtask=2 parallelism=2 attempt=0
PINNED-STATE LEDGER-EMPTY subtask=1 parallelism=1 attempt=0
PINNED-STATE UNEVEN-CHECKPOINT subtask=1 numbers=0 again=0 gaps=0
PINNED-STATE UNEVEN-CHECKPOINT subtask=2 numbers=7 again=0 gaps=0
`

var held = job.Tally{Keys: 200, Numbers: 900, Digest: 3}

// restored is what restoredRun is to begin with.
func restored() job.Restore {
	options := job.InFiles()
	options.Finishing = true
	return job.Restore{Checkpoint: 4, Held: held, Options: options, InFlight: true}
}

func parse(t *testing.T, logs ...string) job.Report {
	t.Helper()
	report, err := job.Parse(strings.Split(strings.Join(logs, ""), "\n"))
	require.NoError(t, err)
	return report
}

func TestReportAddsUpTheSubtasks(t *testing.T) {
	report := parse(t, restoredRun)

	assert.Equal(t, job.Report{
		Attempts:    1,
		Restored:    4,
		Parallelism: 2,
		From:        []int64{4},
		Elements:    5400,
		Share:       held, // digests add up modulo 2^64
		Union:       []job.Tally{held, held},
		Broadcast:   []int{1500, 1500},
		First:       map[int]int{0: 450, 1: 470},
		Uneven:      job.Uneven{Restored: 2, Numbers: 80},
		Checkpoints: map[int64]job.Snapshot{5: {
			Subtasks:    2,
			Held:        job.Tally{Keys: 200, Numbers: 1100, Digest: 2},
			Found:       held,
			Timers:      200,
			EventTimers: 200,
			Read:        [2]int{460, 490}, // by every subtask
		}},
	}, report)
	assert.Equal(t, report.Checkpoints[5], report.Latest())
	inFlight, known := report.InFlight(held)
	assert.True(t, known)
	assert.Equal(t, 20, inFlight)
}

func TestReportOfARunThatStartedEmpty(t *testing.T) {
	report := parse(t, firstRun)

	assert.Equal(t, job.Report{
		Attempts:    1,
		Empty:       3,
		Parallelism: 1,
		First:       map[int]int{},
		Brief:       job.Brief{Started: 2, Numbers: 2},
		Uneven:      job.Uneven{Empty: 2, Numbers: 7},
		Checkpoints: map[int64]job.Snapshot{},
	}, report)
	assert.Equal(t, job.Snapshot{}, report.Latest())
}

func TestReportIsAboutTheLastAttempt(t *testing.T) {
	again := parse(t, restoredRun)
	again.Attempts = 2
	assert.Equal(t, again, parse(t, firstRun, restoredRun), "submitted anew: the attempts begin at 0 again")
	assert.Equal(t, again, parse(t, restoredRun, restoredRun))
	assert.Equal(t, again, parse(t, firstRun, strings.ReplaceAll(restoredRun, "attempt=0", "attempt=1")), "a failover")

	cutOff := "PINNED-STATE BALLAST-RESTORED subtask=1 parallelism=2 attempt=0 from=3 elements=2700\n"
	assert.Equal(t, again, parse(t, cutOff, strings.ReplaceAll(restoredRun, "attempt=0", "attempt=1")),
		"a failover before all subtasks had started")
}

func TestOperatorStateOfTwoCheckpointsShows(t *testing.T) {
	report := parse(t, "PINNED-STATE BALLAST-RESTORED subtask=1 parallelism=2 attempt=0 from=3,4 elements=1")

	assert.Equal(t, []int64{3, 4}, report.From)
}

func TestLogLinesThatAreNotUnderstoodAreErrors(t *testing.T) {
	for name, line := range map[string]string{
		"an unknown event":    "PINNED-STATE NEWS id=1",
		"an unknown operator": "PINNED-STATE NEWS-EMPTY subtask=1 parallelism=2 attempt=0",
		"a field is missing":  "PINNED-STATE BALLAST-RESTORED subtask=1 parallelism=2 attempt=0 from=4",
		"no subtask":          "PINNED-STATE BALLAST-EMPTY",
		"no list of ids":      "PINNED-STATE BALLAST-RESTORED subtask=1 parallelism=2 attempt=0 from= elements=2700",
		"a cut off line":      "PINNED-STATE CHECKPOINT id=5 keys=90 numbers=600 digest=",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := job.Parse([]string{line})
			assert.ErrorContains(t, err, line)
		})
	}
}

func TestOptionsAreSpelledAsTheJobReadsThem(t *testing.T) {
	source := string(job.Source())
	for _, options := range []job.Options{job.InFiles(), job.Inline(), job.InFiles().Slow(), {Finishing: true}} {
		args := options.Args()
		for i := 0; i < len(args); i += 2 {
			assert.Contains(t, source, `argument(args, "`+args[i]+`",`)
			assert.Regexp(t, `^\d+$`, args[i+1])
		}
	}
	assert.Equal(t, []string{"--slow-micros", "1000", "--finishing", "0"}, job.InFiles().Slow().Args()[10:])
	assert.Equal(t, []string{"--finishing", "1"}, job.Options{Finishing: true}.Args()[12:])
}
