package main

import (
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"mvdan.cc/sh/v3/syntax"
)

// commands are the command line's.
func commands(t *testing.T) []*kong.Node {
	t.Helper()
	parser, err := newParser(&cli{}, io.Discard, io.Discard)
	require.NoError(t, err)
	require.NotEmpty(t, parser.Model.Children)
	return parser.Model.Children
}

// A stranger learns a command from its example. So each has one, and it is a command line that chkpin takes.
func TestEveryHelpHasAnExampleThatParses(t *testing.T) {
	for _, node := range commands(t) {
		t.Run(node.Name, func(t *testing.T) {
			assert.NotNil(t, node.Group, "chkpin --help shows commands in groups")
			own := 0
			for _, words := range examples(t, node.Detail) {
				_, _, err := parse(words[1:], io.Discard, io.Discard)
				require.NoError(t, err, words)
				if slices.Contains(words, node.Name) {
					own++
				}
			}
			assert.Positive(t, own, "no example of it in\n%s", node.Detail)
		})
	}
}

// examplePrompt: alone after $ or nothing, or in what another command substitutes.
var examplePrompt = regexp.MustCompile(`^\s+(\$ )?(chkpin .*|.*\(chkpin .*)$`)

// examples are the command lines of chkpin in a help text: the indented lines. One with … in it is abridged, and does
// not count.
func examples(t *testing.T, help string) (lines [][]string) {
	t.Helper()
	for line := range strings.Lines(strings.ReplaceAll(help, "\\\n", " ")) {
		found := examplePrompt.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if found == nil || strings.Contains(line, "…") {
			continue
		}
		file, err := syntax.NewParser().Parse(strings.NewReader(found[2]), "")
		require.NoError(t, err, line)
		syntax.Walk(file, func(n syntax.Node) bool {
			if call, ok := n.(*syntax.CallExpr); ok && len(call.Args) > 0 && call.Args[0].Lit() == "chkpin" {
				lines = append(lines, literal(t, call.Args))
			}
			return true
		})
	}
	return lines
}

// literal is a command's words without their quotes.
func literal(t *testing.T, args []*syntax.Word) (words []string) {
	t.Helper()
	for _, arg := range args {
		var word strings.Builder
		for _, part := range arg.Parts {
			switch part := part.(type) {
			case *syntax.Lit:
				word.WriteString(part.Value)
			case *syntax.SglQuoted:
				word.WriteString(part.Value)
			case *syntax.DblQuoted:
				for _, quoted := range part.Parts {
					word.WriteString(quoted.(*syntax.Lit).Value)
				}
			default:
				require.Fail(t, "an example shall be plain", "%T in %v", part, words)
			}
		}
		words = append(words, word.String())
	}
	return words
}
