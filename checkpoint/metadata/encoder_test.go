package metadata

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// encoder writes _metadata files value by value and notes the handles that a reader must find in them.
// It shares no code with the reader.
type encoder struct {
	buf     []byte
	version int
	dialect Dialect

	operator, subtask int
	role              Role
	shared, delegate  bool
	want              []found
}

// found is everything a Handle tells.
type found struct {
	Kind              Kind
	Role              Role
	Operator, Subtask int
	Offset            int64
	Path              string
	Size, Start       int64
	Shared, Delegate  bool
}

func (e *encoder) raw(b ...byte) *encoder { e.buf = append(e.buf, b...); return e }
func (e *encoder) i8(n int) *encoder      { return e.raw(byte(n)) }
func (e *encoder) i16(n int) *encoder {
	e.buf = binary.BigEndian.AppendUint16(e.buf, uint16(n))
	return e
}
func (e *encoder) i32(n int) *encoder {
	e.buf = binary.BigEndian.AppendUint32(e.buf, uint32(n))
	return e
}
func (e *encoder) i64(n int) *encoder {
	e.buf = binary.BigEndian.AppendUint64(e.buf, uint64(n))
	return e
}
func (e *encoder) utf(s string) *encoder { return e.i16(len(s)).raw([]byte(s)...) }

// note records a handle that starts here.
func (e *encoder) note(f found) {
	f.Role, f.Operator, f.Subtask, f.Offset = e.role, e.operator, e.subtask, int64(len(e.buf))
	f.Shared, f.Delegate = f.Shared || e.shared, e.delegate
	e.want = append(e.want, f)
}

// stream writes a stream state handle of the given tag, with a path of its own.
func (e *encoder) stream(tag int) *encoder {
	n := len(e.want)
	path := fmt.Sprintf("file:/state/%d", n)
	switch tag {
	case 1:
		e.note(found{Kind: Inline, Size: 3})
		e.i8(1).utf(path).i32(3).raw(1, 2, 3)
	case 2:
		e.note(found{Kind: AbsoluteFile, Path: path, Size: int64(n)})
		e.i8(2).i64(n).utf(path)
	case 3:
		e.i8(3).i32(0).i32(2).i64(0).i64(10).stream(2)
	case 6:
		e.note(found{Kind: RelativeFile, Path: path[6:], Size: -1})
		e.i8(6).utf(path[6:]).i64(-1)
	case 15:
		scope := n % 2
		e.note(found{Kind: Segment, Path: path, Start: 7, Size: int64(n), Shared: scope == 1})
		e.i8(15).i64(7).i64(n).i32(scope).utf(path).utf("logical")
	case 16:
		e.note(found{Kind: EmptySegment})
		e.i8(16)
	default:
		e.i8(tag)
	}
	return e
}

// as writes with another role.
func (e *encoder) as(role Role, write func()) *encoder {
	old := e.role
	e.role = role
	write()
	e.role = old
	return e
}

// keyed writes a keyed state handle of the given tag, with a stream handle of another tag wherever it has one.
func (e *encoder) keyed(tag, stream int) *encoder {
	const backend, id = "backend", "handle-id"
	old := e.dialect == Flink114
	e.i8(tag)
	switch tag {
	case 3, 7, 12:
		e.i32(0).i32(2).i64(0).i64(100).stream(stream)
		if tag == 12 {
			e.utf(id)
		}
	case 5, 11:
		e.i64(9).utf(backend).i32(0).i32(64)
		if tag == 11 {
			e.i64(1000)
		}
		meta, shared, private := IncrementalMeta, IncrementalShared, IncrementalPrivate
		if e.role >= ChangelogBase {
			meta, shared, private = ChangelogMeta, ChangelogShared, ChangelogPrivate
		}
		e.as(meta, func() { e.stream(stream) })
		e.as(shared, func() {
			e.shared = true
			e.i32(2).utf("1.sst").stream(stream).utf("2.sst").stream(stream)
			e.shared = false
		})
		e.as(private, func() { e.i32(1).utf("OPTIONS").stream(stream) })
		if tag == 11 {
			e.utf(id)
		}
	case 8, 14:
		e.i32(0).i32(64)
		if !old {
			e.i64(1000)
		}
		states, changes := e.keyedTags()
		e.as(ChangelogBase, func() {
			e.i32(len(states))
			for _, tag := range states {
				e.keyed(tag, stream)
			}
		})
		e.as(ChangelogDelta, func() {
			e.i32(len(changes))
			for _, tag := range changes {
				e.keyed(tag, stream)
			}
		})
		if !old {
			e.i64(3)
		}
		if tag == 14 {
			e.i64(9)
		}
		if !old {
			e.utf(id)
		}
	case 9:
		e.i32(0).i32(64).i64(1).i64(2).i32(2).i32(-1).i32(1).raw(0).i32(5).i32(0)
		if !old {
			e.utf(id)
		}
	case 10, 13:
		e.as(ChangelogDelta, func() { e.i32(0).i32(64).i32(2).i64(0).stream(stream).i64(9).stream(stream) })
		e.i64(20)
		if !old {
			e.i64(20).utf(id)
		}
		if tag == 13 {
			e.utf("filesystem")
		}
	}
	return e
}

