package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A missed target is marked and counted; a figure without a target is neither.
func TestReport(t *testing.T) {
	var r report
	r.times("CPU", 10*time.Millisecond, time.Second, 1.0/20, "at most 1/20")
	r.times("wall", 3*time.Second, time.Second, 0, "")
	r.memory("RSS", 70<<20, 35<<20, 64<<20)
	var out bytes.Buffer
	require.NoError(t, r.print(&out))
	lines := strings.Split(out.String(), "\n")
	assert.Regexp(t, `^CPU +10\.0 ms +1000\.0 ms +0\.01 +at most 1/20 +met$`, lines[1])
	assert.Regexp(t, `^wall +3000\.0 ms +1000\.0 ms +3\.00 *$`, lines[2])
	assert.Regexp(t, `^RSS +70 MiB +35 MiB +2\.00 +at most 64 MiB +MISSED$`, lines[3])
	assert.Equal(t, "1 of 2 targets met", lines[4])
}

// A pattern that no part matches is a mistake, not an empty table.
func TestNoPart(t *testing.T) {
	b := &benchmark{only: regexp.MustCompile("^nothing$")}
	require.ErrorContains(t, b.run(t.Context()), "^nothing$")
}

func TestMedian(t *testing.T) {
	u := usages{{CPU: 3, RSS: 1}, {CPU: 1, RSS: 9}, {CPU: 2, RSS: 5}}.median()
	assert.Equal(t, usage{CPU: 2, RSS: 5}, u)
}

// What a program used counts with its children; one that fails is no
// measurement, and its output says why.
func TestProgram(t *testing.T) {
	dir := t.TempDir()
	meter, _, err := build(t.Context(), dir)
	require.NoError(t, err)
	p := program{meter: meter, env: os.Environ(), args: []string{"sh", "-c", "dd if=/dev/zero of=/dev/null bs=48M count=4; true"}}
	u, err := p.run(t.Context())
	require.NoError(t, err)
	assert.Greater(t, u.RSS, int64(40<<20), "dd's, a child's")
	assert.Positive(t, u.CPU)
	assert.Positive(t, u.Wall)

	p.args = []string{"sh", "-c", "echo reason >&2; exit 3"}
	_, err = p.run(t.Context())
	require.ErrorContains(t, err, "exit code 3")
	require.ErrorContains(t, err, "reason")

	p.args = []string{filepath.Join(dir, "nothing")}
	_, err = p.run(t.Context())
	require.ErrorContains(t, err, "no such file")
}
