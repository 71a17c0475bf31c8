package deploy

import (
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/rogpeppe/go-internal/diff"
)

// query is what the job computes, without the whitespace that means nothing.
func (m Manifest) query() string {
	if m.Code != "" {
		return "code\n" + normalCode(m.Code)
	}
	return "sql\n" + normalSQL(m.SQL)
}

// sameQuery reports whether a job with m can go on from the state of one with o.
func (m Manifest) sameQuery(o Manifest) bool { return m.query() == o.query() }

// changes names what differs between two manifests, but not their meta: fields,
// and settings one by one. Values are not told; they may be secret.
func (m Manifest) changes(o Manifest) []string {
	var names []string
	for _, f := range []struct {
		name string
		same bool
	}{
		{"query", m.sameQuery(o)},
		{"description", m.Description == o.Description},
		{"target-table", m.TargetTable == o.TargetTable},
	} {
		if !f.same {
			names = append(names, f.name)
		}
	}
	keys := maps.Clone(m.Properties)
	maps.Copy(keys, o.Properties)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		a, inM := m.Properties[key]
		b, inO := o.Properties[key]
		if inM != inO || a != b {
			names = append(names, key)
		}
	}
	return names
}

// QueryDiff shows how the query changed, as a unified diff; "" when it did not.
func QueryDiff(deployed, wanted Manifest) string {
	if deployed.sameQuery(wanted) {
		return ""
	}
	lines := func(m Manifest) []byte {
		text := strings.TrimSpace(m.SQL+m.Code) + "\n"
		if (deployed.Code == "") != (wanted.Code == "") {
			kind, _, _ := strings.Cut(m.query(), "\n")
			text = kind + ":\n" + text
		}
		return []byte(text)
	}
	_, text, _ := strings.Cut(string(diff.Diff("deployed", lines(deployed), "wanted", lines(wanted))), "\n")
	return text
}

// normalSQL has one blank for every run of whitespace. In literals and quoted
// names whitespace has a meaning, only that a line break there counts as a blank:
// flink-sql-runner stores queries so. A line comment goes on to its line's end,
// and no quote begins in a comment, but in a hint.
func normalSQL(sql string) string {
	var b strings.Builder
	blank := false
	write := func(s string) {
		if blank && b.Len() > 0 {
			b.WriteByte(' ')
		}
		blank = false
		b.WriteString(s)
	}
	text := strings.ReplaceAll(sql, "\r\n", "\n")
	for len(text) > 0 {
		switch {
		case strings.Contains(" \t\n\r\f\v", text[:1]):
			blank = true
			text = text[1:]
		case strings.Contains("'\"`", text[:1]):
			var quoted string
			quoted, text = through(text, text[:1])
			write(strings.ReplaceAll(quoted, "\n", " "))
		case strings.HasPrefix(text, "/*") && !strings.HasPrefix(text, "/*+"):
			var comment string
			comment, text = through(text, "*/")
			write(strings.Join(strings.Fields(comment), " "))
		case strings.HasPrefix(text, "--"), strings.HasPrefix(text, "//"): // Calcite, Parser.jj
			var comment string
			comment, text = through(text, "\n")
			write(strings.TrimRightFunc(comment, unicode.IsSpace) + "\n")
			text = strings.TrimLeftFunc(text, unicode.IsSpace)
		default:
			write(text[:1])
			text = text[1:]
		}
	}
	return strings.TrimSpace(b.String())
}

// through cuts text after the next end that follows its first byte. A quote that
// is doubled ends one part and begins the next, which comes to the same.
func through(text, end string) (part, rest string) {
	i := strings.Index(text[1:], end)
	if i < 0 {
		return text, ""
	}
	i += 1 + len(end)
	return text[:i], text[i:]
}

// normalCode leaves alone what Python reads: only the ends of lines and of the
// text are of no interest.
func normalCode(code string) string {
	lines := strings.Split(strings.ReplaceAll(code, "\r\n", "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRightFunc(line, unicode.IsSpace)
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n")
}
