package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
)

// The tick decides the exit code; if it went well, the worst of its replicas.
func TestVerdictOfReplicas(t *testing.T) {
	app := blobstore.MustParse("file:///second/app")
	late := func(err error) checkpoint.Replica {
		return checkpoint.Replica{App: app, Err: fmt.Errorf("%w: %s: %w", checkpoint.ErrBehind, app, err)}
	}
	fine := checkpoint.Replica{App: app, Result: checkpoint.ResultUnchanged}
	away := &blobstore.Error{Op: "put", URI: app, Err: blobstore.ErrPermission}
	heldUp := &checkpoint.HeldError{Reason: "it started empty"}
	for _, c := range []struct {
		tick     error
		replicas []checkpoint.Replica
		want     outcome
		says     []string
	}{
		{nil, nil, done, nil},
		{nil, []checkpoint.Replica{fine}, done, nil},
		{nil, []checkpoint.Replica{fine, late(checkpoint.ErrOccupied)}, refused, []string{"the replica is behind"}},
		{nil, []checkpoint.Replica{late(checkpoint.ErrOccupied), late(away)}, denied, []string{"holds something else", "permission denied"}},
		{heldUp, []checkpoint.Replica{late(away)}, held, []string{"it started empty", "permission denied"}},
	} {
		err := both(c.tick, behind(t.Context(), c.replicas))
		assert.Equal(t, c.want, verdictOf(t.Context(), err).outcome, "%v", err)
		for _, text := range c.says {
			require.ErrorContains(t, err, text)
		}
	}
}

// A first copy that is large runs out of time though nothing is wrong with the
// storage.
func TestReplicaOutOfTime(t *testing.T) {
	app := blobstore.MustParse("file:///second/app")
	cut := &blobstore.Error{Op: "copy", URI: app, Err: context.DeadlineExceeded}
	err := behind(t.Context(), []checkpoint.Replica{{App: app, Err: fmt.Errorf("%w: %s: %w: %w", checkpoint.ErrBehind, app, checkpoint.ErrReplicaTime, cut)}})
	assert.Equal(t, denied, verdictOf(t.Context(), err).outcome)
	assert.Contains(t, hintOf(err), "chkpin copy <app> <replica>")
}

// The metric counts the replicas that are behind, and stays where nobody looked.
func TestMetricOfReplicas(t *testing.T) {
	m := newMetrics()
	behind := checkpoint.Replica{Err: errors.New("503")}
	m.observe(checkpoint.Pinned{Replicas: []checkpoint.Replica{behind, {}, behind}}, verdict{outcome: done}, time.Second)
	assert.InDelta(t, 2, gaugeOf(t, m, "chkpin_replicas_behind"), 0)
	m.observe(checkpoint.Pinned{}, verdict{outcome: nothing}, time.Second)
	assert.InDelta(t, 2, gaugeOf(t, m, "chkpin_replicas_behind"), 0)
	m.observe(checkpoint.Pinned{Replicas: []checkpoint.Replica{{}}}, verdict{outcome: done}, time.Second)
	assert.InDelta(t, 0, gaugeOf(t, m, "chkpin_replicas_behind"), 0)
}

func gaugeOf(t *testing.T, m *metrics, name string) float64 {
	t.Helper()
	families, err := m.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	require.Fail(t, "no metric "+name)
	return 0
}
