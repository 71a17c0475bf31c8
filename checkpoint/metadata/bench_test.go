package metadata

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkParse measures Parse on a large checkpoint (100 MB, 900,000 shared files) against a scanner that
// checks nothing and knows the file's shape beforehand.
//
//	x-scan    Parse, in times of the scanner walking the file
//	x-paths   Parse and all paths as strings, in times of the scanner collecting the same strings
//	x-memory  file and all that Parse allocates, in times of the file
//
// Each time is the best of all rounds, so that other load on the machine weighs little.
func BenchmarkParse(b *testing.B) {
	data := largeCheckpoint()
	var walk, walkPaths, parse, parsePaths best
	for b.Loop() {
		walk.measure(func() { require.Equal(b, largeHandles, scan(data, nil)) })
		parse.measure(func() { _, err := Parse(data); require.NoError(b, err) })
		walkPaths.measure(func() {
			var paths []string
			scan(data, &paths)
			require.Len(b, paths, largeHandles)
		})
		parsePaths.measure(func() {
			file, err := Parse(data)
			require.NoError(b, err)
			paths := make([]string, 0, file.NumHandles()) // as callers do; a scanner learns the number last
			for h := range file.Handles() {
				path, err := h.Path()
				if err != nil {
					b.Fatal(err)
				}
				paths = append(paths, path)
			}
			require.Len(b, paths, largeHandles)
		})
	}
	b.SetBytes(int64(len(data)))
	b.ReportMetric(float64(walk.time.Microseconds())/1000, "ms-scan")
	b.ReportMetric(float64(walkPaths.time.Microseconds())/1000, "ms-paths")
	b.ReportMetric(float64(parse.time)/float64(walk.time), "x-scan")
	b.ReportMetric(float64(parsePaths.time)/float64(walkPaths.time), "x-paths")
	b.ReportMetric(float64(uint64(len(data))+allocated(func() { _, _ = Parse(data) }))/float64(len(data)), "x-memory")
}

// BenchmarkRewrite measures a rewrite of every path of the same checkpoint.
func BenchmarkRewrite(b *testing.B) {
	data := largeCheckpoint()
	file, err := Parse(data)
	require.NoError(b, err)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		_, err := file.Rewrite(func(h Handle) (Path, error) {
			return Path{Text: "s3://state/last-state/state/0123456789012345678901234567890123456789"}, nil
		})
		require.NoError(b, err)
	}
}

type best struct{ time time.Duration }

func (b *best) measure(f func()) {
	runtime.GC()
	start := time.Now()
	f()
	if took := time.Since(start); b.time == 0 || took < b.time {
		b.time = took
	}
}

const (
	largeSubtasks = 450
	largeShared   = 2000
	largeHandles  = largeSubtasks * largeShared
)

// largeCheckpoint is what a big job with incremental RocksDB state leaves: format version 4, one operator.
func largeCheckpoint() []byte {
	e := &encoder{version: 4}
	e.header(7).i32(0).i32(1).operatorHead(1, "", "").i8(0).i32(largeSubtasks)
	for i := range largeSubtasks {
		e.subtaskHead(i).subtaskBody(subtaskParts{managedKeyed: func() {
			e.i8(11).i64(7).utf("e2b0b7c3-2cb3-4b6e-bd1e-0d7fb7b4d9a1").i32(i * 72).i32(72).i64(1 << 30).i8(0)
			e.i32(largeShared)
			for j := range largeShared {
				e.utf(fmt.Sprintf("%06d.sst", j)).i8(2).i64(64 << 20)
				e.utf(fmt.Sprintf("s3://state/5f3c1bd5a1d4c89e0b6f1d2a7c3e4f50/shared/%08x-4a1b-4c2d-8e3f-%012x", i, j))
			}
			e.i32(0).utf("0d7fb7b4-2cb3-4b6e-bd1e-e2b0b7c3d9a1")
		}})
	}
	return e.raw(0xAC, 0xED, 0x00, 0x05, 0x70).buf
}

// scan walks a largeCheckpoint without any check, appends its paths to paths unless that is nil, and returns the
// number of handles.
func scan(data []byte, paths *[]string) (handles int) {
	u16 := func(at int) int { return int(binary.BigEndian.Uint16(data[at:])) }
	u32 := func(at int) int { return int(binary.BigEndian.Uint32(data[at:])) }
	at := 8 + 8 + 4 + 4 + 16 + 4 + 4 + 1
	subtasks := u32(at)
	at += 4
	for range subtasks {
		at += 4 + 4 + 4 + 1 + 8
		at += 2 + u16(at) + 4 + 4 + 8 + 1
		shared := u32(at)
		at += 4
		for range shared {
			at += 2 + u16(at)
			switch data[at] {
			case 1:
				at += 1 + 2 + u16(at+1)
				at += 4 + u32(at)
			case 2:
				path := at + 1 + 8 + 2
				at = path + u16(path-2)
				if paths != nil {
					*paths = append(*paths, string(data[path:at]))
				}
			}
			handles++
		}
		at += 4
		at += 2 + u16(at) + 1 + 4 + 4
	}
	return handles
}