// streamTags returns the tags that the format can have at a stream position.
func (e *encoder) streamTags() []int {
	switch {
	case e.version == 2:
		return []int{0, 1, 2}
	case e.dialect == Flink111:
		return []int{0, 1, 2, 6}
	case e.dialect == Flink114:
		return []int{0, 1, 2, 3, 6}
	}
	return []int{0, 1, 2, 3, 6, 15, 16}
}

// keyedTags returns the tags of keyed state, and of changes to it, that the format has. The changelog handles
// proper (8 and 14) hold both and are not among them.
func (e *encoder) keyedTags() (states, changes []int) {
	switch {
	case e.version == 2, e.dialect == Flink111:
		return []int{0, 3, 5}, nil
	case e.dialect == Flink114:
		return []int{0, 3, 5, 7}, []int{9, 10}
	}
	return []int{0, 3, 5, 7, 11, 12}, []int{9, 10, 13}
}

func (e *encoder) changelogTags() []int {
	switch {
	case e.version == 2, e.dialect == Flink111:
		return nil
	case e.dialect == Flink114:
		return []int{8}
	}
	return []int{8, 14}
}

// operatorState writes an operator state handle with a delegate of the given tag.
func (e *encoder) operatorState(tag, delegate int) *encoder {
	e.i8(tag)
	e.i32(3)
	for mode, name := range []string{"split", "union", "broadcast"} {
		e.utf(name).i8(mode).i32(2).i64(0).i64(8)
	}
	if tag == 4 {
		return e.stream(delegate)
	}
	e.delegate = true
	for _, path := range []string{"file:/owned/a", "file:/shared/b"} {
		e.note(found{Kind: Directory, Path: path, Size: -1})
		e.utf(path)
	}
	empty := 0
	if delegate == 16 {
		empty = 1
	}
	e.i8(empty).stream(delegate)
	e.delegate = false
	return e
}

// channel writes a handle of in-flight data. Form is the type byte of version 6.
func (e *encoder) channel(form, stream int) *encoder {
	if e.version >= 6 {
		e.i8(form)
	}
	if e.dialect != Flink111 {
		e.i32(e.subtask)
	}
	if form >= 3 {
		return e.i64(30).stream(stream).i32(4).raw(0, 0, 0, 0)
	}
	return e.i32(1).i32(2).i32(2).i64(0).i64(15).i64(30).stream(stream)
}

// header begins a file.
func (e *encoder) header(checkpoint int) *encoder {
	return e.i32(magic).i32(e.version).i64(checkpoint)
}

// operatorHead begins an operator; its coordinator comes next since version 3, its subtasks before that.
func (e *encoder) operatorHead(id byte, name, uid string) *encoder {
	if e.version >= 5 {
		e.utf(name).utf(uid)
	}
	for range 16 {
		e.raw(id)
	}
	e.i32(1000).i32(32768)
	if e.version == 2 {
		e.i32(1)
	}
	return e
}

// subtaskHead begins a subtask.
func (e *encoder) subtaskHead(index int) *encoder {
	e.subtask = index
	e.i32(index)
	if e.version == 2 {
		e.i64(-1).i32(0)
	}
	return e
}

// subtaskParts writes a subtask; a part without a function is empty.
type subtaskParts struct {
	managedOperator, rawOperator, managedKeyed, rawKeyed func()
	inputs, outputs                                      []func()
}

func (e *encoder) subtaskBody(p subtaskParts) *encoder {
	for i, write := range []func(){p.managedOperator, p.rawOperator} {
		if write == nil {
			e.i32(0)
			continue
		}
		e.i32(1).as(ManagedOperator+Role(i), write)
	}
	for i, write := range []func(){p.managedKeyed, p.rawKeyed} {
		if write == nil {
			e.i8(0)
			continue
		}
		e.as(ManagedKeyed+Role(i), write)
	}
	if e.version == 2 {
		return e
	}
	for i, list := range [][]func(){p.inputs, p.outputs} {
		e.i32(len(list))
		for _, write := range list {
			e.as(InputChannel+Role(i), write)
		}
	}
	return e
}

