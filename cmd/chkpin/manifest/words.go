package manifest

import (
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// unresolved marks a word of a shell script whose text only a run can tell.
const unresolved = "\x00"

// commandLines are the command lines that the words of a container amount to: the
// words themselves, or those of the script that a shell is given.
func commandLines(words []string) [][]string {
	if len(words) < 3 || !slices.Contains([]string{"sh", "bash", "ash", "dash"}, path.Base(words[0])) {
		return [][]string{words}
	}
	if option := words[1]; !strings.HasPrefix(option, "-") || !strings.HasSuffix(option, "c") {
		return [][]string{words}
	}
	var positional []string
	if len(words) > 4 { // word 3 is $0
		positional = words[4:]
	}
	script, err := syntax.NewParser().Parse(strings.NewReader(words[2]), "")
	if err != nil {
		return [][]string{strings.Fields(words[2])}
	}
	var lines [][]string
	syntax.Walk(script, func(node syntax.Node) bool {
		if call, ok := node.(*syntax.CallExpr); ok && len(call.Args) > 0 {
			var line []string
			for _, word := range call.Args {
				line = append(line, expandWord(word, positional)...)
			}
			lines = append(lines, line)
		}
		return true
	})
	return lines
}

// expandWord is what a word of a script stands for; "$@" stands for the
// arguments.
func expandWord(word *syntax.Word, positional []string) []string {
	var printed strings.Builder
	syntax.NewPrinter().Print(&printed, word) //nolint:errcheck // to memory
	if s := strings.Trim(printed.String(), `"`); s == "$@" || s == "$*" || s == "${@}" {
		return positional
	}
	if s, ok := static(word.Parts); ok {
		return []string{s}
	}
	return []string{unresolved + printed.String()}
}

// static is the text of a word without anything that only a run can tell.
func static(parts []syntax.WordPart) (string, bool) {
	var b strings.Builder
	for _, part := range parts {
		switch p := part.(type) {
		case *syntax.Lit:
			b.WriteString(p.Value)
		case *syntax.SglQuoted:
			b.WriteString(p.Value)
		case *syntax.DblQuoted:
			inner, ok := static(p.Parts)
			if !ok {
				return "", false
			}
			b.WriteString(inner)
		default:
			return "", false
		}
	}
	return b.String(), true
}
