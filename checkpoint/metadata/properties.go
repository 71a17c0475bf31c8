package metadata

import (
	"bytes"
	"errors"
)

// Properties is what the end of a file tells since format version 4: a Java-serialized CheckpointProperties. No
// edit touches it. A tail of another shape is no error and leaves all but Length zero.
type Properties struct {
	Present   bool   // the file has properties, of the known shape
	Savepoint bool   // a savepoint, not a checkpoint
	Format    Format // of a savepoint
	Length    int    // bytes of the tail
}

// Format is that of a savepoint.
type Format string

const (
	Canonical Format = "canonical"
	Native    Format = "native"
)

// maxProperties bounds the work on a tail; Flink's are below 800 bytes. A longer one is carried unread.
const maxProperties = 1 << 16

// properties reads the tail. Java reads one object and ignores the rest, so only an object that breaks
// off makes the file unreadable.
func (r *reader) properties(field string) bool {
	tail := r.data[r.pos:]
	switch n := min(len(tail), len(javaMagic)); {
	case !bytes.Equal(tail[:n], javaMagic[:n]):
		return r.fail(field, r.pos, ErrTrailing, "no Java object stream")
	case n < len(javaMagic):
		return r.fail(field, r.pos, ErrTruncated)
	}
	r.file.Properties = Properties{Length: len(tail)}
	if len(tail) > maxProperties {
		r.pos = len(r.data)
		return true
	}
	r.pos += len(javaMagic)
	stream := javaStream{reader: r}
	object, ok := stream.object()
	if !ok && errors.Is(r.failure.Err, ErrTruncated) {
		return r.within(field)
	}
	r.failure = nil
	r.pos = len(r.data)
	if ok {
		r.file.Properties.recognise(object)
	}
	return true
}

// recognise fills in what object says, if it is the properties of Flink 1.16 or later
// (CheckpointProperties, SavepointType, CheckpointType, SavepointFormatType; 2.3.0 writes what 1.16.3 does).
func (p *Properties) recognise(object *javaInstance) {
	const checkpoint = "org.apache.flink.runtime.checkpoint."
	snapshot, ok := object.fields["checkpointType"].(*javaInstance)
	if !ok || object.className() != checkpoint+"CheckpointProperties" {
		return
	}
	switch snapshot.className() {
	case checkpoint + "CheckpointType":
		p.Present = true
	case checkpoint + "SavepointType":
		p.Present, p.Savepoint = true, true
		switch snapshot.fields["formatType"] {
		case javaConstant("CANONICAL"):
			p.Format = Canonical
		case javaConstant("NATIVE"):
			p.Format = Native
		}
	}
}
