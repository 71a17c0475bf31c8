package metadata

import (
	"errors"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// refuse asserts that data is refused the way all bad data is.
func refuse(t testing.TB, data []byte) *FormatError {
	t.Helper()
	file, err := Parse(data)
	require.Error(t, err)
	require.Nil(t, file)
	var format *FormatError
	require.ErrorAs(t, err, &format)
	require.LessOrEqual(t, format.Offset, int64(len(data)))
	require.NotEmpty(t, format.Field)
	require.Condition(t, func() bool {
		return slices.ContainsFunc([]error{
			ErrMagic, ErrVersion, ErrTruncated, ErrTag, ErrCount, ErrValue, ErrText, ErrDepth, ErrTrailing,
		}, func(target error) bool { return errors.Is(err, target) })
	}, "%v wraps no error of the package", err)
	return format
}

// A file that breaks off anywhere is refused.
func TestTruncation(t *testing.T) {
	real := realFiles(t)
	for name, test := range map[string]struct {
		data []byte
		step int
	}{
		"1.20.5-hashmap-inline (the smallest)": {real["1.20.5-hashmap-inline"], 1},
		"1.13.6-hashmap":                       {real["1.13.6-hashmap"], 7},
		"1.20.5-rocksdb-filemerging":           {real["1.20.5-rocksdb-filemerging"], 7},
		"2.3.0-hashmap-unaligned":              {real["2.3.0-hashmap-unaligned"], 7},
	} {
		t.Run(name, func(t *testing.T) {
			for n := 0; n < len(test.data); n += test.step {
				refuse(t, test.data[:n])
			}
		})
	}
	for name, e := range generated() {
		t.Run(name, func(t *testing.T) {
			for n := range e.buf {
				refuse(t, e.buf[:n])
			}
		})
	}
}

// A file with one byte changed is refused or read, but nothing worse.
func TestCorruption(t *testing.T) {
	files := map[string][]byte{"1.20.5-hashmap-inline": realFiles(t)["1.20.5-hashmap-inline"]}
	for name, e := range generated() {
		files[name] = e.buf
	}
	for name, data := range files {
		t.Run(name, func(t *testing.T) {
			bad := slices.Clone(data)
			for i, good := range data {
				bad[i] = good ^ []byte{0xFF, 0x01, 0x80}[i%3]
				survives(t, bad)
				bad[i] = good
			}
		})
	}
}

// survives reads data that may be anything, and reports whether it is a file of which all paths can be told.
func survives(t testing.TB, data []byte) (readable bool) {
	file, err := Parse(data)
	if err != nil {
		refuse(t, data)
		return false
	}
	readable = true
	for h := range file.Handles() {
		h.Size()
		h.Start()
		if h.Kind == Inline || h.Kind == EmptySegment {
			continue
		}
		if _, err := h.Path(); err != nil {
			require.ErrorIs(t, err, ErrText)
			readable = false
		}
	}
	return readable
}

// Errors say at which byte, in which field and what.
func TestFormatError(t *testing.T) {
	file := func(version int) *encoder { return (&encoder{version: version}).header(7) }
	operator := func(version int) *encoder { return file(version).i32(0).i32(1).operatorHead(1, "", "") }
	subtask := func(version int) *encoder { return operator(version).i8(0).i32(1).subtaskHead(0) }
	keyed := func(version int) *encoder {
		if version == 2 {
			return operator(2).i32(1).subtaskHead(0).i32(0).i32(0)
		}
		return subtask(version).i32(0).i32(0)
	}
	incremental := func() *encoder { return keyed(4).i8(11).i64(1).utf("backend").i32(0).i32(4).i64(9).i8(0) }
	inputs := func() *encoder { return keyed(6).i8(0).i8(0) }
	// Enough bytes behind the defect that no count fails for want of them.
	pad := make([]byte, 200)

	type defect struct {
		data   *encoder
		back   int // the bad value ends this many bytes before the end of data
		size   int // of the bad value
		field  string
		err    error
		noPad  bool
		detail string
	}
	const keyedField = "operators[0].subtasks[0].managedKeyed"
	const operatorField = "operators[0].subtasks[0].managedOperator"
	for name, d := range map[string]defect{
		"another magic":          {data: (&encoder{}).i32(0x4960672E), size: 4, field: "magic", err: ErrMagic},
		"version 1":              {data: (&encoder{}).i32(magic).i32(1), size: 4, field: "version", err: ErrVersion, detail: ": 1"},
		"version 7":              {data: (&encoder{}).i32(magic).i32(7), size: 4, field: "version", err: ErrVersion, detail: ": 7"},
		"negative checkpoint id": {data: (&encoder{version: 3}).header(-1), size: 8, field: "checkpointId", err: ErrValue},
		"negative masters":       {data: file(3).i32(-1), size: 4, field: "masters", err: ErrCount, detail: ": -1"},
		"more masters than fit":  {data: file(3).i32(12), size: 4, field: "masters", err: ErrCount},
		"master magic":           {data: file(3).i32(1).i32(5), size: 4, field: "masters[0].magic", err: ErrMagic},
		"master size": {
			data: file(3).i32(1).raw(0xC9, 0x6B, 0x16, 0x96).i32(11).i32(1).utf("").i32(0).i8(0),
			size: 4, back: 11, field: "masters[0].size", err: ErrValue,
		},
		"negative operators":      {data: file(3).i32(0).i32(-5), size: 4, field: "operators", err: ErrCount},
		"huge operators":          {data: file(3).i32(0).i32(math.MaxInt32), size: 4, field: "operators", err: ErrCount},
		"name is no text":         {data: file(5).i32(0).i32(1).utf("\xFF"), size: 3, field: "operators[0].name", err: ErrText},
		"chain length":            {data: file(2).i32(0).i32(1).i64(1).i64(2).i32(1).i32(1).i32(2), size: 4, field: "operators[0].chainLength", err: ErrValue},
		"coordinator in a file":   {data: operator(3).i8(2), size: 1, field: "operators[0].coordinator.tag", err: ErrTag, detail: ": 2"},
		"finished, coordinator":   {data: operator(3).stream(1).i32(-1), size: 4, field: "operators[0].subtasks", err: ErrValue},
		"finished in version 2":   {data: operator(2).i32(-1), size: 4, field: "operators[0].subtasks", err: ErrCount},
		"huge subtasks":           {data: operator(3).i8(0).i32(1 << 20), size: 4, field: "operators[0].subtasks", err: ErrCount},
		"subtask index":           {data: operator(3).i8(0).i32(1).i32(1000), size: 4, field: "operators[0].subtasks[0].index", err: ErrValue},
		"finished subtask index":  {data: operator(3).i8(0).i32(1).i32(-1001), size: 4, field: "operators[0].subtasks[0].index", err: ErrValue},
		"negative index":          {data: operator(2).i32(1).i32(-1), size: 4, field: "operators[0].subtasks[0].index", err: ErrValue},
		"legacy state":            {data: operator(2).i32(1).i32(0).i64(-1).i32(1), size: 4, field: "operators[0].subtasks[0].legacyState", err: ErrValue},
		"operator tag":            {data: subtask(3).i32(1).i8(5), size: 1, field: operatorField + ".tag", err: ErrTag},
		"operator null":           {data: subtask(3).i32(1).i8(0), size: 1, field: operatorField + ".tag", err: ErrTag},
		"operator states":         {data: subtask(3).i32(1).i8(4).i32(-2), size: 4, field: operatorField + ".states", err: ErrCount},
		"operator mode":           {data: subtask(3).i32(1).i8(4).i32(1).utf("s").i8(3), size: 1, field: operatorField + ".states[0].mode", err: ErrValue},
		"operator offsets":        {data: subtask(3).i32(1).i8(4).i32(1).utf("s").i8(0).i32(99), size: 4, field: operatorField + ".states[0].offsets", err: ErrCount},
		"operator delegate":       {data: subtask(3).i32(1).i8(4).i32(0).i8(7), size: 1, field: operatorField + ".delegate.tag", err: ErrTag},
		"merged delegate":         {data: subtask(3).i32(1).i8(17).i32(0).utf("a").utf("b").i8(0).i8(2), size: 1, field: operatorField + ".delegate.tag", err: ErrTag},
		"merged empty":            {data: subtask(3).i32(1).i8(17).i32(0).utf("a").utf("b").i8(2), size: 1, field: operatorField + ".isEmpty", err: ErrValue},
		"merged directory":        {data: subtask(3).i32(1).i8(17).i32(0).utf("a").utf("\xFF"), size: 3, field: operatorField + ".sharedDirectory", err: ErrText},
		"keyed tag":               {data: keyed(3).i8(4), size: 1, field: keyedField + ".tag", err: ErrTag, detail: ": 4"},
		"keyed tag of the future": {data: keyed(6).i8(18), size: 1, field: keyedField + ".tag", err: ErrTag, detail: ": 18"},
		"keyed tag in version 2":  {data: keyed(2).i8(7), size: 1, field: keyedField + ".tag", err: ErrTag, detail: ": 7"},
		"raw keyed tag":           {data: keyed(3).i8(0).i8(1), size: 1, field: "operators[0].subtasks[0].rawKeyed.tag", err: ErrTag},
		"key group offsets":       {data: keyed(3).i8(3).i32(0).i32(-1), size: 4, field: keyedField + ".keyGroupOffsets", err: ErrCount},
		"key groups":              {data: keyed(3).i8(5).i64(1).utf("b").i32(0).i32(-1), size: 4, field: keyedField + ".keyGroups", err: ErrCount},
		"shared files":            {data: incremental().i32(1 << 30), size: 4, field: keyedField + ".shared", err: ErrCount},
		"shared file's tag":       {data: incremental().i32(2).utf("a").stream(2).utf("b").i8(12), size: 1, field: keyedField + ".shared[1].tag", err: ErrTag},
		"shared file's size":      {data: incremental().i32(1).utf("a").i8(2).i64(-2), size: 8, field: keyedField + ".shared[0].size", err: ErrValue},
		"shared file's path":      {data: incremental().i32(1).utf("a").i8(2).i64(1).utf("\xE0"), size: 3, field: keyedField + ".shared[0].path", err: ErrText},
		"shared file's end":       {data: incremental().i32(1).utf("a").i8(2).i64(1).i16(3).raw('a', 'b'), size: 4, field: keyedField + ".shared[0].path", err: ErrTruncated, noPad: true},
		"private file's size":     {data: incremental().i32(0).i32(1).utf("a").i8(6).utf("f").i64(math.MinInt64), size: 8, field: keyedField + ".private[0].size", err: ErrValue},
		"inline data":             {data: keyed(3).i8(7).i32(0).i32(0).i8(1).utf("n").i32(-1), size: 4, field: keyedField + ".delegate.data", err: ErrCount},
		"segment start":           {data: keyed(4).i8(7).i32(0).i32(0).i8(15).i64(-1), size: 8, field: keyedField + ".delegate.startPos", err: ErrValue},
		"segment size":            {data: keyed(4).i8(7).i32(0).i32(0).i8(15).i64(1).i64(math.MaxInt64), size: 8, field: keyedField + ".delegate.size", err: ErrValue},
		"segment scope":           {data: keyed(4).i8(7).i32(0).i32(0).i8(15).i64(1).i64(1).i32(2), size: 4, field: keyedField + ".delegate.scope", err: ErrValue},
		"nested stream's tag": {
			data: keyed(3).i8(7).i32(0).i32(0).i8(3).i32(0).i32(0).i8(5),
			size: 1, field: keyedField + ".delegate.delegate.tag", err: ErrTag,
		},
		"changelog base":   {data: keyed(4).i8(14).i32(0).i32(1).i64(0).i32(1).i8(6), size: 1, field: keyedField + ".base[0].tag", err: ErrTag},
		"changelog delta":  {data: keyed(4).i8(14).i32(0).i32(1).i64(0).i32(0).i32(1).i8(13).i32(0).i32(1).i32(1).i64(0).i8(9), size: 1, field: keyedField + ".delta[0].files[0].tag", err: ErrTag},
		"changes inline":   {data: keyed(4).i8(9).i32(0).i32(1).i64(0).i64(0).i32(1).i32(0).i32(-1), size: 4, field: keyedField + ".changes[0].data", err: ErrCount},
		"channels":         {data: inputs().i32(-1), size: 4, field: "operators[0].subtasks[0].inputChannels", err: ErrCount},
		"channel type":     {data: inputs().i32(1).i8(2), size: 1, field: "operators[0].subtasks[0].inputChannels[0].type", err: ErrTag},
		"channel offsets":  {data: inputs().i32(1).i8(1).i32(0).i64(0).i32(-1), size: 4, field: "operators[0].subtasks[0].inputChannels[0].offsets", err: ErrCount},
		"output type":      {data: inputs().i32(0).i32(1).i8(3), size: 1, field: "operators[0].subtasks[0].outputChannels[0].type", err: ErrTag},
		"merged offsets":   {data: inputs().i32(0).i32(1).i8(4).i32(0).i64(0).i8(0).i32(-1), size: 4, field: "operators[0].subtasks[0].outputChannels[0].offsets", err: ErrCount},
		"bytes at the end": {data: file(3).i32(0).i32(0).i8(9), size: 1, field: "end", err: ErrTrailing, noPad: true, detail: ": 1"},
		"no Java at end":   {data: file(4).i32(0).i32(0).raw(0xAC, 0xED, 0x00, 0x06), size: 4, field: "properties", err: ErrTrailing, noPad: true},
		"nothing at end":   {data: file(4).i32(0).i32(0), field: "properties", err: ErrTruncated, noPad: true},
	} {
		t.Run(name, func(t *testing.T) {
			data := d.data.buf
			offset := len(data) - d.back - d.size
			if !d.noPad {
				data = append(slices.Clone(data), pad...)
			}
			got := refuse(t, data)
			assert.Equal(t, d.field, got.Field)
			assert.EqualValues(t, offset, got.Offset)
			require.ErrorIs(t, got, d.err)
			assert.Contains(t, got.Error(), d.detail)
		})
	}
}

func TestFormatErrorText(t *testing.T) {
	_, err := Parse([]byte{0x49, 0x60, 0x67, 0x2D, 0, 0, 0, 9})
	assert.EqualError(t, err, "metadata: version at offset 4: unknown format version: 9")
	_, err = Parse(nil)
	assert.EqualError(t, err, "metadata: magic at offset 0: file ends too early")
}

func TestTooLarge(t *testing.T) {
	assert.NoError(t, checkSize(math.MaxInt32))
	if tooMuch := int64(math.MaxInt32) + 1; int64(int(tooMuch)) == tooMuch { // where such a slice can exist
		assert.ErrorIs(t, checkSize(int(tooMuch)), ErrTooLarge)
	}
}

// Flink nests handles twice at most; files that nest without end must not exhaust the stack.
func TestDepth(t *testing.T) {
	keyed := func() *encoder {
		e := (&encoder{version: 4}).header(7).i32(0).i32(1).operatorHead(1, "", "").i8(0).i32(1).subtaskHead(0)
		return e.i32(0).i32(0)
	}
	bases := keyed()
	for range 1 << 20 {
		bases.i8(14).i32(0).i32(1).i64(0).i32(1)
	}
	assert.ErrorIs(t, refuse(t, bases.buf), ErrDepth)

	streams := keyed().i8(7).i32(0).i32(0)
	for range 1 << 20 {
		streams.i8(3).i32(0).i32(0)
	}
	assert.ErrorIs(t, refuse(t, streams.buf), ErrDepth)
}

// A small file that claims to hold much costs little.
func TestHugeCountsAllocateNothing(t *testing.T) {
	const huge = math.MaxInt32
	subtask := func(version int) *encoder {
		e := (&encoder{version: version}).header(7).i32(0).i32(1).operatorHead(1, "", "")
		return e.i8(0).i32(1).subtaskHead(0)
	}
	for name, e := range map[string]*encoder{
		"masters":        (&encoder{version: 3}).header(7).i32(huge),
		"master":         (&encoder{version: 3}).header(7).i32(1).raw(0xC9, 0x6B, 0x16, 0x96).i32(huge),
		"operators":      (&encoder{version: 3}).header(7).i32(0).i32(huge),
		"subtasks":       (&encoder{version: 3}).header(7).i32(0).i32(1).operatorHead(1, "", "").i8(0).i32(huge),
		"old subtasks":   (&encoder{version: 2}).header(7).i32(0).i32(1).operatorHead(1, "", "").i32(huge),
		"operator state": subtask(3).i32(1).i8(4).i32(huge),
		"key groups":     subtask(3).i32(0).i32(0).i8(3).i32(0).i32(huge),
		"shared files":   subtask(3).i32(0).i32(0).i8(5).i64(1).utf("").i32(0).i32(1).i8(0).i32(huge),
		"changelog":      subtask(3).i32(0).i32(0).i8(8).i32(0).i32(1).i64(0).i32(huge),
		"changes":        subtask(3).i32(0).i32(0).i8(9).i32(0).i32(1).i64(0).i64(0).i32(huge),
		"change files":   subtask(3).i32(0).i32(0).i8(10).i32(0).i32(1).i32(huge),
		"inline data":    subtask(3).i32(0).i32(0).i8(3).i32(0).i32(0).i8(1).utf("").i32(huge),
		"channels":       subtask(6).i32(0).i32(0).i8(0).i8(0).i32(huge),
	} {
		t.Run(name, func(t *testing.T) {
			data := append(e.buf, make([]byte, 64)...)
			refuse(t, data)
			const runs = 100
			used := allocated(func() {
				for range runs {
					_, _ = Parse(data)
				}
			})
			assert.Less(t, used/runs, uint64(8<<10), "bytes")
		})
	}
}

// allocated returns the bytes that f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Files of the smallest handles and operators are the worst case of memory for the size of a file.
func TestMemoryIsBounded(t *testing.T) {
	const n = 100_000
	handles := (&encoder{version: 3}).header(7).i32(0).i32(1).operatorHead(1, "", "").i8(0).i32(1).subtaskHead(0)
	handles.i32(0).i32(0).i8(5).i64(1).utf("").i32(0).i32(1).i8(0).i32(n)
	for range n {
		handles.utf("").i8(16)
	}
	handles.i32(0).i8(0).i32(0).i32(0)

	operators := (&encoder{version: 3}).header(7).i32(0).i32(n)
	for range n {
		operators.operatorHead(1, "", "").i8(0).i32(-1)
	}

	subtasks := (&encoder{version: 3}).header(7).i32(0).i32(1).i64(1).i64(1).i32(n).i32(n).i8(0).i32(n)
	for range n {
		subtasks.i32(-1)
	}
	for name, e := range map[string]*encoder{"handles": handles, "operators": operators, "subtasks": subtasks} {
		t.Run(name, func(t *testing.T) {
			var err error
			used := allocated(func() { _, err = Parse(e.buf) })
			require.NoError(t, err)
			assert.Less(t, float64(used)/float64(len(e.buf)), 16.0, "times the file")
		})
	}
}

// FuzzParse starts from files of 100 KB, so minimizing what it finds takes long: run it with -fuzzminimizetime 1x.
func FuzzParse(f *testing.F) {
	real := realFiles(f)
	require.GreaterOrEqual(f, len(real), 21)
	for _, data := range real {
		f.Add(data)
	}
	for _, e := range generated() {
		f.Add(e.buf)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if survives(t, data) {
			checkRewrite(t, data)
		}
	})
}
