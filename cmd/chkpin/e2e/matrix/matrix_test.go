package matrix

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	first  = Cell{"1.20.5", "hashmap", "file", "application"}
	second = Cell{"2.3.0", "rocksdb-incremental", "s3-hadoop", "rest-claim"}
)

func TestNamesOfCells(t *testing.T) {
	assert.Equal(t, []Cell{first, second}, Cells(first.String(), second.String()))
	assert.Equal(t, "1.20.5/hashmap/file/application", first.String())
	for _, name := range []string{"", "2.3.0/hashmap/file", "2.3.0//file/application", "2.3.0/hashmap/file/application/2"} {
		assert.Panics(t, func() { Cells(name) }, name)
	}
}

func TestPatternsChooseCells(t *testing.T) {
	for pattern, want := range map[string][2]bool{
		"*":                                    {true, true},
		"2.3.0/*":                              {false, true},
		"*/application":                        {true, false},
		"1.20.5/hashmap/file/application":      {true, false},
		"1.20.5/hashmap":                       {false, false},
		"1x20.5/*":                             {false, false},
		"2.3.0/rocksdb-incremental/*":          {false, true},
		"*s3-hadoop*":                          {false, true},
		"2.3.0/rocksdb-incremental/s3-hadoop/": {false, false},
	} {
		matches := Matching(pattern)
		assert.Equal(t, want, [2]bool{matches(first), matches(second)}, pattern)
	}
}

func TestResultsGoOnWhereTheyWere(t *testing.T) {
	dir := t.TempDir()
	results, err := Open(dir)
	require.NoError(t, err)
	assert.False(t, results.Done(first), "nothing has run yet")

	results.Put(Result{Cell: second, Outcome: Failed, Note: "lost a key", Day: "2026-11-26"})
	results.Put(Result{Cell: first, Outcome: Yes, Note: "a | b", Seconds: 41.6, Day: "2026-11-27"})
	results.Put(Result{Cell: Cell{Release: "0.9"}, Outcome: Yes})
	require.NoError(t, results.Write())

	results, err = Open(dir)
	require.NoError(t, err)
	assert.True(t, results.Done(first))
	assert.False(t, results.Done(second), "what failed has to run again")

	results.Keep([]Cell{first, second})
	require.NoError(t, results.Write())
	page, err := os.ReadFile(filepath.Join(dir, "restore-matrix.md"))
	require.NoError(t, err)
	assert.Contains(t, string(page), "\nRun 2026-11-26, 2026-11-27: 2 cells, 1 yes, 0 no, 1 FAILED.\n")
	assert.Contains(t, string(page), "\n"+
		`| 1.20.5 | hashmap | file | application | yes | a \| b | 42 | 2026-11-27 |`+"\n"+
		"| 2.3.0 | rocksdb-incremental | s3-hadoop | rest-claim | FAILED | lost a key | 0 | 2026-11-26 |\n")
	assert.NotContains(t, string(page), "0.9", "a cell that is no more")

	results.Put(Result{Cell: second, Outcome: No, Note: "Flink deletes what it claims"})
	assert.True(t, results.Done(second))
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	assert.Len(t, left, 2, "no temporary files: %v", left)
}

func TestResultsThatCannotBeReadAreAnError(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "restore-matrix.json"), []byte("[{"), 0o644))

	_, err := Open(dir)

	assert.ErrorContains(t, err, "restore-matrix.json")
}
