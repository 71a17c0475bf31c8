package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The demonstration runs through with the real binary, fits a terminal and leaves nothing behind.
func TestDemo(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "chkpin")
	built, err := exec.Command("go", "build", "-o", binary, "github.com/chkpin/chkpin/cmd/chkpin").CombinedOutput()
	require.NoError(t, err, string(built))
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)

	var out bytes.Buffer
	require.NoError(t, play(t.Context(), binary, &out))
	assert.Contains(t, out.String(), "\nrestorable: file://$DIR/app/last-state/_metadata")
	for line := range strings.Lines(out.String()) {
		assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSpace(line)), width, line)
	}
	left, err := os.ReadDir(temporary)
	require.NoError(t, err)
	assert.Empty(t, left)
}

// A binary that does not do what it must is noticed.
func TestDemoNoticesFailure(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out bytes.Buffer
	assert.ErrorContains(t, play(t.Context(), "/bin/false", &out), "chkpin pin: exit code 1, not 0")
	assert.ErrorContains(t, play(t.Context(), "/bin/true", &out), "chkpin pin: does not say")
	assert.Error(t, play(t.Context(), filepath.Join(t.TempDir(), "chkpin"), &out))
}
