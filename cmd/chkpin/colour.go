package main

import (
	"io"
	"os"
)

// colour is an ANSI escape sequence that most terminals take.
type colour string

const (
	red    colour = "\x1b[31m"
	yellow colour = "\x1b[33m"
	cyan   colour = "\x1b[36m"
)

// paint colours a word if it goes to a terminal, and the user has not asked for
// none (https://no-color.org).
func (c colour) paint(w io.Writer, word string) string {
	if c == "" || !isTerminal(w) || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return word
	}
	return string(c) + word + "\x1b[0m"
}
