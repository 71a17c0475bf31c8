//go:build e2e

package e2e

import (
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/checkpoint/metadata"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/job"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/lab"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/matrix"
)

// The restore matrix: what docs/restore-matrix.md says was run. A line is a cell: release, state, store, restore.
// In each release RocksDB incremental, which most jobs use, and then what can differ, with the pairs in which
// something could go wrong.
var matrixCells = matrix.Cells(
	"1.13.6/rocksdb-incremental/file/application",
	"1.14.6/rocksdb-incremental/file/application",
	"1.15.4/rocksdb-incremental/file/application",
	"1.16.3/rocksdb-incremental/file/application",
	"1.17.2/rocksdb-incremental/file/application",
	"1.18.1/rocksdb-incremental/file/application",
	"1.19.3/rocksdb-incremental/file/application",
	"1.20.5/rocksdb-incremental/file/application",
	"2.0.2/rocksdb-incremental/file/application",
	"2.1.3/rocksdb-incremental/file/application",
	"2.2.1/rocksdb-incremental/file/application",
	"2.3.0/rocksdb-incremental/file/application",

	"1.13.6/hashmap/file/application",
	"1.20.5/hashmap/file/application",
	"2.3.0/hashmap/file/application",
	"1.15.4/rocksdb-full/file/application",
	"2.3.0/rocksdb-full/file/application",
	"2.0.2/forst/file/application",
	"2.3.0/forst/file/application",
	"1.13.6/inline/file/application",
	"2.3.0/inline/file/application",
	"1.14.6/finished/file/application",
	"1.20.5/finished/file/application",
	"2.3.0/finished/file/application",
	"1.15.4/unaligned/file/application",
	"1.20.5/unaligned/file/application",
	"2.0.2/unaligned/file/application",
	"2.3.0/unaligned/file/application",
	"1.20.5/merging-within/file/application",
	"2.3.0/merging-within/file/application",
	"1.20.5/merging-across/file/application",
	"2.3.0/merging-across/file/application",
	"2.3.0/merging-across-unaligned/file/application",

	"1.13.6/rocksdb-canonical/file/application",
	"1.15.4/rocksdb-native/file/application",
	"2.3.0/rocksdb-canonical/file/application",
	"2.3.0/rocksdb-native/file/application",
	"1.14.6/rocksdb-stopped/file/application",
	"1.20.5/rocksdb-stopped/file/application",
	"2.3.0/rocksdb-stopped-native/file/application",

	"1.15.4/rocksdb-incremental/s3-presto/application",
	"1.17.2/rocksdb-incremental/s3-hadoop/application",
	"1.20.5/rocksdb-incremental/s3-hadoop/application",
	"2.3.0/rocksdb-incremental/s3-hadoop/application",
	"1.20.5/hashmap/s3-presto/application",
	"2.3.0/rocksdb-incremental/s3-presto/application",
	"1.20.5/hashmap/s3-entropy/application",
	"2.3.0/rocksdb-incremental/s3-entropy/application",
	"1.20.5/rocksdb-incremental/wasb/application",
	"2.3.0/rocksdb-incremental/wasb/application",
	"1.20.5/merging-across/s3-hadoop/application",
	"2.3.0/merging-across/s3-hadoop/application",
	"2.3.0/merging-across/wasb/application",
	"2.3.0/merging-within/s3-hadoop/application",
	"2.3.0/merging-within/wasb/application",

	"1.20.5/rocksdb-incremental/file/application-p1",
	"2.3.0/rocksdb-incremental/file/application-p3",
	"2.3.0/unaligned/file/application-p3",
	"1.20.5/merging-across/file/application-p3",

	"1.14.6/rocksdb-incremental/file/rest",
	"1.15.4/rocksdb-incremental/file/rest-no_claim",
	"2.3.0/rocksdb-incremental/file/rest-no_claim",
	"1.14.6/rocksdb-incremental/file/run",
	"1.20.5/rocksdb-incremental/file/run-no_claim",
	"2.3.0/rocksdb-incremental/file/run-no_claim",
	"1.15.4/rocksdb-incremental/file/rest-legacy",
	"1.20.5/rocksdb-incremental/file/run-legacy",
	"2.3.0/rocksdb-incremental/file/rest-legacy",

	"1.15.4/rocksdb-incremental/file/to-1.20.5",
	"1.20.5/rocksdb-incremental/file/to-2.3.0",
	"1.13.6/rocksdb-incremental/file/to-2.3.0",
	"1.20.5/merging-across/file/to-2.3.0",
	"2.3.0/rocksdb-incremental/file/back-to-1.20.5",
	"1.15.4/rocksdb-incremental/file/back-to-1.14.6",

	"1.20.5/changelog/file/application",
	"2.3.0/changelog/file/application",
	"1.20.5/changelog/file/claim-of-a-copy",
	"2.3.0/changelog/file/claim-of-a-copy",
	"1.20.5/changelog-stopped/file/application",
	"2.3.0/changelog-stopped/file/application",
	"1.20.5/changelog/file/changelog-off",
	"2.3.0/changelog/file/changelog-off",
	"2.3.0/changelog-stopped/file/changelog-off",

	"1.15.4/rocksdb-incremental/file/claim",
	"1.20.5/rocksdb-incremental/file/claim",
	"2.3.0/rocksdb-incremental/file/claim",
	"2.3.0/merging-across/file/claim",
	"2.3.0/rocksdb-incremental/s3-hadoop/claim",
	"1.15.4/rocksdb-incremental/file/claim-of-a-copy",
	"2.3.0/rocksdb-incremental/file/claim-of-a-copy",
	"2.3.0/merging-across/file/claim-of-a-copy",
	"2.3.0/merging-within/s3-hadoop/claim-of-a-copy",

	"1.14.6/rocksdb-incremental/file/generations",
	"1.20.5/rocksdb-incremental/file/legacy-generations",
	"1.20.5/merging-across/file/legacy-generations",

	"1.15.4/rocksdb-incremental/file/failover",
	"2.3.0/rocksdb-incremental/file/failover",
	"2.3.0/rocksdb-incremental/s3-hadoop/failover",

	"2.3.0/forst/file/constant-id",
	"2.3.0/rocksdb-incremental/file/constant-id",
	"1.13.6/rocksdb-incremental/file/constant-id-collision",
	"1.20.5/rocksdb-incremental/file/constant-id-collision",
	"2.3.0/forst/file/constant-id-collision",
	"2.3.0/rocksdb-incremental/s3-hadoop/constant-id-collision",
	"1.20.5/rocksdb-incremental/s3-presto/constant-id-collision",
)

