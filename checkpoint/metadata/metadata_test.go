package metadata

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files in testdata")

// Every real file parses to what its golden file says.
func TestRealFiles(t *testing.T) {
	for name, data := range realFiles(t) {
		t.Run(name, func(t *testing.T) {
			file, err := Parse(data)
			require.NoError(t, err)
			assert.Equal(t, data, file.Bytes())
			golden := filepath.Join("testdata", name, "golden.txt")
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(describe(t, file)), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			assert.Equal(t, string(want), describe(t, file))
		})
	}
}

// Together the files that Flink wrote hold every handle tag that a version and dialect has. (Of tag 3 there are two: a
// keyed handle until 1.14, and a stream handle since 1.13.)
func TestRealFilesHoldEveryTag(t *testing.T) {
	found := map[string]uint32{}
	for _, data := range realFiles(t) {
		file, err := Parse(data)
		require.NoError(t, err)
		found[fmt.Sprintf("%d %v", file.Version, file.Dialect)] |= file.tags
	}
	tags := map[string][]int{}
	for format, bits := range found {
		for tag := range 32 {
			if bits>>tag&1 == 1 {
				tags[format] = append(tags[format], tag)
			}
		}
	}
	assert.Equal(t, map[string][]int{
		"2 standard":   {0, 1, 2, 3, 4, 5},
		"3 flink-1.11": {0, 1, 2, 3, 4, 5, 6},
		"3 flink-1.14": {0, 1, 2, 3, 5, 6, 8, 9, 10}, // 4 and 7 do not tell it from standard
		"3 standard":   {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12},
		"4 standard":   {0, 1, 2, 3, 4, 6, 7, 9, 11, 12, 13, 14, 15, 16, 17},
		"5 standard":   {0, 1, 2, 3, 4, 6, 7, 9, 11, 12, 13, 14, 15, 16, 17},
		"6 standard":   {0, 1, 2, 3, 4, 6, 7, 9, 11, 12, 13, 14, 15, 16, 17},
	}, tags)
}

// describe tells in a page what is in a file.
func describe(t *testing.T, f *File) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version %d (%v), checkpoint %d, highest tag %d, changelog %v\n",
		f.Version, f.Dialect, f.CheckpointID, f.HighestTag, f.Changelog())
	fmt.Fprintf(&b, "properties %+v\n", f.Properties)
	for _, m := range f.Masters {
		fmt.Fprintf(&b, "master %+v\n", m)
	}
	for i, op := range f.Operators {
		fmt.Fprintf(&b, "\noperator %v name=%q uid=%q parallelism %d of %d finished %v subtasks %v\n",
			op.ID, op.Name, op.UID, op.Parallelism, op.MaxParallelism, op.Finished, op.Subtasks)
		type group struct {
			count int
			size  int64
		}
		groups := map[string]group{}
		for _, h := range handles(t, f) {
			if h.Operator != i {
				continue
			}
			key := fmt.Sprintf("%-18v %-13v shared=%-5v delegate=%v", h.Role, h.Kind, h.Shared, h.Delegate)
			g := groups[key]
			groups[key] = group{g.count + 1, g.size + h.Size}
		}
		for _, key := range sortedKeys(groups) {
			fmt.Fprintf(&b, "  %s: %d handles, sizes sum to %d\n", key, groups[key].count, groups[key].size)
		}
	}
	b.WriteString("\npaths\n")
	paths := map[string]int{}
	for _, h := range handles(t, f) {
		if h.Path != "" {
			paths[h.Path]++
		}
	}
	for _, path := range sortedKeys(paths) {
		fmt.Fprintf(&b, "  %d x %s\n", paths[path], path)
	}
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// Every tag at every position of every version is found with all its attributes.
func TestEveryTag(t *testing.T) {
	for name, e := range generated() {
		t.Run(name, func(t *testing.T) {
			file, err := Parse(e.buf)
			require.NoError(t, err)
			assert.Equal(t, e.want, handles(t, file))
			assert.Equal(t, len(e.want), file.NumHandles())

			assert.EqualValues(t, e.version, file.Version)
			assert.Equal(t, e.dialect, file.Dialect)
			assert.EqualValues(t, 42, file.CheckpointID)
			assert.Equal(t, []Master{{Name: "hook", Version: 1, Size: 3}, {Version: 2}}, file.Masters)

			op := file.Operators[0]
			assert.Equal(t, strings.Repeat("aa", 16), op.ID.String())
			assert.EqualValues(t, 1000, op.Parallelism)
			assert.EqualValues(t, 32768, op.MaxParallelism)
			for i, subtask := range op.Subtasks {
				assert.EqualValues(t, i, subtask.Index)
			}
			if e.version >= 5 {
				assert.Equal(t, "Quelle → Senke", op.Name)
				assert.Equal(t, "uid-1", op.UID)
			}
			if e.version > 2 {
				assert.True(t, file.Operators[1].Finished)
				assert.False(t, file.Operators[2].Finished)
			}
			if e.version > 2 && e.dialect != Flink111 {
				assert.True(t, op.Subtasks[len(op.Subtasks)-1].Finished)
				assert.True(t, file.Changelog())
			} else {
				assert.False(t, file.Changelog())
			}
		})
	}
}

