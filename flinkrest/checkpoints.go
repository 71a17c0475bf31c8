package flinkrest

import (
	"context"
	"math"
	"time"
)

// ExternalPath is where a checkpoint can be read, as Flink spells it (`file:/…`, `s3://…`): the directory of its
// `_metadata`, measured on 1.15.4, 1.20.5 and 2.3.0.
type ExternalPath string

// notAddressable is the path of a checkpoint that only the JobManager's memory holds
// (NonPersistentMetadataCheckpointStorageLocation).
const notAddressable ExternalPath = "<checkpoint-not-externally-addressable>"

// Addressable says that the path is one. It is not when the checkpoint lies in the JobManager's memory, or when
// the checkpoint has not completed.
func (p ExternalPath) Addressable() bool {
	return p != "" && p != notAddressable
}

// CheckpointStatus is how far a checkpoint came (CheckpointStatsStatus).
type CheckpointStatus string

// The statuses of Flink 1.13 to 2.3.
const (
	CheckpointInProgress CheckpointStatus = "IN_PROGRESS"
	CheckpointCompleted  CheckpointStatus = "COMPLETED"
	CheckpointFailed     CheckpointStatus = "FAILED"
)

// Checkpoint is what the statistics tell about one checkpoint or savepoint.
type Checkpoint struct {
	ID     int64
	Status CheckpointStatus

	// Savepoint is to be checked even for [Checkpoints.LatestCompleted].
	Savepoint bool

	// Type is CHECKPOINT, UNALIGNED_CHECKPOINT (1.16 and later), SAVEPOINT or SYNC_SAVEPOINT.
	Type string

	Triggered time.Time
	Acked     time.Time // when the last subtask acknowledged

	// StateSize is in bytes and counts files shared with earlier checkpoints; Written does not (1.15 and later).
	StateSize int64
	Written   int64

	// ExternalPath is set once the checkpoint completed.
	ExternalPath ExternalPath

	// Discarded says that Flink has deleted the checkpoint. It can turn true at any moment after the answer.
	Discarded bool

	// Failure is why a failed checkpoint failed, as Flink tells it.
	Failure string
}

// Restored is the checkpoint or savepoint that the job last restored from. After a failover that is one of the
// job's own. Measured on 1.13.6, 1.15.4 and 2.3.0.
type Restored struct {
	ID int64

	// Savepoint is true for everything that a start was given, even for a checkpoint.
	Savepoint bool

	ExternalPath ExternalPath
	At           time.Time
}

// Counts are numbers since the JobManager started.
type Counts struct {
	Restored, Total, InProgress, Completed, Failed int64
}

// Checkpoints are a job's checkpoint statistics. They start empty when a JobManager starts, also for a job that it
// takes over: then only Restored is known.
type Checkpoints struct {
	Counts Counts

	// LatestCompleted is the newest completed checkpoint, as a rule not a savepoint: but an older savepoint that
	// completes after a newer one stands here (CheckpointStatsHistory).
	LatestCompleted *Checkpoint
	LatestSavepoint *Checkpoint
	LatestFailed    *Checkpoint
	Restored        *Restored

	// History is newest first, 10 checkpoints unless web.checkpoints.history says otherwise.
	History []Checkpoint
}

type checkpointAnswer struct {
	ID           int64            `json:"id"`
	Status       CheckpointStatus `json:"status"`
	Savepoint    bool             `json:"is_savepoint"`
	Type         string           `json:"checkpoint_type"`
	Triggered    int64            `json:"trigger_timestamp"`
	Acked        int64            `json:"latest_ack_timestamp"`
	StateSize    int64            `json:"state_size"`
	Written      int64            `json:"checkpointed_size"`
	ExternalPath ExternalPath     `json:"external_path"`
	Discarded    bool             `json:"discarded"`
	Failure      string           `json:"failure_message"`
}

func (a *checkpointAnswer) checkpoint() *Checkpoint {
	if a == nil {
		return nil
	}
	return &Checkpoint{
		ID: a.ID, Status: a.Status, Savepoint: a.Savepoint, Type: a.Type,
		Triggered: instant(a.Triggered), Acked: instant(a.Acked),
		StateSize: a.StateSize, Written: a.Written,
		ExternalPath: a.ExternalPath, Discarded: a.Discarded, Failure: a.Failure,
	}
}

