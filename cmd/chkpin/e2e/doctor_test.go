//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/cmd/chkpin/e2e/lab"
)

// A misconfiguration is one fault of a cluster, and what chkpin doctor is to find.
type misconfiguration struct {
	release string
	name    string

	conf  map[string]string // Flink configuration that makes the fault
	entry []string          // arguments of the entry point that do; PIN stands for the pin

	finds []string // severity and check of all that is worse than info
	exit  int      // of chkpin doctor

	zooKeeper     bool // the cluster is highly available
	pinned        bool // a sound run of the job was pinned before
	noCheckpoints bool // the job takes none
	withConf      bool // chkpin doctor reads the cluster's configuration
	withManifest  bool // chkpin doctor reads a manifest that starts the cluster so
}

func (m misconfiguration) String() string { return "doctor/" + m.release + "/" + m.name }

const (
	exitNothing = 3
	exitUsage   = 80
)

var (
	deletedOnCancellation = map[string]string{"execution.checkpointing.externalized-checkpoint-retention": "DELETE_ON_CANCELLATION"}
	constantID            = []string{"--job-id", "0123456789abcdef0123456789abcdef"}
)

var faults = []misconfiguration{
	{release: "2.3.0", name: "retention", conf: deletedOnCancellation, finds: []string{"warning retention"}},
	{release: "2.3.0", name: "num-retained",
		conf:  map[string]string{"execution.checkpointing.num-retained": "1"},
		finds: []string{"warning num-retained"}},
	{release: "2.3.0", name: "jobmanager-storage",
		conf:  map[string]string{"execution.checkpointing.storage": "jobmanager", "execution.checkpointing.dir": ""},
		finds: []string{"error storage"}, exit: exitNothing},
	{release: "2.3.0", name: "checkpointing-off",
		conf:  map[string]string{"execution.checkpointing.interval": ""},
		finds: []string{"error checkpointing"}, exit: exitNothing, noCheckpoints: true},
	{release: "2.3.0", name: "constant-job-id", entry: constantID, finds: []string{"warning job-id"}},
	{release: "2.3.0", name: "changelog",
		conf:  map[string]string{"state.changelog.enabled": "true", "state.changelog.storage": "memory"},
		finds: []string{"error changelog"}, exit: exitUsage},
	{release: "2.3.0", name: "claim",
		conf:  map[string]string{"execution.state-recovery.claim-mode": "CLAIM"},
		finds: []string{"warning claim-mode"}, withConf: true},
	{release: "2.3.0", name: "entropy-unused",
		conf:  map[string]string{"s3.entropy.key": "_entropy_"},
		finds: []string{"warning entropy"}},
	{release: "2.3.0", name: "arguments",
		entry: []string{"--s3-uri", "s3://bucket", "--fromSavepoint", "PIN"},
		finds: []string{"error lineage", "error arguments"}, exit: exitHeld, pinned: true, withManifest: true},
	{release: "2.3.0", name: "high-availability", zooKeeper: true, finds: []string{"warning high-availability", "warning job-id"}},
	{release: "1.20.5", name: "retention", conf: deletedOnCancellation, finds: []string{"warning retention"}},
	{release: "1.20.5", name: "constant-job-id", entry: constantID, finds: []string{"warning job-id"}},
}

// chosenFaults are those that CHKPIN_E2E asks for.
func chosenFaults(t *testing.T) (chosen []misconfiguration) {
	pattern := cmp.Or(os.Getenv("CHKPIN_E2E"), everyday)
	if pattern == "all" {
		return faults
	}
	matching, err := regexp.Compile(pattern)
	require.NoError(t, err, "CHKPIN_E2E")
	for _, m := range faults {
		if matching.MatchString(m.String()) {
			chosen = append(chosen, m)
		}
	}
	return chosen
}

// sound is the configuration of a cluster that the doctor finds nothing wrong
// with: checkpoints live for long.
var sound = map[string]string{"execution.checkpointing.num-retained": "20"}

// TestDoctor runs chkpin doctor on clusters that have one fault each. It finds
// that one, and on a sound cluster of the same release nothing.
func TestDoctor(t *testing.T) {
	chosen := chosenFaults(t)
	if len(chosen) == 0 {
		return // CHKPIN_E2E asks for other tests
	}
	l, err := lab.Find()
	require.NoError(t, err)
	chkpin := buildChkpin(t)
	outcomes := new(table)
	var releases []cell
	for _, m := range chosen {
		c := cell{m.release, "hashmap", volume}
		if !slices.Contains(releases, c) {
			releases = append(releases, c)
			t.Run("doctor/"+m.release+"/sound", func(t *testing.T) {
				newStory(t, l, c, chkpin, outcomes).findsNothing()
			})
		}
		t.Run(m.String(), func(t *testing.T) {
			newStory(t, l, c, chkpin, outcomes).finds(m)
		})
	}
	outcomes.publish(t, releases)
}

