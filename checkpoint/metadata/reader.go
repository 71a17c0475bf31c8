package metadata

import (
	"encoding/binary"
	"fmt"
)

// reader walks the bytes once. Its methods read one value each, named by their first argument, and report
// whether that went well, so that a record reads as its grammar: a && b && c.
//
// The first failure is kept. While the calls return, each adds the name of what it was reading in front
// ([reader.within]): the path of a field costs nothing as long as all is well.
type reader struct {
	data    []byte
	pos     int
	depth   int  // of handles inside handles
	maxTag  byte // the highest tag that the version and dialect know
	tags    uint32
	file    *File
	failure *FormatError
}

// fail records that the value at offset is wrong, with what there is to say about it, and returns false.
func (r *reader) fail(field string, offset int, err error, detail ...any) bool {
	if len(detail) > 0 {
		err = fmt.Errorf("%w: %s", err, fmt.Sprint(detail...))
	}
	r.failure = &FormatError{Offset: int64(offset), Field: field, Err: err}
	return false
}

// within puts field in front of the path of the failure and returns false.
func (r *reader) within(field string) bool {
	if field != "" {
		r.failure.Field = field + "." + r.failure.Field
	}
	return false
}

// withinItem is within for item i of a list.
func (r *reader) withinItem(field string, i int) bool {
	return r.within(fmt.Sprintf("%s[%d]", field, i))
}

func (r *reader) remaining() int { return len(r.data) - r.pos }

// skip passes over n bytes of which nothing can be wrong.
func (r *reader) skip(field string, n int) bool {
	if n > len(r.data)-r.pos {
		return r.fail(field, r.pos, ErrTruncated)
	}
	r.pos += n
	return true
}

func (r *reader) uint8(field string) (byte, bool) {
	if !r.skip(field, 1) {
		return 0, false
	}
	return r.data[r.pos-1], true
}

func (r *reader) int32(field string) (int32, bool) {
	if !r.skip(field, 4) {
		return 0, false
	}
	return int32(binary.BigEndian.Uint32(r.data[r.pos-4:])), true
}

func (r *reader) int64(field string) (int64, bool) {
	if !r.skip(field, 8) {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(r.data[r.pos-8:])), true
}

// count reads the length of a list whose items take at least itemSize bytes each: what cannot be there is
// refused before anybody makes room for it.
func (r *reader) count(field string, itemSize int) (int, bool) {
	n, ok := r.int32(field)
	if !ok {
		return 0, false
	}
	if n < 0 || int(n) > r.remaining()/itemSize {
		return 0, r.fail(field, r.pos-4, ErrCount, n)
	}
	return int(n), true
}

// array reads a list of items that take itemSize bytes each and of which nothing can be wrong.
func (r *reader) array(field string, itemSize int) bool {
	n, ok := r.count(field, itemSize)
	return ok && r.skip(field, n*itemSize)
}

// bytes reads a length and as many bytes.
func (r *reader) bytes(field string) bool { return r.array(field, 1) }

// utf reads a text.
func (r *reader) utf(field string) bool {
	start := r.pos + 2
	if start > len(r.data) {
		return r.fail(field, r.pos, ErrTruncated)
	}
	end := start + int(binary.BigEndian.Uint16(r.data[r.pos:]))
	if end > len(r.data) {
		return r.fail(field, r.pos, ErrTruncated)
	}
	if text := r.data[start:end]; !plainText(text) && !validText(text) {
		return r.fail(field, r.pos, ErrText)
	}
	r.pos = end
	return true
}

// text reads a text and decodes it for display.
func (r *reader) text(field string) (string, bool) {
	start := r.pos + 2
	if !r.utf(field) {
		return "", false
	}
	return displayText(r.data[start:r.pos]), true
}

// tag reads the tag that a handle starts with.
func (r *reader) tag() (byte, bool) {
	if r.pos == len(r.data) {
		return 0, r.fail("tag", r.pos, ErrTruncated)
	}
	tag := r.data[r.pos]
	if tag > r.maxTag {
		return 0, r.fail("tag", r.pos, ErrTag, tag)
	}
	r.pos++
	r.tags |= 1 << tag
	return tag, true
}

// badTag refuses the tag just read.
func (r *reader) badTag(tag byte) bool { return r.fail("tag", r.pos-1, ErrTag, tag) }

// down enters a handle that may hold handles of its own kind; up leaves it.
func (r *reader) down() bool {
	if r.depth == maxDepth {
		return r.fail("depth", r.pos, ErrDepth)
	}
	r.depth++
	return true
}

func (r *reader) up() bool {
	r.depth--
	return true
}
