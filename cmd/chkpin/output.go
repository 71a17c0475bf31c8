package main

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"

	"github.com/alecthomas/kong"
	"github.com/dustin/go-humanize"
)

// print writes a result to stdout: as one line of JSON, or as text for people.
// Lists are never null in JSON.
func (e *environment) print(result any, text func(io.Writer)) error {
	if !e.json {
		text(e.stdout)
		return nil
	}
	v := reflect.ValueOf(&result).Elem().Elem()
	filled := reflect.New(v.Type()).Elem()
	filled.Set(v)
	for i := range filled.NumField() {
		if f := filled.Field(i); f.Kind() == reflect.Slice && f.IsNil() {
			f.Set(reflect.MakeSlice(f.Type(), 0, 0))
		}
	}
	enc := json.NewEncoder(e.stdout)
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
	*b = byteSize(n)
	return err
}
