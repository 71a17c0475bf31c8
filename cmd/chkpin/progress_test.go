package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/chkpin/chkpin/checkpoint"
)

// Where there is no terminal a line now and then tells how far a copy is, on
// stderr, and nothing does beside JSON.
func TestProgressWithoutATerminal(t *testing.T) {
	far := checkpoint.CopyProgress{Files: 3, TotalFiles: 10, Bytes: 3 << 20, TotalBytes: 10 << 20}
	for json, want := range map[bool]string{false: "copied 3 of 10 files, 3.0 MiB of 10 MiB\n", true: ""} {
		var stdout, stderr bytes.Buffer
		p := (&environment{stdout: &stdout, stderr: &stderr, json: json}).progress()
		p.tell(checkpoint.CopyProgress{TotalFiles: 10, TotalBytes: 10 << 20})
		p.tell(far)
		assert.Empty(t, stderr.String(), "too early")
		p.last = time.Now().Add(-progressEvery)
		p.tell(far)
		p.tell(far)
		p.end()
		assert.Equal(t, want, stderr.String())
		assert.Empty(t, stdout.String())
	}
}
