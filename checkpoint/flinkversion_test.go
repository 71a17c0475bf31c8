package checkpoint

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint/metadata"
)

func TestParseRelease(t *testing.T) {
	for text, want := range map[string]FlinkVersion{
		"1.20": {1, 20}, "1.9.3": {1, 9}, "2.3.0": {2, 3}, "2.4-SNAPSHOT": {2, 4}, "1.15.4-scala_2.12": {1, 15},
	} {
		r, err := ParseFlinkVersion(text)
		require.NoError(t, err, text)
		require.Equal(t, want, r)
	}
	for _, text := range []string{"", "2", "latest", "v1.20", "0.9", "-1.2", "1.-5"} {
		_, err := ParseFlinkVersion(text)
		require.ErrorContains(t, err, "is not a release of Flink", text)
	}
}

// How to say what to restore, in the words of each release.
func TestNamesOfReleases(t *testing.T) {
	const path = "s3://b/app/last-state/_metadata"
	r := Resolved{Path: blobstore.MustParse(path)}
	require.Equal(t, []string{"--fromSavepoint", path}, r.Args())
	older := []Setting{{"execution.savepoint.path", path}, {"execution.savepoint-restore-mode", "NO_CLAIM"}}
	newer := []Setting{{"execution.state-recovery.path", path}, {"execution.state-recovery.claim-mode", "NO_CLAIM"}}
	for _, c := range []struct {
		release  FlinkVersion
		run      []string
		settings []Setting
	}{
		{FlinkVersion{}, []string{"-s", path, "-restoreMode", "NO_CLAIM"}, older},
		{FlinkVersion{1, 13}, []string{"-s", path}, older[:1]},
		{FlinkVersion{1, 14}, []string{"-s", path}, older[:1]},
		{FlinkVersion{1, 15}, []string{"-s", path, "-restoreMode", "NO_CLAIM"}, older},
		{FlinkVersion{1, 19}, []string{"-s", path, "-restoreMode", "NO_CLAIM"}, older},
		{FlinkVersion{1, 20}, []string{"-s", path, "-claimMode", "NO_CLAIM"}, newer},
		{FlinkVersion{2, 0}, []string{"-s", path, "-claimMode", "NO_CLAIM"}, newer},
		{FlinkVersion{2, 3}, []string{"-s", path, "-claimMode", "NO_CLAIM"}, newer},
	} {
		require.Equal(t, c.run, r.RunArgs(c.release), "%s", c.release)
		require.Equal(t, c.settings, r.Settings(c.release), "%s", c.release)
	}
}

// The version of a file does not say who reads it; its handles do, too.
func TestReadableSince(t *testing.T) {
	for _, c := range []struct {
		version int32
		tag     byte
		dialect metadata.Dialect
		want    FlinkVersion
	}{
		{2, 5, metadata.Standard, FlinkVersion{1, 3}},
		{3, 5, metadata.Standard, FlinkVersion{1, 11}},
		{3, 6, metadata.Flink111, FlinkVersion{1, 11}},
		{3, 7, metadata.Standard, FlinkVersion{1, 13}},
		{3, 10, metadata.Flink114, FlinkVersion{1, 14}},
		{3, 12, metadata.Standard, FlinkVersion{1, 15}},
		{4, 12, metadata.Standard, FlinkVersion{1, 16}},
		{4, 14, metadata.Standard, FlinkVersion{1, 16}},
		{4, 17, metadata.Standard, FlinkVersion{1, 20}},
		{5, 12, metadata.Standard, FlinkVersion{2, 0}},
		{6, 17, metadata.Standard, FlinkVersion{2, 1}},
	} {
		s := &Snapshot{File: &metadata.File{Version: c.version, HighestTag: c.tag, Dialect: c.dialect}}
		require.Equal(t, c.want, s.ReadableSince(), "%+v", c)
	}
}

// What Flink's own readers were seen to refuse, and what they take: they ran on these files
// (metadata/testdata/generator).
func TestReadableAsMeasured(t *testing.T) {
	for _, c := range []struct {
		file         string
		since, until FlinkVersion
	}{
		{"1.8.3-serializer", FlinkVersion{1, 3}, FlinkVersion{}},
		{"1.11.6-serializer", FlinkVersion{1, 11}, FlinkVersion{1, 11}},
		{"1.12.7-serializer", FlinkVersion{1, 12}, FlinkVersion{}},
		{"1.14.6-rocksdb-incremental", FlinkVersion{1, 11}, FlinkVersion{}},
		{"1.14.6-rocksdb-finished", FlinkVersion{1, 14}, FlinkVersion{}},
		{"1.14.6-serializer-changelog", FlinkVersion{1, 14}, FlinkVersion{1, 14}},
		{"1.15.4-serializer-changelog", FlinkVersion{1, 15}, FlinkVersion{}},
	} {
		file, err := metadata.Parse(testdata(t, "metadata/testdata/"+c.file+"/_metadata"))
		require.NoError(t, err)
		s := &Snapshot{File: file}
		require.Equal(t, c.since, s.ReadableSince(), c.file)
		require.Equal(t, c.until, s.ReadableUntil(), c.file)
	}
}

// Every recording is readable by the release that wrote it.
func TestRecordingsAreReadable(t *testing.T) {
	for _, r := range recordings {
		job := newJob(t, r)
		job.completes(r.id)
		wrote, err := ParseFlinkVersion(r.name)
		require.NoError(t, err)
		since := loaded(t, job.store, job.chk(r.id)).ReadableSince()
		require.LessOrEqual(t, since.Compare(wrote), 0, "%s: %s", r.name, since)
	}
}

func TestResolveWarnsOfADowngrade(t *testing.T) {
	x := newLab(t, 4) // of 2.3.0
	for release, warned := range map[FlinkVersion]bool{{}: false, {1, 20}: true, {2, 0}: true, {2, 1}: false, {2, 3}: false} {
		r, err := resolve(t, x.store, ResolveOptions{Flink: release})
		require.NoError(t, err)
		require.Equal(t, warned, len(r.Warnings) == 1, "%s: %q", release, r.Warnings)
	}
}