func TestHighestTag(t *testing.T) {
	files := generated()
	for name, want := range map[string]byte{
		"version 2": 5, "version 3 of Flink 1.11": 6, "version 3 of Flink 1.14": 10, "version 3": 17, "version 6": 17,
	} {
		file, err := Parse(files[name].buf)
		require.NoError(t, err)
		assert.Equal(t, want, file.HighestTag, name)
	}
	empty, err := Parse((&encoder{version: 3}).header(1).i32(0).i32(0).buf)
	require.NoError(t, err)
	assert.Zero(t, empty.HighestTag)
}

func TestHandlesCanBeLeftEarly(t *testing.T) {
	file, err := Parse(generated()["version 6"].buf)
	require.NoError(t, err)
	n := 0
	for range file.Handles() {
		if n++; n == 3 {
			break
		}
	}
	assert.Equal(t, 3, n)
}

func TestNames(t *testing.T) {
	assert.Equal(t, "relative-file", RelativeFile.String())
	assert.Equal(t, "kind(0)", Kind(0).String())
	assert.Equal(t, "incremental-shared", IncrementalShared.String())
	assert.Equal(t, "role(99)", Role(99).String())
	assert.Equal(t, "flink-1.11", Flink111.String())

	e := (&encoder{version: 3}).header(1).i32(0).i32(1).operatorHead(1, "", "").stream(1).i32(2)
	for i := range 2 {
		e.subtaskHead(i).subtaskBody(subtaskParts{rawKeyed: func() { e.keyed(3, 6) }})
	}
	file, err := Parse(e.buf)
	require.NoError(t, err)
	var names []string
	for h := range file.Handles() {
		names = append(names, h.String())
	}
	assert.Equal(t, []string{
		"inline handle (coordinator of operators[0]) at offset 48",
		"relative-file handle (raw-keyed of operators[0].subtasks[0]) at offset 113",
		"relative-file handle (raw-keyed of operators[0].subtasks[1]) at offset 177",
	}, names)
}

// The tails are what Flink 2.3.0 serializes; see testdata/README.md.
func TestProperties(t *testing.T) {
	for name, want := range map[string]Properties{
		"2.3.0-checkpoint":          {Present: true, Length: 604},
		"2.3.0-savepoint-canonical": {Present: true, Savepoint: true, Format: Canonical, Length: 745},
		"2.3.0-savepoint-native":    {Present: true, Savepoint: true, Format: Native, Length: 742},
		"2.3.0-savepoint-suspend":   {Present: true, Savepoint: true, Format: Canonical, Length: 756},
		"2.3.0-savepoint-terminate": {Present: true, Savepoint: true, Format: Native, Length: 757},
	} {
		t.Run(name, func(t *testing.T) {
			tail, err := os.ReadFile(filepath.Join("testdata", "properties", name))
			require.NoError(t, err)
			body := (&encoder{version: 4}).header(1).i32(0).i32(0).buf

			file, err := Parse(append(slices.Clone(body), tail...))
			require.NoError(t, err)
			assert.Equal(t, want, file.Properties)

			for n := range tail {
				_, err := Parse(append(slices.Clone(body), tail[:n]...))
				require.ErrorIs(t, err, ErrTruncated, "%d bytes of %d", n, len(tail))
			}
			file, err = Parse(append(append(slices.Clone(body), tail...), "more"...))
			require.NoError(t, err, "Java ignores what follows its object")
			assert.Equal(t, want.Format, file.Properties.Format)
		})
	}
}