type checkpointsAnswer struct {
	Counts *struct {
		Restored   int64 `json:"restored"`
		Total      int64 `json:"total"`
		InProgress int64 `json:"in_progress"`
		Completed  int64 `json:"completed"`
		Failed     int64 `json:"failed"`
	} `json:"counts"`
	Latest struct {
		Completed *checkpointAnswer `json:"completed"`
		Savepoint *checkpointAnswer `json:"savepoint"`
		Failed    *checkpointAnswer `json:"failed"`
		Restored  *struct {
			ID           int64        `json:"id"`
			Savepoint    bool         `json:"is_savepoint"`
			ExternalPath ExternalPath `json:"external_path"`
			At           int64        `json:"restore_timestamp"`
		} `json:"restored"`
	} `json:"latest"`
	History []checkpointAnswer `json:"history"`
}

// Checkpoints reads a job's checkpoint statistics (GET /jobs/:jobid/checkpoints).
func (c *Client) Checkpoints(ctx context.Context, jobID string) (Checkpoints, error) {
	const below = "/checkpoints"
	var answer checkpointsAnswer
	if err := c.getJob(ctx, jobID, below, &answer); err != nil {
		return Checkpoints{}, err
	}
	if answer.Counts == nil {
		return Checkpoints{}, c.lacks("jobs/"+jobID+below, "counts")
	}
	checkpoints := Checkpoints{
		Counts:          Counts(*answer.Counts),
		LatestCompleted: answer.Latest.Completed.checkpoint(),
		LatestSavepoint: answer.Latest.Savepoint.checkpoint(),
		LatestFailed:    answer.Latest.Failed.checkpoint(),
	}
	if restored := answer.Latest.Restored; restored != nil {
		checkpoints.Restored = &Restored{
			ID: restored.ID, Savepoint: restored.Savepoint,
			ExternalPath: restored.ExternalPath, At: instant(restored.At),
		}
	}
	for i := range answer.History {
		checkpoints.History = append(checkpoints.History, *answer.History[i].checkpoint())
	}
	return checkpoints, nil
}

// CheckpointConfig is how a job takes checkpoints.
type CheckpointConfig struct {
	Mode string // exactly_once or at_least_once

	// Interval is zero when no checkpoint comes by itself. Flink says so with the largest long
	// (StreamingJobGraphGenerator).
	Interval      time.Duration
	Timeout       time.Duration
	MinPause      time.Duration
	MaxConcurrent int64

	// Retained says that Flink keeps the newest checkpoint when the job fails;
	// DeletedOnCancellation, that it deletes it when the job is cancelled.
	Retained              bool
	DeletedOnCancellation bool

	StateBackend string // simple class name, such as HashMapStateBackend
	Storage      string // simple class name, such as FileSystemCheckpointStorage
	Unaligned    bool

	// Changelog says that the changelog state backend is on. Flink 1.16 and later; 1.15 has it, but does not tell.
	Changelog        bool
	ChangelogStorage string
}

// CheckpointConfig reads how a job takes checkpoints (GET /jobs/:jobid/checkpoints/config).
func (c *Client) CheckpointConfig(ctx context.Context, jobID string) (CheckpointConfig, error) {
	const below = "/checkpoints/config"
	var answer struct {
		Mode            string `json:"mode"`
		Interval        int64  `json:"interval"`
		Timeout         int64  `json:"timeout"`
		MinPause        int64  `json:"min_pause"`
		MaxConcurrent   int64  `json:"max_concurrent"`
		Externalization struct {
			Enabled              bool `json:"enabled"`
			DeleteOnCancellation bool `json:"delete_on_cancellation"`
		} `json:"externalization"`
		StateBackend     string `json:"state_backend"`
		Storage          string `json:"checkpoint_storage"`
		Unaligned        bool   `json:"unaligned_checkpoints"`
		Changelog        bool   `json:"state_changelog_enabled"`
		ChangelogStorage string `json:"changelog_storage"`
	}
	if err := c.getJob(ctx, jobID, below, &answer); err != nil {
		return CheckpointConfig{}, err
	}
	if answer.Mode == "" {
		return CheckpointConfig{}, c.lacks("jobs/"+jobID+below, "mode")
	}
	if answer.Interval == math.MaxInt64 {
		answer.Interval = 0
	}
	return CheckpointConfig{
		Mode:                  answer.Mode,
		Interval:              span(answer.Interval),
		Timeout:               span(answer.Timeout),
		MinPause:              span(answer.MinPause),
		MaxConcurrent:         answer.MaxConcurrent,
		Retained:              answer.Externalization.Enabled,
		DeletedOnCancellation: answer.Externalization.DeleteOnCancellation,
		StateBackend:          answer.StateBackend,
		Storage:               answer.Storage,
		Unaligned:             answer.Unaligned,
		Changelog:             answer.Changelog,
		ChangelogStorage:      answer.ChangelogStorage,
	}, nil
}

// span is a number of milliseconds; what a Duration cannot hold (292 years) is the longest Duration.
func span(millis int64) time.Duration {
	return time.Duration(min(millis, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
}
