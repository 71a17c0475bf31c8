package metadata

import (
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// current returns what a handle names already.
func current(h Handle) (Path, error) {
	text, err := h.Path()
	return Path{Text: text, Relative: h.Kind == RelativeFile}, err
}

// elsewhere returns a longer path, of the other form where the handle has one.
func elsewhere(h Handle) (Path, error) {
	path, err := current(h)
	path.Text = "moved/" + path.Text
	if (h.Kind == AbsoluteFile || h.Kind == RelativeFile) && h.file.Version > 2 {
		path.Relative = !path.Relative
	}
	return path, err
}

// checkRewrite holds the laws of Rewrite against a file: writing what is there changes nothing, and writing
// something else and then the old paths again gives the old file.
func checkRewrite(t testing.TB, data []byte) {
	file, err := Parse(data)
	require.NoError(t, err)
	same, err := file.Rewrite(current)
	require.NoError(t, err)
	require.Equal(t, data, same, "nothing replaced")

	var old []Path
	moved, err := file.Rewrite(func(h Handle) (Path, error) {
		path, err := current(h)
		old = append(old, path)
		if err != nil || path.Text == "" { // which cannot be written back
			return path, err
		}
		return elsewhere(h)
	})
	require.NoError(t, err)
	there, err := Parse(moved)
	require.NoError(t, err)
	i := 0
	back, err := there.Rewrite(func(h Handle) (Path, error) {
		was := old[i]
		i++
		if path, err := current(h); err != nil || was.Text != "" && path.Text != "moved/"+was.Text {
			return Path{}, fmt.Errorf("%q was to become %q: %w", was.Text, path.Text, err)
		}
		return was, nil
	})
	require.NoError(t, err)
	require.Len(t, old, i)
	require.Equal(t, data, back, "there and back")
}

func TestRewriteThereAndBack(t *testing.T) {
	for name, data := range realFiles(t) {
		t.Run(name, func(t *testing.T) { checkRewrite(t, data) })
	}
	for name, e := range generated() {
		t.Run(name, func(t *testing.T) { checkRewrite(t, e.buf) })
	}
}

var rewritten = flag.String("rewritten", "", "write what TestRewriteElsewhere makes to this folder (see testdata/generator)")

// Every real file can be made to name other files throughout: absolute ones, as a pin does, or relative ones where the
// format has them. Flink's own readers have read the results and written the same bytes again: testdata/README.md.
func TestRewriteElsewhere(t *testing.T) {
	for name, data := range realFiles(t) {
		for _, form := range []string{"absolute", "relative"} {
			t.Run(name+"/"+form, func(t *testing.T) {
				file, err := Parse(data)
				require.NoError(t, err)
				place := func(h Handle) Path {
					text, _ := h.Path()
					text = fmt.Sprintf("é-€-😀-%08x", crc32.ChecksumIEEE([]byte(text)))
					if form == "relative" && file.Version > 2 && (h.Kind == AbsoluteFile || h.Kind == RelativeFile) {
						return Path{Text: text, Relative: true}
					}
					return Path{Text: "s3://bucket/app/last-state/state/" + text}
				}
				out, err := file.Rewrite(func(h Handle) (Path, error) { return place(h), nil })
				require.NoError(t, err)

				var want []Path
				for h := range file.Handles() {
					if h.Kind != Inline && h.Kind != EmptySegment {
						want = append(want, place(h))
					}
				}
				var got []Path
				moved, err := Parse(out)
				require.NoError(t, err)
				for h := range moved.Handles() {
					if h.Kind != Inline && h.Kind != EmptySegment {
						path, err := current(h)
						require.NoError(t, err)
						got = append(got, path)
					}
				}
				assert.Equal(t, want, got)
				assert.Equal(t, file.Dialect, moved.Dialect)
				if *rewritten != "" {
					dir := filepath.Join(*rewritten, name, form)
					require.NoError(t, os.MkdirAll(dir, 0o755))
					require.NoError(t, os.WriteFile(filepath.Join(dir, "_metadata"), out, 0o644))
				}
			})
		}
	}
}

// A rewrite touches nothing but paths: every handle keeps all else, and its order.
func TestRewriteKeepsTheRest(t *testing.T) {
	e := generated()["version 6"]
	file, err := Parse(e.buf)
	require.NoError(t, err)
	moved, err := file.Rewrite(elsewhere)
	require.NoError(t, err)
	again, err := Parse(moved)
	require.NoError(t, err)

	want := slices.Clone(e.want)
	for i := range want {
		h := &want[i]
		if h.Path != "" {
			h.Path = "moved/" + h.Path
		}
		switch h.Kind {
		case AbsoluteFile:
			h.Kind = RelativeFile
		case RelativeFile:
			h.Kind = AbsoluteFile
		}
	}
	got := handles(t, again)
	for i := range got {
		got[i].Offset = want[i].Offset // the only thing that moves
	}
	assert.Equal(t, want, got)
	assert.Equal(t, file.Operators, again.Operators)
	assert.Equal(t, file.Properties, again.Properties)
}

// The bytes of each form, as Flink lays them out: size and path the other way round in a relative handle.
func TestRewriteForms(t *testing.T) {
	subtask := func(handle func(*encoder)) []byte {
		e := (&encoder{version: 3}).header(1).i32(0).i32(1).operatorHead(1, "", "").i8(0).i32(1).subtaskHead(0)
		return e.subtaskBody(subtaskParts{managedKeyed: func() {
			e.i8(7).i32(0).i32(0)
			handle(e)
		}}).buf
	}
	absolute := subtask(func(e *encoder) { e.i8(2).i64(5).utf("s3://b/x") })
	relative := subtask(func(e *encoder) { e.i8(6).utf("x").i64(5) })
	segment := subtask(func(e *encoder) { e.i8(15).i64(1).i64(5).i32(1).utf("s3://b/x").utf("logical") })

	for name, test := range map[string]struct {
		from []byte
		to   Path
		want []byte
	}{
		"absolute to relative": {absolute, Path{Text: "x", Relative: true}, relative},
		"relative to absolute": {relative, Path{Text: "s3://b/x"}, absolute},
		"absolute to absolute": {absolute, Path{Text: "y"}, subtask(func(e *encoder) { e.i8(2).i64(5).utf("y") })},
		"relative to relative": {relative, Path{Text: "a/y", Relative: true}, subtask(func(e *encoder) { e.i8(6).utf("a/y").i64(5) })},
		"segment": {segment, Path{Text: "y"}, subtask(func(e *encoder) {
			e.i8(15).i64(1).i64(5).i32(1).utf("y").utf("logical")
		})},
		"text beyond ASCII": {absolute, Path{Text: "é\x00😀"}, subtask(func(e *encoder) {
			e.i8(2).i64(5).utf("\xC3\xA9\xC0\x80\xED\xA0\xBD\xED\xB8\x80")
		})},
	} {
		t.Run(name, func(t *testing.T) {
			file, err := Parse(test.from)
			require.NoError(t, err)
			got, err := file.Rewrite(func(Handle) (Path, error) { return test.to, nil })
			require.NoError(t, err)
			assert.Equal(t, test.want, got)
			checkRewrite(t, got)
		})
	}
}

func TestRewriteLongestPath(t *testing.T) {
	file, err := Parse(generated()["version 6"].buf)
	require.NoError(t, err)
	longest := strings.Repeat("x", 65535)
	out, err := file.Rewrite(func(Handle) (Path, error) { return Path{Text: longest}, nil })
	require.NoError(t, err)
	file, err = Parse(out)
	require.NoError(t, err)
	for _, h := range handles(t, file) {
		if h.Kind != Inline && h.Kind != EmptySegment {
			require.Equal(t, longest, h.Path)
		}
	}
}

func TestRewriteRefuses(t *testing.T) {
	file, err := Parse(generated()["version 6"].buf)
	require.NoError(t, err)
	gone := errors.New("gone")
	for name, test := range map[string]struct {
		kind Kind
		path Path
		err  error
		want error
	}{
		"too long":             {AbsoluteFile, Path{Text: strings.Repeat("x", 65536)}, nil, ErrPath},
		"too long encoded":     {AbsoluteFile, Path{Text: strings.Repeat("\x00", 32768)}, nil, ErrPath},
		"empty":                {RelativeFile, Path{}, nil, ErrPath},
		"not UTF-8":            {AbsoluteFile, Path{Text: "\xFF"}, nil, ErrPath},
		"a relative segment":   {Segment, Path{Text: "x", Relative: true}, nil, ErrPath},
		"a relative directory": {Directory, Path{Text: "x", Relative: true}, nil, ErrPath},
		"the caller says so":   {Segment, Path{}, gone, gone},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := file.Rewrite(func(h Handle) (Path, error) {
				if h.Kind == test.kind {
					return test.path, test.err
				}
				return current(h)
			})
			require.ErrorIs(t, err, test.want)
			assert.Contains(t, err.Error(), test.kind.String()+" handle (")
			assert.Nil(t, out)
		})
	}
}