// Fields that come or go in later releases do no harm.
func TestPropertiesOfOtherReleases(t *testing.T) {
	const pkg = "org.apache.flink.runtime.checkpoint."
	e := (&encoder{version: 6}).header(1).i32(0).i32(0)
	start := len(e.buf)
	e.raw(0xAC, 0xED, 0x00, 0x05).i8(0x73)
	e.i8(0x72).utf(pkg + "CheckpointProperties").i64(2).i8(2).i16(10)
	for i, code := range "ZBCSIFJD" {
		e.i8(int(code)).utf(string(rune('a' + i)))
	}
	e.i8('L').utf("checkpointType").i8(0x74).utf("LAny;")
	e.i8('L').utf("new").i8(0x71).i32(0x7E0001) // the same text
	e.i8(0x78).i8(0x70)
	e.raw(make([]byte, 1+1+2+2+4+4+8+8)...)
	e.i8(0x73).i8(0x72).utf(pkg + "SavepointType").i64(1).i8(2).i16(0).i8(0x78).i8(0x70)
	e.i8(0x73).i8(0x71).i32(0x7E0003) // another object of the class just described

	file, err := Parse(e.buf)
	require.NoError(t, err)
	assert.Equal(t, Properties{Present: true, Savepoint: true, Length: len(e.buf) - start}, file.Properties)
}

// A tail of an unknown shape is carried along and tells nothing.
func TestUnknownProperties(t *testing.T) {
	java := func() *encoder { return (&encoder{}).raw(0xAC, 0xED, 0x00, 0x05) }
	class := func(e *encoder, name string, flags int) *encoder {
		return e.i8(0x72).utf(name).i64(1).i8(flags)
	}
	deep := java()
	for range 40 {
		class(deep.i8(0x73), "C", 2).i16(1).i8('L').utf("f").i8(0x74).utf("LC;").i8(0x78).i8(0x70)
	}
	for name, tail := range map[string]*encoder{
		"null":                       java().i8(0x70),
		"a string":                   java().i8(0x74).utf("text"),
		"another class":              class(java().i8(0x73), "C", 2).i16(0).i8(0x78).i8(0x70),
		"an object of no class":      java().i8(0x73).i8(0x70),
		"a class with its own data":  class(java().i8(0x73), "C", 3).i16(0).i8(0x78).i8(0x70),
		"annotations":                class(java().i8(0x73), "C", 2).i16(0).i8(0x77).i8(0),
		"an unknown token":           java().i8(0x6F),
		"an array":                   class(java().i8(0x73), "C", 2).i16(1).i8('[').utf("f").i8(0x74).utf("[I").i8(0x78).i8(0x70),
		"a reference to nothing":     java().i8(0x71).i32(0x7E0000),
		"a class that is a string":   java().i8(0x73).i8(0x71).i32(0x7E0000),
		"a class of itself":          class(java().i8(0x73), "C", 2).i16(0).i8(0x78).i8(0x71).i32(0x7E0000),
		"an enum without a name":     class(java().i8(0x7E), "E", 0x12).i16(0).i8(0x78).i8(0x70).i8(0x70),
		"objects nested without end": deep,
		"far too long":               java().raw(make([]byte, maxProperties)...),
	} {
		t.Run(name, func(t *testing.T) {
			file, err := Parse((&encoder{version: 5}).header(1).i32(0).i32(0).raw(tail.buf...).buf)
			require.NoError(t, err)
			assert.Equal(t, Properties{Length: len(tail.buf)}, file.Properties)
		})
	}
}