// everydayCells are those of CI.
const everydayCells = "1.20.5/rocksdb-incremental/file/application 2.3.0/rocksdb-incremental/file/run-no_claim"

// A state is how a job keeps what it knows, and which of it is pinned.
type state struct {
	backend     string
	incremental bool
	conf        map[string]string
	options     func(job.Options) job.Options

	source   string // "" for a checkpoint, else the savepoint that is pinned first
	interval time.Duration
	inFlight bool

	// witness returns "" if the _metadata that is pinned first holds what the cell is about, else what is missing.
	witness func(*metadata.File) string
}

var (
	merging   = map[string]string{"execution.checkpointing.file-merging.enabled": "true"}
	across    = map[string]string{"execution.checkpointing.file-merging.across-checkpoint-boundary": "true"}
	unaligned = map[string]string{
		"execution.checkpointing.unaligned":         "true", // up to 1.17
		"execution.checkpointing.unaligned.enabled": "true",
		"taskmanager.memory.segment-size":           "4kb", // or a slow job takes long to empty its buffers
	}
)

// states are the values of a cell's second column.
var states = map[string]state{
	"hashmap":             {backend: "hashmap", witness: files(metadata.AbsoluteFile)},
	"rocksdb-full":        {backend: "rocksdb", witness: files(metadata.AbsoluteFile)},
	"rocksdb-incremental": {backend: "rocksdb", incremental: true, witness: role(metadata.IncrementalShared)},
	"forst":               {backend: "forst", incremental: true, witness: role(metadata.IncrementalShared)},
	"inline":              {backend: "hashmap", options: func(job.Options) job.Options { return job.Inline() }, witness: allInline},
	"finished":            {backend: "hashmap", options: finishing, conf: map[string]string{"execution.checkpointing.checkpoints-after-tasks-finish.enabled": "true"}, witness: hasFinished},
	"unaligned":           {backend: "hashmap", options: job.Options.Slow, conf: unaligned, inFlight: true, witness: role(metadata.InputChannel, metadata.OutputChannel)},
	"merging-within":      {backend: "hashmap", conf: merging, witness: files(metadata.Segment)},
	"merging-across":      {backend: "rocksdb", incremental: true, conf: union(merging, across), witness: files(metadata.Segment)},
	"merging-across-unaligned": {backend: "rocksdb", incremental: true, options: job.Options.Slow, conf: union(merging, across, unaligned),
		inFlight: true, witness: role(metadata.InputChannel, metadata.OutputChannel)},
	"changelog":              {backend: "rocksdb", incremental: true, conf: changelog, witness: hasChangelog},
	"changelog-stopped":      {backend: "rocksdb", incremental: true, conf: changelog, source: "stopped", witness: files(metadata.AbsoluteFile)},
	"rocksdb-canonical":      {backend: "rocksdb", incremental: true, source: "canonical", interval: 5 * time.Second, witness: files(metadata.AbsoluteFile)},
	"rocksdb-native":         {backend: "rocksdb", incremental: true, source: "native", interval: 5 * time.Second, witness: role(metadata.IncrementalShared)},
	"rocksdb-stopped":        {backend: "rocksdb", incremental: true, source: "stopped", witness: files(metadata.AbsoluteFile)},
	"rocksdb-stopped-native": {backend: "rocksdb", incremental: true, source: "stopped-native", witness: role(metadata.IncrementalShared)},
}

// changelog is written below the place where the trial keeps all else, which prepare adds. It materializes often, so that
// what is pinned has both parts.
var changelog = map[string]string{
	"state.changelog.enabled":                       "true",
	"state.changelog.storage":                       "filesystem",
	"state.changelog.periodic-materialize.interval": "3 s",
}