func TestNoRelativePathsInVersion2(t *testing.T) {
	file, err := Parse(generated()["version 2"].buf)
	require.NoError(t, err)
	_, err = file.Rewrite(func(Handle) (Path, error) { return Path{Text: "x", Relative: true}, nil })
	require.ErrorIs(t, err, ErrPath)
}

// A path that no Go string can stand for is kept as it is, or replaced, but not shown.
func TestUndecodablePaths(t *testing.T) {
	for name, raw := range map[string]string{
		"a high surrogate alone": "a\xED\xA0\xBD",
		"a low surrogate alone":  "\xED\xB8\x80a",
		"surrogates reversed":    "\xED\xB8\x80\xED\xA0\xBD",
		"an overlong form":       "\xC1\x81",
		"a plain NUL":            "a\x00b",
	} {
		t.Run(name, func(t *testing.T) {
			e := (&encoder{version: 3}).header(1).i32(0).i32(1).operatorHead(1, "", "").i8(0).i32(1).subtaskHead(0)
			e.subtaskBody(subtaskParts{managedKeyed: func() { e.i8(7).i32(0).i32(0).i8(2).i64(5).utf(raw) }})
			file, err := Parse(e.buf)
			require.NoError(t, err, "Java reads it")
			_, err = file.Rewrite(current)
			require.ErrorIs(t, err, ErrText)
			out, err := file.Rewrite(func(Handle) (Path, error) { return Path{Text: "x"}, nil })
			require.NoError(t, err)
			checkRewrite(t, out)
		})
	}
}
