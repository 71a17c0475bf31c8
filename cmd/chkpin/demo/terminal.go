package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
)

// width is how long a line may get before it is folded at a space.
const width = 100

// terminal runs commands and shows them as a session, with the names of variables in the place of their values.
type terminal struct {
	ctx       context.Context
	out       io.Writer
	binary    string
	variables []variable
}

type variable struct{ name, value string }

func (t *terminal) shorten(text string) string {
	for _, v := range t.variables {
		text = strings.ReplaceAll(text, v.value, "$"+v.name)
	}
	return text
}

// print shows text, folding lines that are too long.
func (t *terminal) print(text string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		for indent := ""; ; indent = "    " {
			head, rest := fold(indent + line)
			fmt.Fprintln(t.out, head)
			if line = rest; line == "" {
				break
			}
		}
	}
}

// fold splits a line that is too long at its last possible space.
func fold(line string) (head, rest string) {
	if len(line) <= width {
		return line, ""
	}
	at := strings.LastIndexByte(line[:width+1], ' ')
	if strings.TrimSpace(line[:max(at, 0)]) == "" {
		return line, ""
	}
	return line[:at], line[at+1:]
}

// define shows the variables.
func (t *terminal) define() {
	for _, v := range t.variables {
		fmt.Fprintf(t.out, "$ %s=%s\n", v.name, v.value)
	}
}

// explain says what comes next.
func (t *terminal) explain(text string) { t.print("\n# " + text) }

// command shows a command.
func (t *terminal) command(words ...string) {
	for i, word := range words {
		words[i] = t.shorten(word)
	}
	t.print("$ " + strings.Join(words, " "))
}

// chkpin runs and shows a command that must exit with a code and say a text.
func (t *terminal) chkpin(code int, text string, args ...string) error {
	t.command(append([]string{"chkpin"}, args...)...)
	output, err := exec.CommandContext(t.ctx, t.binary, args...).CombinedOutput()
	shown := t.shorten(string(output))
	t.print(shown)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else if err != nil {
		return err
	}
	switch {
	case got != code:
		return fmt.Errorf("chkpin %s: exit code %d, not %d", args[0], got, code)
	case !strings.Contains(shown, text):
		return fmt.Errorf("chkpin %s: does not say %q", args[0], text)
	case code != 0:
		t.print(fmt.Sprintf("(exit code %d)", code))
	}
	return nil
}

// find shows the files of a folder with their sizes.
func (t *terminal) find(dir string) error {
	t.command("find", dir, "-type", "f", "-printf", `'%7s  %p\n'`)
	return filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		t.print(fmt.Sprintf("%7d  %s", info.Size(), t.shorten(name)))
		return nil
	})
}
