package main

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/flinkjob"
	"github.com/chkpin/chkpin/flinkrest"
)

// The checks of the JobManager, the job, and how they are configured.

func jobManagerAnswers(p *patient) []finding {
	c := p.cluster
	switch {
	case c == nil:
		return notice("name its URL after <app>, or give --flink-conf", "no JobManager was named: what only it can tell was not looked at")
	case c.err != nil:
		return fault(c.err, "is the URL right and the JobManager up? What only it can tell was not looked at")
	}
	if c.confErr != nil {
		return notice("let whoever is in between pass /jobmanager/config on, or give --flink-conf", "Flink %s at %s does not show its configuration: %v", orDash(c.version.Flink), c.url, c.confErr)
	}
	if len(c.untold) > 0 {
		return notice("let whoever is in between pass these on, too: ticks do without", "Flink %s at %s does not tell all that there is to look at: %v", orDash(c.version.Flink), c.url, errors.Join(c.untold...))
	}
	mode := "application mode"
	if p.session() {
		mode = "a session cluster"
	}
	return fine("Flink %s, %s, at %s", orDash(c.version.Flink), mode, c.url)
}

func jobIsOne(p *patient) []finding {
	c := p.cluster
	switch {
	case c == nil || c.err != nil:
		return nil
	case as[*flinkjob.NoJobError](c.jobErr):
		return fault(c.jobErr, "is the job running, and is this its JobManager?")
	case c.jobErr != nil:
		return fault(c.jobErr, "")
	case c.job.State != flinkrest.Running:
		// Measured on 1.20.5 and 2.3.0: with the default restart strategy, a job whose
		// state files are missing restarts for ever.
		return doubt("look at the JobManager's exceptions: a job that cannot restore its state restarts for ever", "job %s %q is %s", c.job.ID, c.job.Name, c.job.State)
	}
	return fine("job %s %q is running since %s", c.job.ID, c.job.Name, c.job.Start.Format(time.RFC3339))
}

// longInterval is from when on the interval is worth a word.
const longInterval = time.Hour

func checkpointsComplete(p *patient) []finding {
	c := p.asked()
	if c == nil {
		return nil
	}
	interval, every := c.config.Interval, fmt.Sprintf("every %s", c.config.Interval)
	newest := c.stats.LatestCompleted
	failed := c.stats.LatestFailed
	switch {
	case c.statsErr != nil:
		return fault(c.statsErr, "")
	case c.configHidden && newest != nil:
		return fine("the newest checkpoint, %d, is %s old", newest.ID, c.age(newest).Round(time.Second))
	case c.configHidden:
		return notice("wait for the first one", "no checkpoint completed yet")
	case interval == 0:
		return fault(fmt.Errorf("job %s: %w: no checkpoint comes by itself", c.job.ID, flinkjob.ErrCheckpointingOff), "")
	case c.starting:
		return notice("look again in a moment", "the JobManager does not tell yet what became of checkpoints: the job, or the JobManager, is only starting")
	case failed != nil && (newest == nil || failed.ID > newest.ID):
		return doubt("look at the JobManager's checkpoint page; the pin stays at what completed last", "checkpoint %d failed: %s", failed.ID, orDash(firstLineOf(failed.Failure)))
	case newest == nil:
		return notice("wait for the first one", "no checkpoint completed yet; one is due %s", every)
	case c.age(newest) > 3*interval+c.config.Timeout:
		return doubt("look at the JobManager's checkpoint page: is one in progress for long?", "the newest checkpoint, %d, is %s old, although one is due %s", newest.ID, c.age(newest).Round(time.Second), every)
	case interval > longInterval:
		return notice("a shorter interval repeats less after a restart; incremental checkpoints keep it cheap", "a checkpoint is taken %s only: a start from the pin repeats up to that", every)
	}
	return fine("checkpoints %s; the newest, %d, is %s old", every, newest.ID, c.age(newest).Round(time.Second))
}

// age of a checkpoint by the JobManager's clock alone, unless it does not tell it.
func (c *clusterFacts) age(of *flinkrest.Checkpoint) time.Duration {
	return cmp.Or(c.job.Now, c.answered).Sub(of.Triggered)
}

