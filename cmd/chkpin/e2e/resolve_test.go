//go:build e2e

package e2e

import (
	"context"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/cmd/chkpin/e2e/job"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/lab"
)

// resolvedFormsRestore: whatever form chkpin says it in, the release understands what to start from. A name that it
// does not know would be ignored, and the job would start empty.
func resolvedFormsRestore(s *story) {
	var first pinned
	var held job.Tally
	version := []string{"--flink-version", s.cell.release}
	s.step("run, pin", func(ctx context.Context) string {
		cluster := s.start()
		s.waitFilled(ctx, cluster)
		first = s.pin(ctx, exitDone, cluster)
		held = s.heldAt(cluster, first.CheckpointID)
		s.cancelAndDelete(ctx, cluster)
		return "pinned"
	})
	restores := func(ctx context.Context, cluster *lab.Cluster) string {
		s.requireRestored(ctx, cluster, first.CheckpointID, held)
		pin := s.lastState(ctx)
		_, err := cluster.WaitCheckpoints(ctx, 1)
		require.NoError(s, err)
		require.Equal(s, pin, s.lastState(ctx), "Flink changed the pin it started from")
		require.NoError(s, cluster.Cancel(ctx))
		return "restored"
	}

	// Without --flink-version chkpin takes names that suit many releases; flink run of 1.14 has no restore mode.
	for _, flags := range [][]string{nil, version} {
		how := strings.Join(append([]string{""}, flags...), " ")
		s.step("settings"+how, func(ctx context.Context) string {
			text := s.chkpin(ctx, exitDone, append([]string{"resolve", s.app.String(), "--format", "conf"}, flags...)...)
			return restores(ctx, s.startAs(func(o *lab.Options) { o.Conf = settings(s, text) }))
		})
		if flags == nil && strings.HasPrefix(s.cell.release, "1.14.") {
			continue
		}
		s.step("flink run"+how, func(ctx context.Context) string {
			cluster := s.startAs(func(o *lab.Options) { o.Job = lab.Job{} })
			require.NoError(s, cluster.WaitReady(ctx))
			args := s.chkpin(ctx, exitDone, append([]string{"resolve", s.app.String(), "--format", "flink-run"}, flags...)...)
			require.NoError(s, cluster.Submit(ctx, s.job(), strings.Fields(args)...))
			return restores(ctx, cluster)
		})
	}
	s.step("exec flink run", func(ctx context.Context) string {
		cluster := s.startAs(func(o *lab.Options) { o.Job = lab.Job{} })
		require.NoError(s, cluster.WaitReady(ctx))
		command := append([]string{"--", cluster.CLI, "run", "-d", "-c", job.Class, s.jar}, s.options.Args()...)
		s.chkpin(ctx, exitDone, slices.Concat([]string{"exec", s.app.String()}, version, command)...)
		return restores(ctx, cluster)
	})
}

// settings reads lines of Flink's configuration.
func settings(s *story, text string) map[string]string {
	conf := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, found := strings.Cut(strings.TrimSpace(line), ": ")
		require.True(s, found, line)
		conf[key] = value
	}
	return conf
}
