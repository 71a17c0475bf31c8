package sample_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/checkpoint/metadata"
	"github.com/chkpin/chkpin/cmd/chkpin/sample"
)

// A checkpoint of many files names the files, in order.
func TestIncremental(t *testing.T) {
	files := make([]string, 1001)
	for i := range files {
		files[i] = "s3://bucket/shared/" + strings.Repeat("x", i%7) + "/file"
	}
	f, err := metadata.Parse(sample.Incremental(42, files, 1024))
	require.NoError(t, err)
	assert.Equal(t, int64(42), f.CheckpointID)
	assert.Len(t, f.Operators[0].Subtasks, 2)
	var named []string
	for h := range f.Handles() {
		if h.Kind != metadata.AbsoluteFile {
			continue
		}
		path, err := h.Path()
		require.NoError(t, err)
		assert.True(t, h.Shared())
		assert.Equal(t, int64(1024), h.Size())
		named = append(named, path)
	}
	assert.Equal(t, files, named)
}

func TestIncrementalWithoutFiles(t *testing.T) {
	f, err := metadata.Parse(sample.Incremental(7, nil, 0))
	require.NoError(t, err)
	for h := range f.Handles() {
		assert.Equal(t, metadata.Inline, h.Kind)
	}
}
