package job_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/cmd/chkpin/e2e/job"
)

// One run: restored from checkpoint 4, then its own checkpoint 5, of which the second subtask has a lost number.
const restoredRun = `
12:00:01,000 INFO  CheckpointCoordinator [main] - Reset the checkpoint ID of job 00 to 5
12:00:01,200 INFO  PinnedState [ballast (1/2)#0] - PINNED-STATE BALLAST-RESTORED from=4 elements=2700
12:00:01,200 INFO  PinnedState [ballast (2/2)#0] - PINNED-STATE BALLAST-RESTORED from=4 elements=2700
12:00:01,300 INFO  PinnedState [ledger (1/2)#0] - PINNED-STATE LEDGER-RESTORED from=4 keys=200 numbers=900 digest=0000000000000003
12:00:01,300 INFO  PinnedState [ledger (2/2)#0] - PINNED-STATE LEDGER-RESTORED from=4 keys=200 numbers=900 digest=0000000000000003
12:00:02,000 INFO  PinnedState [ledger (1/2)#0] - PINNED-STATE CHECKPOINT id=5 keys=90 numbers=600 digest=ffffffffffffffff found.keys=90 found.numbers=400 found.digest=0000000000000001 missing=0 badBlobs=0 badMaps=0 gaps=0 timers=90
12:00:02,000 INFO  PinnedState [ledger (2/2)#0] - PINNED-STATE CHECKPOINT id=5 keys=110 numbers=500 digest=0000000000000003 found.keys=110 found.numbers=500 found.digest=0000000000000002 missing=0 badBlobs=0 badMaps=0 gaps=1 timers=110
`

func TestReportAddsUpTheSubtasks(t *testing.T) {
	report, err := job.Parse(strings.Split(restoredRun, "\n"))

	require.NoError(t, err)
	pinned := job.Tally{Keys: 200, Numbers: 900, Digest: 3}
	assert.Equal(t, job.Report{
		Restored: 4,
		From:     []int64{4},
		Elements: 5400,
		Expected: []job.Tally{pinned, pinned},
		Checkpoints: map[int64]job.Snapshot{5: {
			Subtasks: 2,
			Held:     job.Tally{Keys: 200, Numbers: 1100, Digest: 2}, // digests add up modulo 2^64
			Found:    pinned,
			Gaps:     1,
			Timers:   200,
		}},
	}, report)
	assert.Equal(t, report.Checkpoints[5], report.Latest())
}

func TestReportOfARunThatStartedEmpty(t *testing.T) {
	report, err := job.Parse([]string{"x - PINNED-STATE BALLAST-EMPTY", "x - PINNED-STATE LEDGER-EMPTY"})

	require.NoError(t, err)
	assert.Equal(t, 2, report.Empty)
	assert.Zero(t, report.Restored)
	assert.Empty(t, report.From)
	assert.Equal(t, job.Snapshot{}, report.Latest())
}

func TestOperatorStateOfTwoCheckpointsShows(t *testing.T) {
	report, err := job.Parse([]string{"PINNED-STATE BALLAST-RESTORED from=3,4 elements=1"})

	require.NoError(t, err)
	assert.Equal(t, []int64{3, 4}, report.From)
}

func TestLogLinesThatAreNotUnderstoodAreErrors(t *testing.T) {
	for name, line := range map[string]string{
		"an unknown event":   "PINNED-STATE NEWS id=1",
		"a field is missing": "PINNED-STATE BALLAST-RESTORED from=4",
		"no list of ids":     "PINNED-STATE BALLAST-RESTORED from= elements=2700",
		"a cut off line":     "PINNED-STATE CHECKPOINT id=5 keys=90 numbers=600 digest=",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := job.Parse([]string{line})
			assert.ErrorContains(t, err, line)
		})
	}
}
