package sample_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/cmd/chkpin/sample"
	"github.com/chkpin/chkpin/flinkrest"
)

// verify loads the sample's newest checkpoint and checks that everything it names is there.
func verify(t *testing.T, s sample.Sample) checkpoint.Report {
	t.Helper()
	store := blobstore.NewFile()
	snapshot, err := checkpoint.Load(t.Context(), store, blobstore.MustParse(s.Path()), checkpoint.LoadOptions{})
	require.NoError(t, err)
	assert.Equal(t, s.Checkpoint, snapshot.CheckpointID)
	report, err := checkpoint.Verify(t.Context(), store, snapshot)
	require.NoError(t, err)
	return report
}

func TestUnpackedCheckpointIsWhole(t *testing.T) {
	dir := t.TempDir()
	s, err := sample.Unpack(dir)
	require.NoError(t, err)
	assert.Equal(t, "file:"+dir+"/"+s.JobID+"/chk-6", s.Path())
	report := verify(t, s)
	assert.True(t, report.OK())
	assert.Equal(t, 10, report.Files)

	_, err = sample.Unpack("relative")
	assert.Error(t, err)
}

// The job's next checkpoint names the SST files of the one before, and the rest of that one is gone.
func TestNextCheckpoint(t *testing.T) {
	s, err := sample.UnpackAs(t.TempDir(), "99999999999999999999999999999999")
	require.NoError(t, err)
	before := s
	for range 2 {
		require.NoError(t, s.Complete())
	}
	assert.EqualValues(t, 8, s.Checkpoint)
	report := verify(t, s)
	assert.True(t, report.OK())
	assert.Equal(t, 10, report.Files)
	assert.NoDirExists(t, filepath.Join(s.Dir, before.JobID, "chk-6"))
	shared, err := os.ReadDir(filepath.Join(s.Dir, s.JobID, "shared"))
	require.NoError(t, err)
	assert.Len(t, shared, 8)
}

func TestJobManagerNamesWhatIsUnpacked(t *testing.T) {
	s, err := sample.UnpackAs(t.TempDir(), "99999999999999999999999999999999")
	require.NoError(t, err)
	jm, err := s.JobManager()
	require.NoError(t, err)
	server := httptest.NewServer(jm)
	defer server.Close()
	client, err := flinkrest.New(flinkrest.Config{URL: server.URL})
	require.NoError(t, err)

	jobs, err := client.Jobs(t.Context())
	require.NoError(t, err)
	require.Len(t, jobs, 1)
	assert.Equal(t, s.JobID, jobs[0].ID)
	assert.Equal(t, flinkrest.Running, jobs[0].State)
	newest := func() *flinkrest.Checkpoint {
		checkpoints, err := client.Checkpoints(t.Context(), s.JobID)
		require.NoError(t, err)
		return checkpoints.LatestCompleted
	}
	assert.EqualValues(t, 6, newest().ID)
	assert.EqualValues(t, s.Path(), newest().ExternalPath)

	require.NoError(t, s.Complete())
	require.NoError(t, jm.Complete(s.Checkpoint, s.Path()))
	assert.EqualValues(t, 7, newest().ID)
	assert.EqualValues(t, s.Path(), newest().ExternalPath)
}
