package metadata

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Modified UTF-8 as java.io.DataOutput.writeUTF makes it.
func TestText(t *testing.T) {
	for text, encoded := range map[string]string{
		"":                           "",
		"plain":                      "plain",
		"longer than eight bytes":    "longer than eight bytes",
		strings.Repeat("thirty", 12): strings.Repeat("thirty", 12),
		"a\x00b":                     "a\xC0\x80b",
		"\x7F":                       "\x7F",
		"\u0080":                     "\xC2\x80",
		"Größe":                      "Gr\xC3\xB6\xC3\x9Fe",
		"\u0800":                     "\xE0\xA0\x80",
		"\uFFFF":                     "\xEF\xBF\xBF",
		"\U00010000":                 "\xED\xA0\x80\xED\xB0\x80",
		"a path of 😀 and \U0010FFFF": "a path of \xED\xA0\xBD\xED\xB8\x80 and \xED\xAF\xBF\xED\xBF\xBF",
	} {
		b, ok := appendText([]byte("before"), text)
		assert.True(t, ok, text)
		assert.Equal(t, "before"+encoded, string(b), text)
		assert.True(t, validText([]byte(encoded)), text)
		decoded, ok := decodeText([]byte(encoded))
		assert.True(t, ok, text)
		assert.Equal(t, text, decoded)
	}
}

// Java's reader refuses these.
func TestMalformedText(t *testing.T) {
	for _, raw := range []string{
		"\x80", "\xBF", "\xC3", "\xC3(", "\xE0\xA0", "\xE0(\x80", "\xE0\xA0(", "\xF0\x9F\x98\x80", "\xFF",
		"behind eight plain bytes \xFF", "\xFF before eight plain bytes", strings.Repeat("x", 40) + "\x80" + strings.Repeat("x", 40),
	} {
		assert.False(t, plainText([]byte(raw)), "%q", raw)
		assert.False(t, validText([]byte(raw)), "%q", raw)
		_, ok := decodeText([]byte(raw))
		assert.False(t, ok, "%q", raw)
	}
}

// Wherever a byte beyond ASCII or a NUL stands, and however long the text is, it is seen.
func TestPlainText(t *testing.T) {
	for n := range 100 {
		b := bytes.Repeat([]byte{0x01, 0x7F}, n)[:n]
		require.True(t, plainText(b))
		for i, plain := range b {
			for _, c := range []byte{0x00, 0x80, 0x81, 0xFF} {
				b[i] = c
				require.False(t, plainText(b), "%#x as %d of %d", c, i, n)
			}
			b[i] = plain
		}
	}
}

func TestDisplayText(t *testing.T) {
	assert.Equal(t, "a\uFFFDb", displayText([]byte("a\xFFb")))
	assert.Equal(t, "a\uFFFDb", displayText([]byte("a\xED\xA0\xBDb")))
	assert.Equal(t, "\uFFFD\uFFFD", displayText([]byte("\xED\xA0\xBD\xED\xA0\xBD")))
	assert.Equal(t, "A", displayText([]byte("\xC1\x81")))
}
