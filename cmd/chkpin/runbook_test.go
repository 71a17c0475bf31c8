package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/checkpoint"
)

// The runbook has every exit code, with the messages that lead to it.
func TestRunbook(t *testing.T) {
	data, err := os.ReadFile("../../docs/kubernetes.md")
	require.NoError(t, err)
	_, runbook, found := strings.Cut(string(data), "\n## Runbook\n")
	require.True(t, found)
	runbook = strings.Join(strings.Fields(runbook), " ") // messages may be wrapped
	for _, o := range outcomes {
		heading := fmt.Sprintf(" ### Exit %d: ", o.code)
		if o == stopped {
			heading = " ### Exit 130, 143: "
		}
		assert.Contains(t, runbook, heading, o.meaning)
	}
	for message, want := range map[error]outcome{
		checkpoint.ErrDeadline:       failed,
		checkpoint.ErrNoCheckpoint:   nothing,
		checkpoint.ErrNotAddressable: nothing,
		checkpoint.ErrNoPin:          nothing,
		errCheckpointingOff:          nothing,
		checkpoint.ErrPinGone:        damaged,
		checkpoint.ErrNewer:          refused,
		checkpoint.ErrCollecting:     refused,
		checkpoint.ErrTooLarge:       refused,
		checkpoint.ErrTooOld:         refused,
		checkpoint.ErrOccupied:       refused,
		checkpoint.ErrInsideJob:      misused,
		checkpoint.ErrNested:         misused,
	} {
		assert.Equal(t, want, verdictOf(t.Context(), message).outcome, message)
		_, section, _ := strings.Cut(runbook, fmt.Sprintf(" ### Exit %d: ", want.code))
		section, _, _ = strings.Cut(section, " ### ")
		assert.Contains(t, section, message.Error())
	}
}
