package metadata

import (
	"errors"
	"fmt"
)

// What can be wrong with a file. [Parse] wraps each in a [*FormatError] that says where.
var (
	// ErrMagic: the file does not start with Flink's magic number, so it is no _metadata at all.
	ErrMagic = errors.New("not a Flink _metadata file")
	// ErrVersion: a format version other than 2 to 6.
	ErrVersion = errors.New("unknown format version")
	// ErrTruncated: the file ends inside a value.
	ErrTruncated = errors.New("file ends too early")
	// ErrTag: a handle tag that is unknown, or not legal at its position.
	ErrTag = errors.New("unknown handle tag")
	// ErrCount: a count or length that is negative, or larger than the bytes left could hold.
	ErrCount = errors.New("impossible count")
	// ErrValue: a number outside the range that Flink reads.
	ErrValue = errors.New("value out of range")
	// ErrText: a text that is not modified UTF-8, or (from [Handle.Path]) one that no Go string can stand for.
	ErrText = errors.New("text is not well-formed modified UTF-8")
	// ErrDepth: handles nested deeper than any that Flink writes.
	ErrDepth = errors.New("handles nested too deeply")
	// ErrTrailing: bytes after the end of the checkpoint.
	ErrTrailing = errors.New("unexpected bytes after the end")
	// ErrTooLarge: a file of 2 GiB or more.
	ErrTooLarge = errors.New("larger than 2 GiB")
)

// What can be wrong with the use of a path.
var (
	// ErrNoPath: [Handle.Path] of a handle that names no file (inline or empty).
	ErrNoPath = errors.New("handle has no path")
	// ErrPath: [File.Rewrite] was given a path that the handle cannot carry.
	ErrPath = errors.New("path cannot be written")
)

// A FormatError reports that a file is not a _metadata this package understands, and where it stops being one.
type FormatError struct {
	Offset int64  // of the first byte of the offending value
	Field  string // its name, such as operators[3].subtasks[0].managedKeyed.shared[12].path
	Err    error  // wraps one of the Err values of this package
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("metadata: %s at offset %d: %v", e.Field, e.Offset, e.Err)
}

func (e *FormatError) Unwrap() error { return e.Err }
