package metadata

import (
	"encoding/binary"
	"fmt"
)

// A Path is what a handle names.
type Path struct {
	Text     string // unescaped, as [Handle.Path] returns it
	Relative bool   // to the directory that holds _metadata
}

// Rewrite returns a copy of the file in which each handle names what replace returns for it. It asks for every
// AbsoluteFile, RelativeFile, Segment and Directory in file order. Only the paths change: a handle whose path stays
// keeps its bytes, and where no path changes the copy equals the file.
//
// An AbsoluteFile becomes a RelativeFile and the other way round if Path.Relative says so; a Segment or Directory
// has no relative form, and nothing has in format version 2. The error is [ErrPath] for that, for an empty text, and for a text that is not UTF-8 or
// longer than 65535 bytes encoded. Errors of replace come back wrapped with the handle.
//
// What Flink makes of a path is the caller's affair. Flink refuses a relative path with a colon in it, and fails
// in later checkpoints if a handle that is [Handle.Shared] is relative (FLINK-39964).
func (f *File) Rewrite(replace func(Handle) (Path, error)) ([]byte, error) {
	out := make([]byte, 0, len(f.data)+len(f.data)/8)
	copied := 0
	var text []byte
	for h := range f.Handles() {
		old, ok := h.text()
		if !ok {
			continue
		}
		path, err := replace(h)
		if err != nil {
			return nil, fmt.Errorf("metadata: rewrite %v: %w", h, err)
		}
		relative := h.Kind == RelativeFile
		if text, ok = appendText(text[:0], path.Text); ok && path.Relative == relative && string(text) == string(old) {
			continue
		}
		switch {
		case !ok:
			err = fmt.Errorf("%w: it is not UTF-8", ErrPath)
		case len(text) == 0:
			err = fmt.Errorf("%w: it is empty", ErrPath)
		case len(text) > maxText:
			err = fmt.Errorf("%w: %d bytes, more than %d", ErrPath, len(text), maxText)
		case path.Relative && (h.Kind == Segment || h.Kind == Directory):
			err = fmt.Errorf("%w: it must be absolute", ErrPath)
		case path.Relative && f.Version == 2:
			err = fmt.Errorf("%w: format version 2 has no relative paths", ErrPath)
		}
		if err != nil {
			return nil, fmt.Errorf("metadata: rewrite %v: %w", h, err)
		}

		start, end := h.span()
		out = append(out, f.data[copied:start]...)
		copied = end
		switch {
		case h.Kind == Segment || h.Kind == Directory:
			out = appendUTF(out, text)
		case path.Relative:
			out = appendUTF(append(out, streamRelativeFile), text)
			out = binary.BigEndian.AppendUint64(out, uint64(h.Size()))
		default:
			out = binary.BigEndian.AppendUint64(append(out, streamFile), uint64(h.Size()))
			out = appendUTF(out, text)
		}
	}
	out = append(out, f.data[copied:]...)
	if err := checkSize(len(out)); err != nil {
		return nil, fmt.Errorf("metadata: rewrite: %w", err)
	}
	return out, nil
}

// span returns the bytes to replace when the path changes: the whole handle if it is a file, since the order of
// its fields depends on its form, else the text alone.
func (h Handle) span() (start, end int) {
	from := h.Offset
	switch h.Kind {
	case RelativeFile:
		_, to := h.file.textAt(from + 1)
		return int(from), int(to + 8)
	case AbsoluteFile:
		_, to := h.file.textAt(from + 1 + 8)
		return int(from), int(to)
	case Segment:
		from += 1 + 8 + 8 + 4
	}
	_, to := h.file.textAt(from)
	return int(from), int(to)
}

func appendUTF(b, text []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...)
}
