package checkpoint

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

func survey(t *testing.T, store blobstore.Store) Survey {
	t.Helper()
	s, err := TakeSurvey(t.Context(), store, app, SurveyOptions{})
	require.NoError(t, err)
	return s
}

func TestSurvey(t *testing.T) {
	x := newLab(t, 4, 5)
	before := contents(t, x.store, app)
	s := survey(t, x.store)
	require.True(t, s.Restores())
	require.True(t, s.Existed)
	require.True(t, s.Described)
	require.False(t, s.Foreign)
	require.Nil(t, s.Hold)
	require.EqualValues(t, 5, s.Pin.CheckpointID)
	require.Positive(t, s.Report.Files)
	require.Equal(t, s.Record.Checkpoint.Triggered, s.PinnedAt())
	require.Len(t, s.Generations, 2)
	for i, name := range []string{"00000002-chk-5", "00000001-chk-4"} {
		require.Equal(t, name, s.Generations[i].Name)
		require.True(t, s.Generations[i].Finished)
		require.NoError(t, s.Generations[i].Err)
	}
	require.Equal(t, before, contents(t, x.store, app), "a survey changes nothing")
}

func TestSurveyOfNothing(t *testing.T) {
	store, _ := memory()
	s := survey(t, store)
	require.ErrorIs(t, s.PinErr, blobstore.ErrNotExist)
	require.False(t, s.Restores())
	require.False(t, s.Existed)
	require.Empty(t, s.Generations)
	require.True(t, s.PinnedAt().IsZero())
}

// What is wrong with one part is told of that part, and the others are looked at.
func TestSurveyOfDamage(t *testing.T) {
	l := LayoutOf(app)
	for name, c := range map[string]struct {
		harm  func(t *testing.T, x *lab)
		shows func(t *testing.T, s Survey)
	}{
		"a state file is gone": {
			func(t *testing.T, x *lab) { deleteBelow(t, x.store, l.State) },
			func(t *testing.T, s Survey) {
				require.ErrorAs(t, s.PinErr, new(*DamagedError))
				require.ErrorAs(t, s.Generations[0].Err, new(*DamagedError))
			}},
		"_metadata is gone": {
			func(t *testing.T, x *lab) { remove(t, x.store, l.Metadata) },
			func(t *testing.T, s Survey) {
				require.ErrorIs(t, s.PinErr, blobstore.ErrNotExist)
				require.True(t, s.Existed)
				require.NoError(t, s.Generations[0].Err)
			}},
		"pin.json is of another": {
			func(t *testing.T, x *lab) {
				put(t, x.store, l.Record.String(), get(t, x.store, l.generation("00000001-chk-4").Join(recordName)))
			},
			func(t *testing.T, s Survey) {
				require.True(t, s.Restores())
				require.False(t, s.Described)
				require.False(t, s.Foreign)
				require.True(t, s.PinnedAt().IsZero())
			}},
		"pin.json is none": {
			func(t *testing.T, x *lab) { put(t, x.store, l.Record.String(), []byte("x")) },
			func(t *testing.T, s Survey) { require.ErrorAs(t, s.RecordErr, new(*DamagedError)) }},
		"a script wrote _metadata": {
			func(t *testing.T, x *lab) {
				x.job.completes(6)
				put(t, x.store, l.Metadata.String(), get(t, x.store, x.job.chk(6).Join(MetadataName)))
			},
			func(t *testing.T, s Survey) { require.True(t, s.Foreign) }},
		"a tick was killed": {
			func(t *testing.T, x *lab) { remove(t, x.store, l.generation("00000002-chk-5").Join(recordName)) },
			func(t *testing.T, s Survey) { require.False(t, s.Generations[0].Finished) }},
		"a hold": {
			func(t *testing.T, x *lab) { put(t, x.store, l.Hold.String(), []byte(`{"layout":1,"reason":"why"}`)) },
			func(t *testing.T, s Survey) { require.Equal(t, "why", s.Hold.Reason) }},
		"a hold that is none": {
			func(t *testing.T, x *lab) { put(t, x.store, l.Hold.String(), nil) },
			func(t *testing.T, s Survey) {
				require.NotNil(t, s.Hold)
				require.Error(t, s.HoldErr)
			}},
		"a collection": {
			func(t *testing.T, x *lab) {
				require.NoError(t, announce(t.Context(), x.store, l.State.Join(announcementPrefix+"1"), nil))
			},
			func(t *testing.T, s Survey) { require.Len(t, s.Collections, 1) }},
	} {
		t.Run(name, func(t *testing.T) {
			x := newLab(t, 4, 5)
			c.harm(t, x)
			c.shows(t, survey(t, x.store))
		})
	}
}

// With a constant job id, what an earlier run left has higher numbers and was
// there first. What completes meanwhile is younger, and is not meant.
func TestLeftAhead(t *testing.T) {
	store, clock := memory()
	job := startFlink(t, store, hashmap, "s3://lake/flink")
	latest := Latest{ID: 8, Path: job.chk(8)}
	_, err := LeftAhead(t.Context(), store, latest, LoadOptions{})
	require.ErrorIs(t, err, blobstore.ErrNotExist)
	for _, id := range []int64{11, 10, 7, 8, 9} {
		clock.advance(time.Second)
		put(t, store, job.chk(id).Join(MetadataName).String(), nil)
	}
	put(t, store, job.chk(12).Join("state").String(), nil)
	ahead, err := LeftAhead(t.Context(), store, latest, LoadOptions{})
	require.NoError(t, err)
	require.Equal(t, []int64{11, 10}, ahead)
}
