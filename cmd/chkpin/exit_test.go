package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
)

// Exit codes are an interface: each has a story that ends with it.
func TestEveryExitCodeHasAStory(t *testing.T) {
	stories, err := filepath.Glob(filepath.Join("testdata", "script", "*.txtar"))
	require.NoError(t, err)
	told := map[string]bool{strconv.Itoa(done.code): true} // stories that do not say otherwise
	for _, file := range stories {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`(?m)^(?:exits|interrupted [A-Z]+) (\d+) `).FindAllStringSubmatch(string(text), -1) {
			told[m[1]] = true
		}
	}
	for _, o := range outcomes {
		assert.True(t, told[strconv.Itoa(o.code)], "no story exits with %d, %s", o.code, o.meaning)
	}
	assert.True(t, told["143"], "no story is ended by SIGTERM")
}

// The table fits a terminal.
func TestExitTableWidth(t *testing.T) {
	for line := range strings.Lines(exitTable()) {
		assert.LessOrEqual(t, len(line), 80, line)
	}
}

// What happens to storage rarely, and not at all to a test that runs as root.
func TestStorageVerdicts(t *testing.T) {
	u := blobstore.MustParse("file:///state/app/chkpin.json")
	for _, c := range []struct {
		op   string
		err  error
		want outcome
	}{
		{"open", syscall.EACCES, denied},
		{"put", syscall.EACCES, denied},
		{"put", syscall.EROFS, denied},
		{"put", syscall.ENOSPC, denied},
		{"copy", syscall.EIO, denied},
		{"list", syscall.ESTALE, denied},
		{"open", blobstore.ErrContainer, denied},
		{"put", blobstore.ErrNotExist, denied}, // the place to write to does not exist
		{"open", blobstore.ErrNotExist, nothing},
	} {
		v := verdictOf(t.Context(), fmt.Errorf("tick: %w", &blobstore.Error{Op: c.op, URI: u, Err: c.err}))
		assert.Equal(t, c.want, v.outcome, "%s: %v", c.op, c.err)
		assert.NotEmpty(t, v.hint, "%s: %v", c.op, c.err)
	}
}

// A source that breaks off while it is copied does not ask for the rights to write.
func TestBrokenSourceHint(t *testing.T) {
	from, to := blobstore.MustParse("s3://b/state/x"), blobstore.MustParse("file:///state/x")
	read := &blobstore.Error{Op: "read", URI: from, Err: io.ErrUnexpectedEOF}
	err := error(&blobstore.Error{Op: "copy", URI: to, Src: from, Err: &blobstore.Error{Op: "put", URI: to, Err: read}})
	v := verdictOf(t.Context(), err)
	assert.Equal(t, denied, v.outcome)
	assert.Contains(t, v.hint, "reachable")
}

// The condition that counts is found however deep it is wrapped, and what nobody foresaw is exit 1.
func TestVerdictOfWrapped(t *testing.T) {
	held := &checkpoint.HeldError{Reason: "it started empty"}
	deep := errors.Join(fmt.Errorf("tick: %w", &hintedError{held, "ask somebody"}), nil)
	assert.Equal(t, 7, verdictOf(t.Context(), deep).code)
	assert.Equal(t, failed, verdictOf(t.Context(), errors.New("surprise")).outcome)
	assert.Equal(t, done, verdictOf(t.Context(), nil).outcome)
}

// A source that went on vanishing is no damage to look for: pin leaves the hint to
// the table, which says what to set.
func TestVanishedSourceHint(t *testing.T) {
	last := &checkpoint.DamagedError{URI: "s3://b/1/chk-9/_metadata", Missing: []string{"s3://b/1/chk-9/x"}}
	p := checkpoint.Pinned{Source: "s3://b/1/chk-9"}
	err := (&pinCommand{}).explain(p, &checkpoint.VanishedError{Times: 4, Last: last})
	v := verdictOf(t.Context(), err)
	assert.Equal(t, damaged, v.outcome)
	assert.Contains(t, hintFor(err, v), "execution.checkpointing.num-retained")
	assert.Contains(t, err.Error(), "was deleted while it was copied, 4 times in a row")
	assert.Contains(t, hintFor((&pinCommand{}).explain(p, last), v), "chkpin verify")
}

// Files that Flink has not closed need another setting; chkpin verify would only
// name them.
func TestUnclosedFilesHint(t *testing.T) {
	d := &checkpoint.DamagedError{URI: "s3://b/1/chk-9/_metadata", Missing: []string{"s3://b/1/shared/x"}, Unclosed: true}
	err := (&pinCommand{}).explain(checkpoint.Pinned{Source: "s3://b/1/chk-9"}, d)
	v := verdictOf(t.Context(), err)
	assert.Equal(t, damaged, v.outcome)
	assert.Contains(t, hintFor(err, v), "across-checkpoint-boundary")
}
