package sample

import (
	"encoding/binary"
	"fmt"
)

// sharedPerSubtask is how many SST files a subtask of the job has.
const sharedPerSubtask = 1000

// Incremental is the _metadata of a job with incremental RocksDB state in these files of size bytes each, which nobody
// reads: format version 4, one operator (MetadataV2V3SerializerBase, 1.20.3). Without files, its state is inside.
func Incremental(id int64, files []string, size int64) []byte {
	e := &encoder{size: size}
	e.i32(0x4960672D).i32(4).i64(id)
	e.i32(0) // master states
	e.i32(1) // operators
	e.raw(make([]byte, 16)...)
	subtasks := max(1, (len(files)+sharedPerSubtask-1)/sharedPerSubtask)
	e.i32(subtasks).i32(32768) // parallelism, and the greatest
	e.i8(0)                    // coordinator
	e.i32(subtasks)
	for i := range subtasks {
		e.i32(i)
		e.i32(0).i32(0) // operator state
		first := i * sharedPerSubtask
		e.incremental(i, files[first:min(first+sharedPerSubtask, len(files))])
		e.i8(0)         // raw keyed state
		e.i32(0).i32(0) // channel state
	}
	return e.raw(0xAC, 0xED, 0x00, 0x05, 0x70).data // a Java null for the properties
}

// encoder writes what java.io.DataOutputStream does.
type encoder struct {
	data []byte
	size int64 // of each file
}

func (e *encoder) raw(b ...byte) *encoder { e.data = append(e.data, b...); return e }
func (e *encoder) i8(n int) *encoder      { return e.raw(byte(n)) }
func (e *encoder) i32(n int) *encoder {
	e.data = binary.BigEndian.AppendUint32(e.data, uint32(n))
	return e
}
func (e *encoder) i64(n int64) *encoder {
	e.data = binary.BigEndian.AppendUint64(e.data, uint64(n))
	return e
}
func (e *encoder) text(s string) *encoder {
	e.data = binary.BigEndian.AppendUint16(e.data, uint16(len(s)))
	return e.raw([]byte(s)...)
}

// incremental is an IncrementalRemoteKeyedStateHandle: its files are shared, its
// own description is inside.
func (e *encoder) incremental(subtask int, files []string) {
	const keyGroups = 8
	e.i8(11).i64(1).text(fmt.Sprintf("00000000-0000-4000-8000-%012x", subtask))
	e.i32(subtask * keyGroups).i32(keyGroups)
	e.i64(int64(len(files)) * e.size) // of this checkpoint
	e.i8(1).text("").i32(3).raw(1, 2, 3)
	e.i32(len(files))
	for i, file := range files {
		e.text(fmt.Sprintf("%06d.sst", i)).i8(2).i64(e.size).text(file)
	}
	e.i32(0) // private files
	e.text(fmt.Sprintf("00000000-0000-4000-9000-%012x", subtask))
}