func (s *story) findsNothing() {
	s.step("sound", func(ctx context.Context) string {
		s.conf = sound
		cluster := s.start()
		s.waitFilled(ctx, cluster)
		require.Equal(s, "pinned", s.pin(ctx, exitDone, cluster).Result)
		found := s.doctor(ctx, exitDone, cluster, "--flink-conf", cluster.ConfDir, "--manifest", s.manifest("--fromSavepoint", s.pinPath()))
		require.Contains(s, []string{"ok", "info"}, found.Worst, "%+v", found.Findings)
		require.NoError(s, cluster.Cancel(ctx))
		return fmt.Sprintf("%d findings, worst: %s", len(found.Findings), found.Worst)
	})
}

func (s *story) finds(m misconfiguration) {
	s.step(m.name, func(ctx context.Context) string {
		s.conf = maps.Clone(sound)
		if m.pinned {
			cluster := s.start()
			s.waitFilled(ctx, cluster)
			require.Equal(s, "pinned", s.pin(ctx, exitDone, cluster).Result)
			require.NoError(s, cluster.Cancel(ctx))
		}
		maps.Copy(s.conf, m.conf)
		if m.zooKeeper {
			maps.Copy(s.conf, s.highlyAvailable(ctx))
		}
		var entry []string
		for _, word := range m.entry {
			entry = append(entry, strings.Replace(word, "PIN", s.pinPath(), 1))
		}
		cluster := s.start(entry...)
		_, err := cluster.WaitRunning(ctx)
		require.NoError(s, err)
		if !m.noCheckpoints {
			_, err := cluster.WaitCheckpoints(ctx, 1)
			require.NoError(s, err)
		}
		var flags []string
		if m.withConf {
			flags = append(flags, "--flink-conf", cluster.ConfDir)
		}
		if m.withManifest {
			flags = append(flags, "--manifest", s.manifest(entry...))
		}
		found := s.doctor(ctx, m.exit, cluster, flags...)
		var worse []string // than info
		for _, f := range found.Findings {
			if f.Severity == "error" || f.Severity == "warning" {
				worse = append(worse, f.Severity+" "+f.Check)
				assert.NotEmpty(s, f.Evidence)
				assert.NotEmpty(s, f.Fix)
			}
		}
		require.Equal(s, m.finds, worse, "%+v", found.Findings)
		return "found: " + strings.Join(worse, ", ")
	})
}

// highlyAvailable is the configuration of a cluster that keeps what it recovers
// from in a ZooKeeper of its own.
func (s *story) highlyAvailable(ctx context.Context) map[string]string {
	s.Helper()
	zooKeeper, err := s.lab.StartZooKeeper(ctx, s.flink, filepath.Join(s.dir, "zookeeper"))
	require.NoError(s, err)
	s.Cleanup(zooKeeper.Stop)
	return map[string]string{
		"high-availability.type":             "zookeeper",
		"high-availability.zookeeper.quorum": zooKeeper.Address,
		"high-availability.storageDir":       s.root.Join("ha").String(),
	}
}

// diagnosis is chkpin doctor's JSON.
type diagnosis struct {
	Worst    string
	Findings []struct{ Check, Severity, Evidence, Fix string }
}

func (s *story) doctor(ctx context.Context, wantExit int, cluster *lab.Cluster, flags ...string) (found diagnosis) {
	s.Helper()
	args := append([]string{"doctor", s.app.String(), cluster.URL, "--output", "json"}, flags...)
	stdout := s.chkpin(ctx, wantExit, args...)
	require.NoError(s, json.Unmarshal([]byte(stdout), &found), stdout)
	for _, file := range s.files(ctx, s.app.Join("last-state")) {
		require.NotContains(s, file.Path(), "chkpin-doctor", "a probe was left behind")
	}
	return found
}

func (s *story) pinPath() string { return s.app.Join("last-state", "_metadata").String() }

// manifest writes a manifest that starts the job with these arguments for the
// entry point.
func (s *story) manifest(entry ...string) (file string) {
	s.Helper()
	words := append([]string{"standalone-job", "--job-classname", "PinnedState"}, entry...)
	args, err := json.Marshal(append(words, s.options.Args()...))
	require.NoError(s, err)
	file = filepath.Join(s.dir, "manifest.yaml")
	text := fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: orders}
spec: {template: {spec: {containers: [{name: jobmanager, image: "flink:2.3", args: %s}]}}}
`, args)
	require.NoError(s, os.WriteFile(file, []byte(text), 0o644))
	return file
}