func hasChangelog(f *metadata.File) string {
	if !f.Changelog() {
		return "no changelog"
	}
	return ""
}

func finishing(o job.Options) job.Options {
	o.Finishing = true
	return o
}

func union(all ...map[string]string) map[string]string {
	conf := map[string]string{}
	for _, one := range all {
		maps.Copy(conf, one)
	}
	return conf
}

func files(kind metadata.Kind) func(*metadata.File) string {
	return func(f *metadata.File) string {
		for h := range f.Handles() {
			if h.Kind == kind {
				return ""
			}
		}
		return "no " + kind.String()
	}
}

func role(any ...metadata.Role) func(*metadata.File) string {
	return func(f *metadata.File) string {
		for h := range f.Handles() {
			if slices.Contains(any, h.Role) {
				return ""
			}
		}
		return "no " + any[0].String()
	}
}

func allInline(f *metadata.File) string {
	for h := range f.Handles() {
		if h.Kind != metadata.Inline {
			return "state in a " + h.Kind.String()
		}
	}
	return ""
}

func hasFinished(f *metadata.File) string {
	whole, part := false, false
	for _, operator := range f.Operators {
		whole = whole || operator.Finished
		part = part || slices.ContainsFunc(operator.Subtasks, func(s metadata.Subtask) bool { return s.Finished })
	}
	switch {
	case !whole:
		return "no operator that has finished"
	case !part:
		return "no subtask that has finished beside one that has not"
	}
	return ""
}

// stores are the values of a cell's third column.
var stores = []storage{volume, s3Hadoop, s3Presto, s3Entropy, azure}

// chosenTrials are the cells to run: those that CHKPIN_MATRIX matches, else those that have no result in the folder
// CHKPIN_MATRIX_RESULTS, else the everyday ones, unless CHKPIN_E2E asks for other tests.
func chosenTrials(results *matrix.Results) []matrix.Cell {
	pattern := os.Getenv("CHKPIN_MATRIX")
	chosen := func(matrix.Cell) bool { return false }
	switch {
	case pattern != "":
		chosen = matrix.Matching(pattern)
	case results != nil:
		chosen = func(c matrix.Cell) bool { return !results.Done(c) }
	case os.Getenv("CHKPIN_E2E") == "":
		chosen = func(c matrix.Cell) bool { return slices.Contains(strings.Fields(everydayCells), c.String()) }
	}
	return slices.DeleteFunc(slices.Clone(matrixCells), func(c matrix.Cell) bool { return !chosen(c) })
}

// TestRestoreMatrix runs cells of the matrix, two at a time, and writes the results into the folder that
// CHKPIN_MATRIX_RESULTS names after each.
func TestRestoreMatrix(t *testing.T) {
	var results *matrix.Results
	if folder := os.Getenv("CHKPIN_MATRIX_RESULTS"); folder != "" {
		var err error
		results, err = matrix.Open(folder)
		require.NoError(t, err)
		results.Keep(matrixCells)
	}
	chosen := chosenTrials(results)
	if len(chosen) == 0 {
		require.Empty(t, os.Getenv("CHKPIN_MATRIX"), "CHKPIN_MATRIX matches none of %v", matrixCells)
		return
	}
	l, err := lab.Find()
	require.NoError(t, err)
	chkpin, kept := buildChkpin(t), &keeper{results: results}

	clusters := make(chan struct{}, 2)
	for _, c := range chosen {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			clusters <- struct{}{}
			t.Cleanup(func() { <-clusters })
			runTrial(t, l, c, chkpin, kept)
		})
	}
}

// keeper writes results down, if they are to be kept.
type keeper struct {
	mu      sync.Mutex
	results *matrix.Results // nil: they are not
}

func (k *keeper) put(t *testing.T, result matrix.Result) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t.Logf("%s: %s: %s (%.0f s)", result.Cell, result.Outcome, result.Note, result.Seconds)
	if k.results != nil {
		k.results.Put(result)
		k.results.Keep(matrixCells)
		assert.NoError(t, k.results.Write())
	}
}

// runTrial runs a cell and keeps its result, whatever that is.
func runTrial(t *testing.T, l lab.Lab, c matrix.Cell, chkpin string, kept *keeper) {
	kind := slices.IndexFunc(stores, func(s storage) bool { return s.name == c.Store })
	st, known := states[c.State]
	require.True(t, known && kind >= 0, "%s: no such state or store", c)

	s := emptyStory(t, l, cell{c.Release, st.backend, stores[kind]}, chkpin, new(table)) // of Azure one waits for the other
	began := time.Now()
	result := matrix.Result{Cell: c, Day: matrix.Today(began), Outcome: matrix.Failed, Note: "it ended in the middle"} // as by a panic
	defer func() {
		result.Seconds = time.Since(began).Seconds()
		if t.Failed() { // also by a call that ends the test
			result.Outcome, result.Note = matrix.Failed, s.failure
		}
		kept.put(t, result)
	}()
	s.fetch()
	m := &trial{story: s, cell: c, state: st}
	m.prepare()
	result.Outcome, result.Note = m.tell()
}
