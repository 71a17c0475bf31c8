package checkpoint

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint/metadata"
	"github.com/chkpin/chkpin/checkpoint/metadata/metadatatest"
)

// The operators of the job that wrote the real checkpoints.
var (
	counter = operatorID("0da08f51eaa85fc298e176a139b3649a") // 739277 bytes of keyed state
	numbers = operatorID("5e695f00738be66c275f8a96a14aa10e")
)

func operatorID(hex string) (id metadata.OperatorID) {
	for i := range id {
		fmt.Sscanf(hex[2*i:2*i+2], "%x", &id[i])
	}
	return id
}

// snapshotOf parses a real _metadata after an edit.
func snapshotOf(t *testing.T, name string, edits ...func([]byte) ([]byte, error)) *Snapshot {
	t.Helper()
	data := testdata(t, "metadata/testdata/"+name+"/_metadata")
	for _, edit := range edits {
		var err error
		data, err = edit(data)
		require.NoError(t, err)
	}
	s, err := parse(blobstore.MustParse("s3://lake/"+name+"/_metadata"), blobstore.Object{}, data, nil)
	require.NoError(t, err)
	return s
}

// diffed is the difference as text: what happened to which operator.
func diffed(t *testing.T, a, b *Snapshot) (changes []string, d Difference) {
	t.Helper()
	d, err := Diff(a, b)
	require.NoError(t, err)
	for _, op := range d.Operators {
		changes = append(changes, op.Change+" "+op.UID)
	}
	return changes, d
}

// State that only grew is shown, and is no difference unless it is asked for.
func TestDiffOfSizes(t *testing.T) {
	changes, d := diffed(t, snapshotOf(t, "2.3.0-rocksdb-incremental"), snapshotOf(t, "2.3.0-hashmap"))
	require.Equal(t, []string{"resized counter"}, changes)
	require.EqualValues(t, 739277, d.Operators[0].A.Bytes)
	require.Empty(t, d.Notes)
	require.True(t, d.Equal(false))
	require.False(t, d.Equal(true))

	_, d = diffed(t, snapshotOf(t, "2.3.0-hashmap"), snapshotOf(t, "2.3.0-hashmap"))
	require.Empty(t, d.Operators)
	require.True(t, d.Equal(true))
}

// Releases up to 1.20 write no names: those of the other side serve both.
func TestDiffOfReleases(t *testing.T) {
	for _, older := range []string{"1.13.6-hashmap", "1.15.4-rocksdb-savepoint-canonical", "1.20.5-hashmap"} {
		a, b := snapshotOf(t, older), snapshotOf(t, "2.3.0-hashmap")
		_, d := diffed(t, a, b)
		require.True(t, d.Equal(false), older)
		for _, op := range d.Operators {
			require.NotEmpty(t, op.Name)
		}
	}
}

// An operator that is gone takes its state with it only when it is told so.
func TestDiffOfRemovedOperator(t *testing.T) {
	whole := snapshotOf(t, "2.3.0-hashmap")
	without := snapshotOf(t, "2.3.0-hashmap", func(data []byte) ([]byte, error) { return metadatatest.WithoutOperator(data, counter) })

	changes, d := diffed(t, whole, without)
	require.Equal(t, []string{"removed counter"}, changes)
	require.Nil(t, d.Operators[0].B)
	require.Equal(t, []string{"starting b from a needs --allowNonRestoredState, which drops the state of 1 operator: 0da08f51eaa85fc298e176a139b3649a (counter)"}, d.Notes)
	require.False(t, d.Equal(false))

	changes, d = diffed(t, without, whole)
	require.Equal(t, []string{"added counter"}, changes)
	require.Nil(t, d.Operators[0].A)
	require.Empty(t, d.Notes, "it starts empty, as operators do")
	require.False(t, d.Equal(false))
}

// The whole state of an operator may be its coordinator's: splits that are not read yet.
func TestDiffOfCoordinatorState(t *testing.T) {
	a := snapshotOf(t, "2.3.0-hashmap")
	require.True(t, a.stateful()[numbers])
	without := snapshotOf(t, "2.3.0-hashmap", func(data []byte) ([]byte, error) { return metadatatest.WithoutOperator(data, numbers) })
	_, d := diffed(t, a, without)
	require.Contains(t, d.Notes[0], "--allowNonRestoredState")
}

// Without a uid of its own an operator gets another id whenever the job's shape changes.
func TestDiffOfChangedID(t *testing.T) {
	other := operatorID("ffffffffffffffffffffffffffffffff")
	a := snapshotOf(t, "2.3.0-hashmap")
	b := snapshotOf(t, "2.3.0-hashmap", func(data []byte) ([]byte, error) { return metadatatest.WithID(data, counter, other) })
	changes, d := diffed(t, a, b)
	require.Equal(t, []string{"removed counter", "added counter"}, changes)
	require.Len(t, d.Notes, 2)
	require.Contains(t, d.Notes[0], "--allowNonRestoredState")
	require.Equal(t, `operator 0da08f51eaa85fc298e176a139b3649a (counter) of a and ffffffffffffffffffffffffffffffff (counter) of b are both called "KeyedProcess": was its uid changed, or is it missing?`, d.Notes[1])
}

func TestDiffOfParallelism(t *testing.T) {
	a := snapshotOf(t, "2.3.0-hashmap") // 2 of 128
	for _, c := range []struct {
		parallelism, most uint32
		note              string
	}{
		{4, 128, ""},
		{2, 256, "b does not start from a if it sets the maximum parallelism of operator 0da08f51eaa85fc298e176a139b3649a (counter) to 256: its state has 128."},
		{200, 256, "b does not start from a: operator 0da08f51eaa85fc298e176a139b3649a (counter) runs with parallelism 200, and its state allows at most 128"},
	} {
		b := snapshotOf(t, "2.3.0-hashmap", func(data []byte) ([]byte, error) {
			return metadatatest.WithParallelism(data, counter, c.parallelism, c.most)
		})
		changes, d := diffed(t, a, b)
		require.Equal(t, []string{"changed counter"}, changes)
		require.False(t, d.Equal(false))
		if c.note == "" {
			require.Empty(t, d.Notes, "Flink rescales")
			continue
		}
		require.Len(t, d.Notes, 1)
		require.Contains(t, d.Notes[0], c.note)
	}
}

// What names no file that could be read is said, not compared.
func TestDiffOfDamaged(t *testing.T) {
	a := snapshotOf(t, "2.3.0-hashmap", func(data []byte) ([]byte, error) {
		f, err := metadata.Parse(data)
		if err != nil {
			return nil, err
		}
		return f.Rewrite(func(metadata.Handle) (metadata.Path, error) {
			return metadata.Path{Text: "gs:no-slash"}, nil
		})
	})
	_, err := Diff(a, a)
	var damaged *DamagedError
	require.ErrorAs(t, err, &damaged)
}
