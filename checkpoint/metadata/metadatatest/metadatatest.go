// Package metadatatest makes the _metadata of another version of a job out of a
// real one, for tests.
package metadatatest

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/chkpin/chkpin/checkpoint/metadata"
)

// WithoutOperator removes an operator with all its state.
func WithoutOperator(data []byte, id metadata.OperatorID) ([]byte, error) {
	f, spans, err := operators(data)
	if err != nil {
		return nil, err
	}
	i, err := index(f, id)
	if err != nil {
		return nil, err
	}
	out := bytes.Clone(data[:spans[i]])
	out = append(out, data[spans[i+1]:]...)
	binary.BigEndian.PutUint32(out[spans[0]-4:], uint32(len(f.Operators)-1))
	return out, parses(out)
}

// WithID gives an operator another id, as a changed uid does.
func WithID(data []byte, id, other metadata.OperatorID) ([]byte, error) {
	return change(data, id, func(operator []byte) { copy(operator, other[:]) })
}

// WithParallelism changes what an operator says of its parallelism. Its state
// stays as it is, so nothing could restore from the result.
func WithParallelism(data []byte, id metadata.OperatorID, parallelism, maxParallelism uint32) ([]byte, error) {
	return change(data, id, func(operator []byte) {
		binary.BigEndian.PutUint32(operator[16:], parallelism)
		binary.BigEndian.PutUint32(operator[20:], maxParallelism)
	})
}

// change edits an operator from its id on.
func change(data []byte, id metadata.OperatorID, edit func([]byte)) ([]byte, error) {
	f, spans, err := operators(data)
	if err != nil {
		return nil, err
	}
	i, err := index(f, id)
	if err != nil {
		return nil, err
	}
	out := bytes.Clone(data)
	edit(out[spans[i]+len(head(f, f.Operators[i]))-len(id):])
	return out, parses(out)
}

// operators returns where each operator begins, and where the last one ends.
func operators(data []byte) (*metadata.File, []int, error) {
	f, err := metadata.Parse(data)
	if err != nil {
		return nil, nil, err
	}
	var spans []int
	from := 0
	for _, op := range f.Operators {
		at := bytes.Index(data[from:], head(f, op))
		if at < 0 {
			return nil, nil, fmt.Errorf("operator %s is not where it should be", op.ID)
		}
		from += at
		spans = append(spans, from)
	}
	return f, append(spans, len(data)-f.Properties.Length), nil
}

// head is how an operator begins: name and uid since format version 5, and the
// id.
func head(f *metadata.File, op metadata.Operator) (b []byte) {
	if f.Version >= 5 {
		for _, text := range []string{op.Name, op.UID} {
			b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
			b = append(b, text...)
		}
	}
	return append(b, op.ID[:]...)
}

func index(f *metadata.File, id metadata.OperatorID) (int, error) {
	for i, op := range f.Operators {
		if op.ID == id {
			return i, nil
		}
	}
	return 0, fmt.Errorf("there is no operator %s", id)
}

func parses(data []byte) error {
	_, err := metadata.Parse(data)
	return err
}