func firstLineOf(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// heapStorage is what REST calls the storage that keeps state in the JobManager's
// heap (1.13 to 2.3). With a checkpoint folder, it puts all state into _metadata.
const heapStorage = "JobManagerCheckpointStorage"

func checkpointsHaveAPath(p *patient) []finding {
	c := p.asked()
	switch {
	case c == nil || c.statsErr != nil:
		return nil
	case c.stats.LatestCompleted != nil && !c.stats.LatestCompleted.ExternalPath.Addressable():
		return fault(fmt.Errorf("job %s: %w", c.job.ID, checkpoint.ErrNotAddressable), "")
	case c.config.Storage == heapStorage:
		// JobManagerCheckpointStorage.DEFAULT_MAX_STATE_SIZE, 1.13 to 2.3.
		return doubt("set execution.checkpointing.storage: filesystem (state.checkpoint-storage before 1.20)",
			"state is kept in the JobManager's heap: checkpoints fail once a state grows over 5 MiB")
	case c.newest == nil:
		return nil
	}
	return fine("checkpoints are in %s", c.newest.Path.Dir())
}

func appIsBesideTheJob(p *patient) []finding {
	if c := p.asked(); c != nil && c.newest != nil && p.app.Within(c.newest.Path.Dir()) {
		return fault(fmt.Errorf("%w: %s", checkpoint.ErrInsideJob, c.newest.Path.Dir()), "")
	}
	return nil
}

func sourceIsReadable(p *patient) []finding {
	c := p.asked()
	if c == nil || c.newest == nil {
		return nil
	}
	at, err := c.newest.Path, p.source.err
	switch {
	case errors.Is(err, blobstore.ErrNotExist) && p.source.empty && at.Family() == blobstore.FamilyFile:
		return fault(fmt.Errorf("the JobManager writes to %s, and nothing is there on this machine: %w", at.Dir(), err),
			"mount the volume of the checkpoints here at the same path; state handles on a volume are absolute")
	case errors.Is(err, blobstore.ErrNotExist) && p.source.empty:
		return fault(fmt.Errorf("the JobManager writes to %s, and nothing is there: %w", at.Dir(), err), "is this the service that the cluster writes to? --flink-conf reaches it as the cluster does")
	case errors.Is(err, blobstore.ErrNotExist): // Flink has deleted it meanwhile
		return nil
	case err == nil && at.Family() != p.app.Family():
		return notice("an <app> in the storage of the checkpoints lets the service copy by itself", "checkpoints are in %s: and <app> in another storage: every byte passes through chkpin", at.Scheme())
	case err == nil:
		return fine("the job's newest checkpoint can be read")
	case as[*checkpoint.DamagedError](err): // the check of formats says it
		return nil
	}
	return fault(err, "ticks read the job's checkpoints; manifests/iam/tick.json has the rights of a tick on S3")
}

// tolerableLag is how far the pin may be behind the job, apart from the interval:
// a CronJob of some minutes.
const tolerableLag = 10 * time.Minute

func pinFollowsTheJob(p *patient) []finding {
	pinned := p.pin.PinnedAt()
	if pinned.IsZero() {
		return nil
	}
	id := p.pin.Record.Checkpoint.ID
	c := p.asked()
	if c == nil || c.stats.LatestCompleted == nil {
		return notice("", "the pinned checkpoint, %d, was triggered %s ago, at %s", id, p.now.Sub(pinned).Round(time.Second), pinned.Format(time.RFC3339))
	}
	newest := c.stats.LatestCompleted
	lag := newest.Triggered.Sub(pinned)
	if lag > tolerableLag+3*c.config.Interval {
		return doubt("is the CronJob, or watch, running, and what does it exit with? chkpin pin says why it does not pin",
			"the pin is behind the job by %s: checkpoint %d is pinned, %d is the newest", lag.Round(time.Second), id, newest.ID)
	}
	return fine("checkpoint %d is pinned, %s behind the newest", id, max(lag, 0).Round(time.Second))
}

func checkpointsAreRetained(p *patient) []finding {
	const fix = "set execution.checkpointing.externalized-checkpoint-retention: RETAIN_ON_CANCELLATION; for a planned stop use chkpin stop"
	deletes := func(when, from string) []finding {
		return doubt(fix, "Flink deletes the checkpoints of a job when it %s (%s): what came after the last tick is lost then", when, from)
	}
	c := p.asked()
	if c != nil && c.statsErr == nil && !c.configHidden {
		switch {
		case !c.config.Retained:
			return deletes("ends, also when it fails", "NO_EXTERNALIZED_CHECKPOINTS, the default")
		case c.config.DeletedOnCancellation:
			return deletes("is cancelled", "DELETE_ON_CANCELLATION")
		}
		return fine("Flink keeps the newest checkpoint of a job that is cancelled or fails")
	}
	switch how, from := p.setting("execution.checkpointing.externalized-checkpoint-retention"); strings.ToUpper(how) {
	case "DELETE_ON_CANCELLATION":
		return deletes("is cancelled", how+", by "+from)
	case "NO_EXTERNALIZED_CHECKPOINTS":
		return deletes("ends, also when it fails", how+", by "+from)
	case "RETAIN_ON_CANCELLATION":
		return fine("Flink keeps the newest checkpoint of a job that is cancelled or fails, by %s", from)
	}
	return nil
}

// shortLife is how long a checkpoint should at least stay: the JobManager's
// answers are up to 3 s old (web.refresh-interval), and then it is copied.
const shortLife = 15 * time.Second

func checkpointsLiveLongEnough(p *patient) []finding {
	c := p.asked()
	if !p.knowsSettings() {
		return nil
	}
	text, from := p.setting("execution.checkpointing.num-retained", "state.checkpoints.num-retained")
	retained, err := strconv.Atoi(text)
	if err != nil || retained < 1 { // 1 is Flink's default, also for what is not positive (SchedulerUtils, 1.15)
		retained, from = 1, "default"
	}
	where := ""
	if p.session() {
		// SchedulerUtils.createCompletedCheckpointStore, 1.15: jobManagerConfig, not the job's.
		where = "; it is the cluster's setting, flink run -D…num-retained is ignored in a session cluster"
	}
	if c != nil && c.config.Interval > 0 {
		if life := time.Duration(retained) * c.config.Interval; life < shortLife {
			return doubt("raise execution.checkpointing.num-retained (state.checkpoints.num-retained before 1.20) in the cluster's configuration",
				"Flink deletes a checkpoint after %s (num-retained %d, a checkpoint every %s): ticks may find it gone while they copy it and start again%s", life, retained, c.config.Interval, where)
		}
	}
	if where != "" {
		return notice("set it in the cluster's configuration file", "num-retained is %d (%s)%s", retained, from, where)
	}
	return fine("num-retained is %d (%s)", retained, from)
}

func stateIsRestorable(p *patient) []finding {
	c := p.asked()
	on := c != nil && c.config.Changelog
	if enabled, _ := p.setting("state.changelog.enabled", "state.backend.changelog.enabled"); strings.EqualFold(enabled, "true") {
		on = true
	}
	pinned := p.pin.Pin != nil && p.pin.Pin.Changelog()
	if !on && !pinned {
		return nil
	}
	const fix = "turn state.changelog.enabled (state.backend.changelog.enabled up to 1.19) off for the job that restores: then it reads the pin, changelog or not"
	// Measured on 1.20.5 and 2.3.0: the entry point restores in NO_CLAIM, and
	// ChangelogStateBackend cannot take the full snapshot that demands, whether it
	// restored a checkpoint or a savepoint.
	if c != nil && p.application() {
		return misconfigured(fix, "changelog state: in application mode a job with a changelog fails at its first checkpoint after a restore, whatever it restored")
	}
	return doubt(fix, "changelog state: a job with a changelog goes on after a restore in CLAIM mode only, which the pin must not be given to (chkpin copy makes one to claim)")
}

func pinIsNotIgnored(p *patient) []finding {
	mode, from := p.setting("high-availability.type", "high-availability")
	if mode == "" || strings.EqualFold(mode, "NONE") {
		if p.knowsSettings() {
			return fine("high availability is off: Flink restores what it is told to")
		}
		return nil
	}
	// DefaultExecutionGraphFactory, 2.2.0.
	return doubt("to start from the pin, end the job (cancelled or finished, Flink clears its entry) or give the cluster another high-availability.cluster-id",
		"high availability is on (%s, by %s): while its store holds a checkpoint of the job, Flink restores that and ignores --fromSavepoint", mode, from)
}

// jobIDKey is where the entry point notes --job-id (PipelineOptionsInternal,
// measured on 1.20.5 and 2.3.0). derivedID ends the ids that applications with high
// availability get: made of the hash of high-availability.cluster-id (measured on
// 2.3.0, ApplicationDispatcherBootstrap 1.20.5), or all zeros before that.
const (
	jobIDKey  = "$internal.pipeline.job-id"
	derivedID = "0000000000000000"
)

func jobIDIsNew(p *patient) []finding {
	const fix = "leave --job-id out, if nothing else needs it: each deployment then has a checkpoint folder of its own"
	const why = "every run writes to one checkpoint folder: after a restore of something older it runs into chk- folders of an earlier run"
	id, from := p.setting(jobIDKey)
	if p.manifest != nil {
		for _, s := range p.manifest.Starts {
			if id == "" && s.JobID != "" {
				id, from = s.JobID, s.Where
			}
		}
	}
	if id != "" {
		return doubt(fix, "the job id is constant (%s, by %s): %s", id, from, why)
	}
	if c := p.asked(); c != nil && strings.HasSuffix(c.job.ID, derivedID) {
		return doubt("let no two applications have the same high-availability.cluster-id, also not the default, and one checkpoint folder",
			"the job id is constant (%s, as high availability makes it of the cluster id): %s", c.job.ID, why)
	}
	run := p.pin.Record.Run
	for _, before := range p.pin.Record.Previous {
		if before.JobID == run.JobID {
			return notice(fix, "runs started %s and %s had the same job id %s, as after a takeover with high availability, or with a constant id: %s", before.StartTime(), run.StartTime(), run.JobID, why)
		}
	}
	return nil
}

func numbersAreFree(p *patient) []finding {
	if len(p.source.ahead) == 0 {
		return nil
	}
	var names []string
	for _, id := range p.source.ahead {
		names = append(names, fmt.Sprintf("chk-%d", id))
	}
	newest := p.cluster.newest
	return doubt("move them away once the pin restores: Flink deletes or stumbles over them when its numbers get there, and whoever takes the highest number for the newest is wrong",
		"%s of an earlier run lie beside the newest checkpoint, chk-%d, in %s", firstFew(names), newest.ID, newest.Path.Dir())
}

func mergedFilesAreThere(p *patient) []finding {
	enabled, _ := p.setting("execution.checkpointing.file-merging.enabled")
	across, from := p.setting("execution.checkpointing.file-merging.across-checkpoint-boundary")
	if !strings.EqualFold(enabled, "true") || !strings.EqualFold(across, "true") {
		return nil
	}
	dir, _ := p.setting("execution.checkpointing.dir", "state.checkpoints.dir")
	u, err := blobstore.Parse(dir)
	switch {
	case err != nil: // it is not known where
		return nil
	case u.Family() == blobstore.FamilyFile:
		return fine("files are merged across checkpoints, on a volume, where a growing file is there")
	}
	return misconfigured("turn execution.checkpointing.file-merging.across-checkpoint-boundary off; merging within a checkpoint is no problem",
		"files are merged across checkpoints (by %s) in %s: such a file is not there before Flink closes it, so a complete checkpoint cannot be restored yet, nor pinned", from, dir)
}

func entropyIsConfigured(p *patient) []finding {
	key, from := p.setting("s3.entropy.key")
	dir, dirFrom := p.setting("execution.checkpointing.dir", "state.checkpoints.dir")
	u, err := blobstore.Parse(dir)
	onS3 := err == nil && u.Family() == blobstore.FamilyS3
	const fix = "s3.entropy.key has to stand in the checkpoint folder, on S3: for the key _entropy_, s3://bucket/_entropy_/checkpoints"
	switch {
	case key != "" && strings.Contains(p.app.String(), key):
		return misconfigured("choose an <app> without the key", "<app> contains the entropy key %q (by %s): Flink reads another path than chkpin writes", key, from)
	case key == "" && strings.Contains(dir, "_entropy_"):
		return doubt(fix, "the checkpoint folder %s (by %s) holds a mark for entropy, but s3.entropy.key is not set: it is taken literally", dir, dirFrom)
	case key == "" || dir == "":
		return nil
	case !onS3 || !strings.Contains(dir, key):
		return doubt(fix, "s3.entropy.key is %q (by %s), but the checkpoint folder %s does not use it: no entropy is added", key, from, dir)
	}
	return fine("state files are spread by entropy; chkpin copies them from wherever _metadata says")
}
