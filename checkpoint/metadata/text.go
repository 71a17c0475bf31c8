package metadata

import (
	"encoding/binary"
	"unicode/utf8"
)

// Java's modified UTF-8 differs from UTF-8 in two ways: NUL is C0 80, and a code point above U+FFFF is a
// surrogate pair of two three-byte forms (there are no four-byte forms). See java.io.DataInput.

const maxText = 65535 // bytes; the length is an unsigned 16-bit number

const (
	surrogateMin     = 0xD800
	surrogateLow     = 0xDC00
	surrogateMax     = 0xDFFF
	supplementaryMin = 0x10000
)

// validText reports whether Java's readUTF accepts b. It accepts more than writeUTF ever makes: a plain NUL,
// overlong forms, surrogates without a partner.
func validText(b []byte) bool {
	for len(b) > 0 {
		_, n := decodeUnit(b)
		if n == 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

// plainText reports whether b is the same text in ASCII, in Go and in modified UTF-8: no byte is zero or above 7F.
//
// It looks at every text of a file, so it takes eight bytes at a time; the last eight may overlap others.
func plainText(b []byte) bool {
	if len(b) < 8 {
		for _, c := range b {
			if c == 0 || c >= utf8.RuneSelf {
				return false
			}
		}
		return true
	}
	seen := unplain(b[len(b)-8:])
	for ; len(b) >= 32; b = b[32:] {
		seen |= unplain(b) | unplain(b[8:]) | unplain(b[16:]) | unplain(b[24:])
	}
	for ; len(b) >= 8; b = b[8:] {
		seen |= unplain(b)
	}
	return seen&0x8080808080808080 == 0
}

// unplain sets the highest bit of a byte if one of the first eight of b is zero or above 7F: the byte has that bit
// itself, or gets it when one is taken from zero. No other byte gets it unless a zero below has borrowed from it.
func unplain(b []byte) uint64 {
	x := binary.LittleEndian.Uint64(b)
	return x | (x - 0x0101010101010101)
}

// decodeUnit decodes the UTF-16 unit that b starts with and returns its length in bytes, 0 if there is none.
func decodeUnit(b []byte) (rune, int) {
	switch c := b[0]; {
	case c < 0x80:
		return rune(c), 1
	case c>>5 == 0b110 && len(b) >= 2 && b[1]>>6 == 0b10:
		return rune(c&0x1F)<<6 | rune(b[1]&0x3F), 2
	case c>>4 == 0b1110 && len(b) >= 3 && b[1]>>6 == 0b10 && b[2]>>6 == 0b10:
		return rune(c&0x0F)<<12 | rune(b[1]&0x3F)<<6 | rune(b[2]&0x3F), 3
	}
	return 0, 0
}

// decodeText returns the Go string for b, if that string encodes to b again.
func decodeText(b []byte) (string, bool) {
	if plainText(b) {
		return string(b), true
	}
	s := displayText(b)
	again, ok := appendText(nil, s)
	return s, ok && string(again) == string(b)
}

// displayText decodes b for people: what has no place in a Go string becomes U+FFFD.
func displayText(b []byte) string {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		unit, n := decodeUnit(b)
		if n == 0 {
			unit, n = utf8.RuneError, 1
		}
		b = b[n:]
		if unit >= surrogateMin && unit < surrogateLow && len(b) > 0 {
			if low, n := decodeUnit(b); low >= surrogateLow && low <= surrogateMax {
				unit = (unit-surrogateMin)<<10 + (low - surrogateLow) + supplementaryMin
				b = b[n:]
			}
		}
		out = utf8.AppendRune(out, unit)
	}
	return string(out)
}

// appendText appends s in modified UTF-8 to b. It fails if s is not UTF-8.
func appendText(b []byte, s string) ([]byte, bool) {
	start := len(b)
	if b = append(b, s...); plainText(b[start:]) {
		return b, true
	}
	b = b[:start]
	if !utf8.ValidString(s) {
		return b, false
	}
	for _, r := range s {
		switch {
		case r == 0:
			b = append(b, 0xC0, 0x80)
		case r < supplementaryMin:
			b = utf8.AppendRune(b, r)
		default:
			r -= supplementaryMin
			b = appendSurrogate(b, surrogateMin+r>>10)
			b = appendSurrogate(b, surrogateLow+r&0x3FF)
		}
	}
	return b, true
}

func appendSurrogate(b []byte, r rune) []byte {
	return append(b, 0xE0|byte(r>>12), 0x80|byte(r>>6)&0x3F, 0x80|byte(r)&0x3F)
}