// everything writes a file with every tag at every position that its version and dialect have.
func (e *encoder) everything() []byte {
	e.header(42)
	e.i32(2) // masters
	e.raw(0xC9, 0x6B, 0x16, 0x96).i32(4+2+4+4+3).i32(1).utf("hook").i32(3).raw(7, 8, 9)
	e.raw(0xC9, 0x6B, 0x16, 0x96).i32(4 + 2 + 4).i32(2).utf("").i32(0)

	if e.version == 2 {
		e.i32(2)
		e.operatorHead(0xAA, "", "").allSubtasks()
		e.operator = 1
		e.operatorHead(0xBB, "", "").i32(0)
		return e.buf
	}
	e.i32(3)
	e.operatorHead(0xAA, "Quelle → Senke", "uid-1")
	e.subtask = -1
	e.as(Coordinator, func() { e.stream(1) })
	e.allSubtasks()
	e.operator = 1
	e.operatorHead(0xBB, "", "").i8(0).i32(-1)
	e.operator = 2
	e.operatorHead(0xCC, "", "").i8(0).i32(0)
	if e.version >= 4 {
		e.raw(0xAC, 0xED, 0x00, 0x05).raw(0x70)
	}
	return e.buf
}

func (e *encoder) allSubtasks() {
	var all []subtaskParts
	states, changes := e.keyedTags()
	for _, tag := range append(append(states, changes...), e.changelogTags()...) {
		for _, stream := range e.streamTags() {
			all = append(all, subtaskParts{managedKeyed: func() { e.keyed(tag, stream) }})
		}
		all = append(all, subtaskParts{rawKeyed: func() { e.keyed(tag, 2) }})
	}
	for _, stream := range e.streamTags() {
		write := func() { e.operatorState(4, stream) }
		all = append(all, subtaskParts{managedOperator: write, rawOperator: write})
		if e.version < 3 {
			continue
		}
		channels := subtaskParts{
			inputs:  []func(){func() { e.channel(1, stream) }},
			outputs: []func(){func() { e.channel(2, stream) }},
		}
		if e.version >= 6 {
			channels.inputs = append(channels.inputs, func() { e.channel(3, stream) })
			channels.outputs = append(channels.outputs, func() { e.channel(4, stream) })
		}
		all = append(all, channels)
	}
	if e.version > 2 && e.dialect == Standard {
		merged := func() { e.operatorState(17, 15) }
		empty := func() { e.operatorState(17, 16) }
		all = append(all, subtaskParts{managedOperator: merged, rawOperator: empty})
	}

	finished := 0
	if e.version > 2 && e.dialect != Flink111 {
		finished = 1
	}
	e.i32(len(all) + finished)
	for i, parts := range all {
		e.subtaskHead(i).subtaskBody(parts)
	}
	if finished == 1 {
		e.i32(-1 - len(all))
	}
}

// generated returns a file of everything for each version and dialect.
func generated() map[string]*encoder {
	files := map[string]*encoder{
		"version 2": {version: 2}, "version 3": {version: 3}, "version 4": {version: 4},
		"version 5": {version: 5}, "version 6": {version: 6},
		"version 3 of Flink 1.11": {version: 3, dialect: Flink111},
		"version 3 of Flink 1.14": {version: 3, dialect: Flink114},
	}
	for _, e := range files {
		e.everything()
	}
	return files
}

var realDir = flag.String("real", "testdata", "the folder of the real files")

// realFiles returns the _metadata files in testdata by the name of their directory.
func realFiles(t testing.TB) map[string][]byte {
	paths, err := filepath.Glob(filepath.Join(*realDir, "*", "_metadata"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(paths), 70, "real files in testdata")
	files := map[string][]byte{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		files[filepath.Base(filepath.Dir(path))] = data
	}
	return files
}

// handles returns all that the handles of a file tell.
func handles(t testing.TB, f *File) []found {
	var all []found
	for h := range f.Handles() {
		path, err := h.Path()
		if h.Kind == Inline || h.Kind == EmptySegment {
			require.ErrorIs(t, err, ErrNoPath)
		} else {
			require.NoError(t, err)
		}
		all = append(all, found{
			Kind: h.Kind, Role: h.Role, Operator: h.Operator, Subtask: h.Subtask, Offset: h.Offset,
			Path: path, Size: h.Size(), Start: h.Start(), Shared: h.Shared(), Delegate: h.OperatorDelegate(),
		})
	}
	return all
}
