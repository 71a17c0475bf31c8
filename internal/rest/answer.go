package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"
)

// Answer is what a server sent. The body of one with a status 2xx is complete; of others, whatever arrived of an
// error's text is good enough.
type Answer struct {
	Status int
	Body   []byte

	contentType string
	server      string
}

// JSON decodes the body.
func (a Answer) JSON(into any) error {
	if err := json.Unmarshal(a.Body, into); err != nil {
		return fmt.Errorf("answer (%s) is not a %s's: %w", Line(a.contentType), a.server, err)
	}
	return nil
}

// read has an answer of bounded size decoded.
func (c *Client) read(response *http.Response, into any) error {
	body, err := io.ReadAll(http.MaxBytesReader(nil, response.Body, c.maxBody))
	if err != nil && response.StatusCode/100 == 2 {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return fmt.Errorf("answer is larger than %d bytes", c.maxBody)
		}
		return fmt.Errorf("answer is cut off after %d bytes: %w", len(body), err)
	}
	return c.server.Decode(Answer{
		Status:      response.StatusCode,
		Body:        body,
		contentType: response.Header.Get("Content-Type"),
		server:      c.server.Name,
	}, into)
}

const longestLine = 200 // runes of a server's text in one of our messages

// Line makes a text from a server fit for one line on a terminal or in a log: its first line, shortened.
func Line(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	printable := []rune(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, line))
	if len(printable) > longestLine {
		return string(printable[:longestLine]) + "…"
	}
	return strings.TrimSpace(string(printable))
}
