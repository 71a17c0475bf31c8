package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Which shard has a target is part of how clusters are set up: it must not
// change with the version. Each has about as many as any other.
func TestShards(t *testing.T) {
	assert.True(t, target{Name: "orders"}.in(0, 4))
	assert.True(t, target{Name: "payments"}.in(2, 4))
	const shards, targets = 4, 500
	var found [shards]int
	for i := range targets {
		name := fmt.Sprintf("team-%d/app-%03d", i%7, i)
		for shard := range shards {
			if (target{Name: name}).in(shard, shards) {
				found[shard]++
			}
		}
	}
	total := 0
	for _, n := range found {
		assert.InDelta(t, targets/shards, n, targets/shards*0.25)
		total += n
	}
	assert.Equal(t, targets, total, "each is in one")
}

// A fleet asks for each target what a tick of it alone asks for, and nothing
// more: 2 requests to the cloud and 2 to its JobManager when nothing changed.
func TestCostOfAFleet(t *testing.T) {
	const targets = 20
	in := inS3(t)
	j := newCloudJob(t, in)
	var file strings.Builder
	file.WriteString("targets:\n")
	for i := range targets {
		fmt.Fprintf(&file, "- {name: app-%d, app: %s/app-%d, jobmanager: %q}\n", i, in.root, i, j.rest.URL)
	}
	name := filepath.Join(t.TempDir(), "targets.yaml")
	require.NoError(t, os.WriteFile(name, []byte(file.String()), 0o600))

	tick := func() string {
		j.cloud.Requests()
		j.rest.Requests()
		var out strings.Builder
		command, env, err := parse([]string{"pin", "--targets", name}, &out, os.Stderr)
		require.NoError(t, err)
		env.store = j.store
		require.NoError(t, command.Run(t.Context(), env))
		return out.String()
	}
	assert.Contains(t, tick(), "20 targets: 20 pinned\n")
	assert.Equal(t, "20 targets: 20 unchanged\n", tick())
	assert.Len(t, j.cloud.Requests(), 2*targets)
	assert.Len(t, j.rest.Requests(), 2*targets)
}
