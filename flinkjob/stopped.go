package flinkjob

import (
	"context"
	"fmt"
	"time"

	"github.com/chkpin/chkpin/checkpoint"
)

// Stopped is a job that ended in a savepoint, as it was last seen. It implements
// [checkpoint.Job] without a JobManager, which in application mode ends with its
// job.
//
//	stopped, err := job.LastSeen(ctx)
//	…
//	trigger, err := client.Stop(ctx, stopped.Seen.Run.JobID, flinkrest.StopOptions{})
//	… // until client.Savepoint(ctx, stopped.Seen.Run.JobID, trigger) is Done, with a Location
//	savepoint, err := checkpoint.Load(ctx, store, location, checkpoint.LoadOptions{})
//	…
//	stopped.EndedIn(savepoint, time.Now())
//	pinned, err := checkpoint.Pin(ctx, store, app, stopped, checkpoint.PinOptions{})
type Stopped struct {
	Seen checkpoint.Observation
	From string // RestorePath
}

var _ checkpoint.Job = (*Stopped)(nil)

// LastSeen asks everything there is to ask about a job that is about to be
// stopped. Of one that is only starting that cannot be known yet: the error is
// [checkpoint.ErrNoCheckpoint], or one of [Job.Observe].
func (j Job) LastSeen(ctx context.Context) (*Stopped, error) {
	seen, err := j.Observe(ctx)
	if err != nil {
		return nil, err
	}
	if seen.Starting {
		return nil, fmt.Errorf("%w of job %s, which is only starting", checkpoint.ErrNoCheckpoint, seen.Run.JobID)
	}
	j.Choice = Choice{ID: seen.Run.JobID}
	from, err := j.RestorePath(ctx)
	if err != nil {
		return nil, err
	}
	return &Stopped{Seen: seen, From: from}, nil
}

// EndedIn makes a savepoint the job's latest, triggered then. The run keeps the
// folder that its last checkpoint was in, by which its descendants are known.
func (s *Stopped) EndedIn(savepoint *checkpoint.Snapshot, triggered time.Time) {
	if last := s.Seen.Latest; last != nil && s.Seen.Run.Folder == "" && !last.Savepoint {
		s.Seen.Run.Folder = last.Path.Dir().String()
	}
	s.Seen.Latest = &checkpoint.Latest{ID: savepoint.CheckpointID, Path: savepoint.URI.Dir(), Savepoint: true, Triggered: triggered}
}

// Observe implements [checkpoint.Job].
func (s *Stopped) Observe(context.Context) (checkpoint.Observation, error) { return s.Seen, nil }

// RestorePath implements [checkpoint.Job].
func (s *Stopped) RestorePath(context.Context) (string, error) { return s.From, nil }
