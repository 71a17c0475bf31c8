package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"reflect"

	"github.com/alecthomas/kong"
	"github.com/dustin/go-humanize"
)

// print writes a result to stdout: as one line of JSON, or as text for people.
// Lists are never null in JSON. A result that nobody got is a failure: an empty
// answer of resolve is a first start.
func (e *environment) print(result any, text func(io.Writer)) error {
	out := &printed{Writer: e.stdout}
	if e.json {
		if err := printJSON(out, result); out.err == nil {
			return err
		}
	} else {
		text(out)
	}
	if out.err != nil {
		return &hintedError{fmt.Errorf("printing the result: %w", out.err), "what was done stays done; let stdout go where there is room"}
	}
	return nil
}

// printed remembers the first error of writing to stdout, which those who print
// texts do not look at.
type printed struct {
	io.Writer
	err error
}

func (p *printed) Write(b []byte) (int, error) {
	n, err := p.Writer.Write(b)
	p.err = cmp.Or(p.err, err)
	return n, err
}

func printJSON(w io.Writer, result any) error {
	v := reflect.ValueOf(&result).Elem().Elem()
	filled := reflect.New(v.Type()).Elem()
	filled.Set(v)
	for i := range filled.NumField() {
		if f := filled.Field(i); f.Kind() == reflect.Slice && f.IsNil() {
			f.Set(reflect.MakeSlice(f.Type(), 0, 0))
		}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(filled.Interface())
}

func printWarnings(w io.Writer, warnings []string) {
	for _, text := range warnings {
		fmt.Fprintf(w, "%s %s\n", yellow.paint(w, "warning:"), text)
	}
}

// byteSize is a flag such as 50GB or 4GiB.
type byteSize int64

func (b *byteSize) Decode(ctx *kong.DecodeContext) error {
	var text string
	if err := ctx.Scan.PopValueInto("size", &text); err != nil {
		return err
	}
	n, err := humanize.ParseBytes(text)
	if err != nil {
		return fmt.Errorf("%q is no size such as 50GB", text)
	}
	*b = byteSize(n)
	return nil
}
