package main

import (
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/cmd/chkpin/flinkconf"
	"github.com/chkpin/chkpin/cmd/chkpin/manifest"
	"github.com/chkpin/chkpin/cmd/chkpin/sample"
	"github.com/chkpin/chkpin/flinkjob"
	"github.com/chkpin/chkpin/flinkrest"
)

// examined is a job that is pinned, as the doctor sees it, with nothing wrong: all
// that the recording of it shows is set right.
func examined(t *testing.T) *patient {
	t.Helper()
	dir := t.TempDir()
	s, err := sample.Unpack(filepath.Join(dir, "checkpoints"))
	require.NoError(t, err)
	jm, err := s.JobManager()
	require.NoError(t, err)
	server := httptest.NewServer(jm)
	t.Cleanup(server.Close)
	app := "file://" + dir + "/app"
	for _, args := range [][]string{{"pin", app, server.URL}, {"doctor", app, server.URL}} {
		command, env, err := parse(args, io.Discard, io.Discard)
		require.NoError(t, err)
		doctor, ok := command.(*doctorCommand)
		if !ok {
			require.NoError(t, command.Run(t.Context(), env))
			continue
		}
		p, err := doctor.examine(t.Context(), env)
		require.NoError(t, err)
		p.now, p.cluster.answered = p.cluster.job.Now, p.cluster.job.Now // the recording is older than this test
		p.set("execution.checkpointing.num-retained", "20")
		return p
	}
	return nil
}

// clone is p with what tests change apart.
func (p *patient) clone() *patient {
	q, c := *p, *p.cluster
	newest := *c.stats.LatestCompleted
	c.stats.LatestCompleted = &newest
	q.cluster = &c
	q.pin.Generations = slices.Clone(p.pin.Generations)
	q.settings = slices.Clone(p.settings)
	return &q
}

// merge has the job merge files across checkpoints in a folder.
func merge(p *patient, checkpoints string) {
	p.settings[0] = settingsFrom{fromJobManager, flinkconf.Of(map[string]string{
		"execution.target":                                                "embedded",
		"execution.checkpointing.dir":                                     checkpoints,
		"execution.checkpointing.num-retained":                            "20",
		"execution.checkpointing.file-merging.enabled":                    "true",
		"execution.checkpointing.file-merging.across-checkpoint-boundary": "true",
	})}
}

// set is a setting that the JobManager shows. "" leaves it out.
func (p *patient) set(key, value string) {
	values := map[string]string{key: value}
	for _, k := range []string{"execution.target", "execution.checkpointing.dir", "execution.checkpointing.num-retained"} {
		if v := p.settings[0].Get(k); k != key {
			values[k] = v
		}
	}
	p.settings[0] = settingsFrom{fromJobManager, flinkconf.Of(values)}
}

func (p *patient) start(s manifest.Start) {
	s.Where = "Deployment orders, container jobmanager"
	p.manifest = &manifest.Manifest{Starts: []manifest.Start{s}}
}

// replicate gives the pin a replica that is so far behind.
func (p *patient) replicate(lag time.Duration) {
	r := replicaFacts{app: blobstore.MustParse("file:///second"), pin: p.pin}
	r.pin.Record.Generation = "00000000-chk-1"
	r.pin.Record.Checkpoint.Triggered = r.pin.Record.Checkpoint.Triggered.Add(-lag)
	r.pin.Record.Origin = &checkpoint.Origin{App: p.app.String(), SHA256: "of an earlier one"}
	p.replicas = []replicaFacts{r}
}

// one is the finding of a check that there is to be.
func one(t *testing.T, findings []finding, check string) finding {
	t.Helper()
	for _, f := range findings {
		if f.Check == check {
			return f
		}
	}
	require.Fail(t, "no finding", "%s in %+v", check, findings)
	return finding{}
}

func TestAHealthyPatient(t *testing.T) {
	findings := diagnose(examined(t))
	for _, f := range findings {
		assert.Equal(t, healthy, f.Severity, "%+v", f)
	}
	require.NoError(t, verdictOn(findings))
	assert.GreaterOrEqual(t, len(findings), 14)
}

func TestFilesMergedAcrossCheckpointsAreFineOnAVolume(t *testing.T) {
	p := examined(t).clone()
	merge(p, "file:///x")
	assert.Equal(t, healthy, one(t, diagnose(p), "merging").Severity)

	merge(p, "")
	assert.Empty(t, mergedFilesAreThere(p), "where they are is not known")
}

// Each fault, what the doctor calls it, and how the command ends.
func TestFindings(t *testing.T) {
	healthy := examined(t)
	expired := blobstore.LifecycleRule{ID: "tidy", Prefix: "app/", DeletesAfter: 30}
	for name, c := range map[string]struct {
		harm     func(p *patient)
		check    string
		severity severity
		evidence string
		exit     outcome
	}{
		"no pin yet": {func(p *patient) { p.pin = checkpoint.Survey{PinErr: blobstore.ErrNotExist} },
			"pin", noted, "nothing was ever pinned", done},
		"the pin is gone": {func(p *patient) { p.pin.Pin, p.pin.PinErr = nil, blobstore.ErrNotExist },
			"pin", severe, "state was pinned here once", damaged},
		"the pin is damaged": {func(p *patient) { p.pin.PinErr = &checkpoint.DamagedError{URI: "x", Missing: []string{"y"}} },
			"pin", severe, "1 file missing: y", damaged},
		"the pin cannot be read": {func(p *patient) { p.pin.PinErr = &blobstore.Error{Op: "open", Err: blobstore.ErrPermission} },
			"pin", severe, "permission denied", denied},
		"a generation is damaged": {func(p *patient) { p.pin.Generations[0].Err = &checkpoint.DamagedError{} },
			"generations", doubtful, "1 of 1 generation cannot be restored: 00000001-chk-6", done},
		"on hold": {func(p *patient) { p.pin.Hold = &checkpoint.Hold{Reason: "rolled back"} },
			"hold", doubtful, "on hold: rolled back", done},
		"a hold that cannot be read": {func(p *patient) { p.pin.HoldErr = errors.New("not a record") },
			"hold", doubtful, "not a record", done},
		"the job started empty": {func(p *patient) { p.tickErr = &checkpoint.HeldError{Reason: "it started empty"} },
			"lineage", severe, "held: it started empty", held},
		"another chkpin": {func(p *patient) { p.tickErr = checkpoint.ErrNewer },
			"lineage", doubtful, "the pin is newer", done},
		"the script's _metadata": {func(p *patient) { p.pin.Foreign = true }, "foreign", doubtful, "was not written by chkpin", done},
		"a tick was killed":      {func(p *patient) { p.pin.Described = false }, "foreign", noted, "does not describe", done},
		"the pin lags": {func(p *patient) { p.pin.Record.Checkpoint.Triggered = p.now.Add(-time.Hour) },
			"pin-age", doubtful, "behind the job by 59m58s", done},
		"two jobs, one pin": {func(p *patient) {
			for i, id := range []string{"b", "a"} {
				g := p.pin.Generations[0]
				g.Name, g.Record.Run.JobID = fmt.Sprintf("0000000%d-chk-6", 3-i), id
				p.pin.Generations = append(p.pin.Generations, g)
			}
			p.pin.Generations[0].Record.Run.JobID = "a"
		}, "writers", doubtful, "generations of job b and of job a alternate", done},
		"a run was held": {func(p *patient) { p.pin.Record.Held = []checkpoint.Run{{JobID: "b"}} },
			"writers", noted, "a run of job b, started 1970-01-01T00:00:00Z, did not come from the pin", done},
		"a collection is at work": {func(p *patient) {
			p.pin.Collections = []blobstore.Object{{ModTime: p.probe.modTime.Add(-time.Minute)}}
		}, "writers", noted, "at work, since 1m0s", done},
		"a collection was killed": {func(p *patient) {
			p.pin.Collections = []blobstore.Object{{ModTime: p.probe.modTime.Add(-time.Hour)}}
		}, "writers", noted, "was killed 1h0m0s ago", done},

		"no right to list":    {func(p *patient) { p.closed = storeError("list") }, "permissions", severe, "list s3:", denied},
		"no right to write":   {func(p *patient) { p.probe.write = storeError("put") }, "permissions", severe, "put s3:", denied},
		"no right to read":    {func(p *patient) { p.probe.read = storeError("open") }, "permissions", severe, "open s3:", denied},
		"no right to delete":  {func(p *patient) { p.probe.remove = storeError("delete") }, "permissions", severe, "delete s3:", denied},
		"conditions are vain": {func(p *patient) { p.probe.unconditional = true }, "permissions", doubtful, "ignores conditions", done},
		"pins expire":         {func(p *patient) { p.rules = storeRules{lifecycle: []blobstore.LifecycleRule{expired}} }, "lifecycle", severe, `rule "tidy" on keys below "app/" deletes after 30 days`, misused},
		"some objects expire": {func(p *patient) {
			r := expired
			r.Narrowed = true
			p.rules = storeRules{lifecycle: []blobstore.LifecycleRule{r}}
		}, "lifecycle", doubtful, "tags or sizes", done},
		"pins go to the vault": {func(p *patient) {
			p.rules = storeRules{lifecycle: []blobstore.LifecycleRule{{Archive: "GLACIER", ArchivesAfter: 7}}}
		}, "lifecycle", doubtful, "to GLACIER after 7 days", done},
		"rules are secret":     {func(p *patient) { p.rules = storeRules{lifecycleErr: storeError("read lifecycle of")} }, "lifecycle", noted, "could not be read", done},
		"versions pile up":     {func(p *patient) { p.rules = storeRules{versioned: true} }, "versioning", noted, "goes on costing", done},
		"versioning is secret": {func(p *patient) { p.rules = storeRules{versionedErr: storeError("read versioning of")} }, "versioning", noted, "could not be read", done},
		"the store's clock":    {func(p *patient) { p.probe.modTime = p.probe.written.Add(time.Hour) }, "clocks", doubtful, "the clock of the store differs from ours by 1h0m0s", done},
		"the cluster's clock":  {func(p *patient) { p.cluster.answered = p.now.Add(5 * time.Minute) }, "clocks", doubtful, "the clock of the JobManager differs from ours by 5m0s", done},

		"no JobManager":     {func(p *patient) { p.cluster = nil }, "jobmanager", noted, "no JobManager was named", done},
		"no configuration":  {func(p *patient) { p.cluster.confErr, p.settings = flinkrest.ErrUnavailable, nil }, "jobmanager", noted, "does not show its configuration", done},
		"it is down":        {func(p *patient) { p.cluster.err = flinkrest.ErrUnavailable }, "jobmanager", severe, "no usable answer", unreachable},
		"no job":            {func(p *patient) { p.cluster.jobErr = &flinkjob.NoJobError{URL: "http://jm"} }, "job", severe, "no live job at http://jm", nothing},
		"several jobs":      {func(p *patient) { p.cluster.jobErr = &flinkjob.AmbiguousError{URL: "http://jm"} }, "job", severe, "live jobs at http://jm", ambiguous},
		"it restarts":       {func(p *patient) { p.cluster.job.State = flinkrest.Restarting }, "job", doubtful, "is RESTARTING", done},
		"checkpointing off": {func(p *patient) { p.cluster.statsErr = flinkjob.ErrCheckpointingOff }, "checkpointing", severe, "checkpointing is off", nothing},
		"no interval":       {func(p *patient) { p.cluster.config.Interval = 0 }, "checkpointing", severe, "no checkpoint comes by itself", nothing},
		"a long interval": {func(p *patient) { p.cluster.config.Interval = 6 * time.Hour },
			"checkpointing", noted, "every 6h0m0s only", done},
		"checkpoints fail": {func(p *patient) {
			p.cluster.stats.LatestFailed = &flinkrest.Checkpoint{ID: 7, Failure: "expired\nat Java"}
		}, "checkpointing", doubtful, "checkpoint 7 failed: expired", done},
		"checkpoints stopped": {func(p *patient) { p.cluster.job.Now = p.cluster.job.Now.Add(time.Hour) },
			"checkpointing", doubtful, "is 1h0m2s old, although", done},
		"no checkpoint yet": {func(p *patient) { p.cluster.stats.LatestCompleted, p.cluster.stats.LatestFailed = nil, nil },
			"checkpointing", noted, "no checkpoint completed yet", done},
		"JobManager storage": {func(p *patient) {
			p.cluster.stats.LatestCompleted.ExternalPath = "<checkpoint-not-externally-addressable>"
		},
			"storage", severe, "have no path", nothing},
		"state in the heap": {func(p *patient) { p.cluster.config.Storage = "JobManagerCheckpointStorage" },
			"storage", doubtful, "5 MiB", done},
		"a format of tomorrow": {func(p *patient) { p.source.err = unknownVersion(t) }, "format", severe, "unknown format version", damaged},
		"a damaged source":     {func(p *patient) { p.source.err = &checkpoint.DamagedError{URI: "x"} }, "format", severe, "x does not restore", damaged},
		"the volume is another": {func(p *patient) { p.source = sourceFacts{err: blobstore.ErrNotExist, empty: true} },
			"source", severe, "nothing is there on this machine", nothing},
		"the source is secret": {func(p *patient) { p.source.err = storeError("open") }, "source", severe, "open s3:", denied},
		"app inside the job":   {func(p *patient) { p.app = p.cluster.newest.Path.Dir().Join("app") }, "app", severe, "lies inside", misused},

		"deleted on cancellation": {func(p *patient) { p.cluster.config.DeletedOnCancellation = true },
			"retention", doubtful, "when it is cancelled (DELETE_ON_CANCELLATION)", done},
		"never retained": {func(p *patient) { p.cluster.config.Retained = false },
			"retention", doubtful, "NO_EXTERNALIZED_CHECKPOINTS", done},
		"deleted, says the file": {func(p *patient) {
			p.cluster = nil
			p.settings = []settingsFrom{{"Flink's configuration file", flinkconf.Of(map[string]string{"execution.checkpointing.externalized-checkpoint-retention": "DELETE_ON_CANCELLATION"})}}
		}, "retention", doubtful, "by Flink's configuration file", done},
		"one is retained": {func(p *patient) { p.set("execution.checkpointing.num-retained", "") },
			"num-retained", doubtful, "deletes a checkpoint after 2s (num-retained 1", done},
		"a session cluster": {func(p *patient) { p.set("execution.target", "") },
			"num-retained", noted, "-D…num-retained is ignored in a session cluster", done},
		"high availability": {func(p *patient) { p.set("high-availability.type", "kubernetes") },
			"high-availability", doubtful, "ignores --fromSavepoint", done},
		"constant job id": {func(p *patient) { p.set(jobIDKey, "00ff") }, "job-id", doubtful, "constant (00ff, by the JobManager", done},
		"a derived id":    {func(p *patient) { p.cluster.job.ID = "000000006e6b1332" + derivedID }, "job-id", doubtful, "as high availability makes it", done},
		"--job-id":        {func(p *patient) { p.start(manifest.Start{JobID: "00ff", ByChkpin: true}) }, "job-id", doubtful, "constant (00ff, by Deployment orders", done},
		"runs of one id": {func(p *patient) {
			p.pin.Record.Previous = []checkpoint.Run{{JobID: p.pin.Record.Run.JobID, Started: 1}}
		}, "job-id", noted, "had the same job id", done},
		"numbers are taken": {func(p *patient) { p.source.ahead = []int64{9, 8} }, "numbering", doubtful, "chk-9, chk-8 of an earlier run lie beside the newest checkpoint, chk-6", done},
		"changelog":         {func(p *patient) { p.cluster.config.Changelog = true }, "changelog", severe, "fails at its first checkpoint after a restore", misused},
		"changelog, session": {func(p *patient) { p.cluster.config.Changelog = true; p.set("execution.target", "") },
			"changelog", doubtful, "in CLAIM mode only", done},
		"files merged across checkpoints": {func(p *patient) { merge(p, "s3://b/x") }, "merging", severe, "cannot be restored yet", misused},
		"entropy without a mark":          {func(p *patient) { p.set("s3.entropy.key", "_entropy_") }, "entropy", doubtful, "does not use it", done},
		"a mark without entropy":          {func(p *patient) { p.set("execution.checkpointing.dir", "s3://b/_entropy_/x") }, "entropy", doubtful, "taken literally", done},
		"entropy in the app":              {func(p *patient) { p.set("s3.entropy.key", "/app") }, "entropy", severe, "another path than chkpin writes", misused},
		"CLAIM, in force": {func(p *patient) { p.set("execution.state-recovery.claim-mode", "CLAIM") },
			"claim-mode", severe, "the JobManager's configuration says CLAIM: Flink then deletes the pin", misused},
		"CLAIM, in a file": {func(p *patient) {
			p.settings = append(p.settings, settingsFrom{fromFile, flinkconf.Of(map[string]string{"execution.savepoint-restore-mode": "CLAIM"})})
		}, "claim-mode", severe, "Flink's configuration file says CLAIM", misused},
		"CLAIM, overridden": {func(p *patient) {
			p.set("execution.state-recovery.claim-mode", "NO_CLAIM")
			p.settings = append(p.settings, settingsFrom{fromFile, flinkconf.Of(map[string]string{"execution.state-recovery.claim-mode": "claim"})})
		}, "claim-mode", doubtful, "overrides it with NO_CLAIM", done},
		"CLAIM, before a standalone start": {func(p *patient) {
			p.start(manifest.Start{Action: "standalone-job", ByChkpin: true})
			p.settings = append(p.settings, settingsFrom{fromManifest, flinkconf.Of(map[string]string{"execution.savepoint-restore-mode": "CLAIM"})})
		}, "claim-mode", doubtful, "the manifest says CLAIM", done},
		"--claimMode CLAIM": {func(p *patient) { p.start(manifest.Start{Action: "run", ClaimMode: "CLAIM"}) },
			"claim-mode", severe, "Deployment orders, container jobmanager restores in CLAIM mode", misused},

		"a replica, late":                   {func(p *patient) { p.replicate(20 * time.Minute) }, "replicas", doubtful, "is behind the pin by 20m0s: it has 00000000-chk-1, ", done},
		"a replica, a tick behind":          {func(p *patient) { p.replicate(time.Minute) }, "replicas", noted, "is behind the pin by 1m0s", done},
		"a replica, ahead":                  {func(p *patient) { p.replicate(-time.Minute) }, "replicas", doubtful, "has 00000000-chk-1, ", done},
		"a replica that may not be written": {func(p *patient) { p.replicate(0); p.replicas[0].probe.write = storeError("put") }, "replicas", severe, "replica file:///second: ", denied},
		"a replica of another":              {func(p *patient) { p.replicate(0); p.replicas[0].pin.Record.Origin.App = "file:///other" }, "replicas", severe, "it is no copy of", refused},

		"the pin goes to the job": {func(p *patient) {
			p.start(manifest.Start{Action: "standalone-job", Stopped: "--password=secret", Rest: []string{"--fromSavepoint", "s3://x"}})
		}, "arguments", severe, `stops reading at "--password", so that --fromSavepoint goes to the job and not to Flink: it starts without state`, misused},
		"settings go to the job": {func(p *patient) {
			p.start(manifest.Start{Action: "standalone-job", RestorePath: p.layout.Metadata.String(), Stopped: "--s3-uri", Rest: []string{"x", "-Ds3.secret-key=secret"}})
		}, "arguments", doubtful, "-Ds3.secret-key goes to the job", done},
		"nothing starts": {func(p *patient) { p.manifest = &manifest.Manifest{} }, "arguments", doubtful, "nothing in the manifest starts a Flink job", done},
		"another pin":    {func(p *patient) { p.start(manifest.Start{RestorePath: "s3://other/last-state/_metadata"}) }, "restore-path", severe, "is not the pin of", misused},
		"no pin at all":  {func(p *patient) { p.start(manifest.Start{Action: "standalone-job"}) }, "restore-path", severe, "starts without state at every deployment", misused},
		"the operator's": {func(p *patient) { p.start(manifest.Start{Action: "FlinkDeployment", UpgradeMode: "last-state"}) },
			"restore-path", noted, "goes on from what the operator keeps", done},
		"a stateless deployment": {func(p *patient) { p.start(manifest.Start{Action: "FlinkDeployment"}) },
			"restore-path", severe, "starts without state", misused},
		"a path among the operator's args": {func(p *patient) {
			p.start(manifest.Start{Action: "FlinkDeployment", Rest: []string{"--fromSavepoint", "s3://x"}})
		}, "arguments", severe, "all of spec.job.args goes to the job, with --fromSavepoint", misused},
		"twice": {func(p *patient) { p.start(manifest.Start{ByChkpin: true, RestorePath: p.layout.Metadata.String()}) },
			"restore-path", severe, "refuses a command that says already what to restore", misused},
		"chkpin of another": {func(p *patient) {
			p.start(manifest.Start{ByChkpin: true})
			p.manifest.Calls = []manifest.Call{{Where: "CronJob pin, container chkpin", Args: []string{"pin"}, App: "s3://other"}}
		}, "restore-path", severe, "CronJob pin, container chkpin: chkpin pin is given s3://other, not file:", misused},
	} {
		t.Run(name, func(t *testing.T) {
			p := healthy.clone()
			c.harm(p)
			findings := diagnose(p)
			f := one(t, findings, c.check)
			assert.Equal(t, c.severity, f.Severity)
			assert.Contains(t, f.Evidence, c.evidence)
			assert.NotEmpty(t, f.Fix)
			assert.NotContains(t, f.Evidence+f.Fix, "secret ")
			assert.Equal(t, c.exit.code, verdictOf(t.Context(), verdictOn(findings)).code)
		})
	}
}

func storeError(op string) error {
	return &blobstore.Error{Op: op, URI: blobstore.MustParse("s3://bucket/app"), Err: blobstore.ErrPermission}
}

// unknownVersion is what a checkpoint of a later Flink gives.
func unknownVersion(t *testing.T) error {
	t.Helper()
	store := blobstore.NewFile()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "_metadata"), []byte{0x49, 0x60, 0x67, 0x2d, 0, 0, 0, 99}, 0o666))
	_, err := checkpoint.Load(t.Context(), store, blobstore.MustParse("file://"+dir), checkpoint.LoadOptions{})
	require.Error(t, err)
	return err
}

// docs/doctor.md has a section for each check, in the order of the table, and for
// nothing else.
func TestEveryCheckIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/doctor.md")
	require.NoError(t, err)
	var documented, known []string
	for _, m := range regexp.MustCompile(`(?m)^### (\S+)$`).FindAllSubmatch(text, -1) {
		documented = append(documented, string(m[1]))
	}
	for _, c := range checks {
		known = append(known, c.name)
	}
	assert.Equal(t, known, documented)
}
