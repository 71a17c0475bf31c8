package main

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/chkpin/chkpin/blobstore"
)

// target is one entry of the file of --targets: what the arguments and flags of
// pin say where there is one application.
type target struct {
	Name       string
	App        blobstore.URI
	JobManager string
	Job        string
	JobID      string
	All        bool
	Replicas   []blobstore.URI

	at *yaml.Node
}

// in reports whether a shard is the target's. It depends on nothing but the
// name: other targets come and go without moving it.
func (t target) in(shard, shards int) bool {
	h := fnv.New64a()
	h.Write([]byte(t.Name)) // never fails
	return h.Sum64()%uint64(shards) == uint64(shard)
}

// readTargets reads a file of the form
//
//	targets:
//	- name: orders
//	  app: s3://bucket/orders
//	  jobmanager: http://orders-jobmanager:8081
//
// and refuses whatever in it could mean something else than it says.
func readTargets(file string) ([]target, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, usagef("--targets takes a YAML file; is it mounted?", "%v", err)
	}
	r := targetsReader{file}
	var document, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	err = decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return nil, r.wrong(&yaml.Node{Line: 1, Column: 1}, "the file is empty")
	}
	for empty := true; err == nil && empty; { // as behind a --- at the end
		second = yaml.Node{}
		err = decoder.Decode(&second)
		empty = len(second.Content) == 0 || second.Content[0].Tag == "!!null"
	}
	switch {
	case err == nil:
		return nil, r.wrong(&second, "a second document; all targets stand in one list")
	case !errors.Is(err, io.EOF):
		return nil, usagef("--targets takes a YAML file", "%s: %v", file, err)
	}
	var list *yaml.Node
	if err := r.fields(document.Content[0], map[string]func(*yaml.Node) error{
		"targets": func(n *yaml.Node) error { list = n; return nil },
	}); err != nil {
		return nil, err
	}
	if list == nil || list.Kind != yaml.SequenceNode || len(list.Content) == 0 {
		return nil, r.wrong(document.Content[0], "there are no targets in it")
	}
	var targets []target
	for _, n := range list.Content {
		t, err := r.target(n)
		if err != nil {
			return nil, err
		}
		if err := r.clash(t, targets); err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// targetsReader reads nodes, and tells where in the file one is wrong.
type targetsReader struct{ file string }

func (r targetsReader) wrong(at *yaml.Node, format string, args ...any) error {
	return usagef("an entry has name, app and jobmanager; where it needs them job, jobId or all, and replicas",
		"%s:%d:%d: %s", r.file, at.Line, at.Column, fmt.Sprintf(format, args...))
}

func (r targetsReader) target(n *yaml.Node) (t target, err error) {
	t.at = n
	if err := r.fields(n, map[string]func(*yaml.Node) error{
		"name":       r.into(&t.Name),
		"app":        r.uri(&t.App),
		"jobmanager": r.into(&t.JobManager),
		"job":        r.into(&t.Job),
		"jobId":      r.into(&t.JobID),
		"all":        r.into(&t.All),
		"replicas":   r.uris(&t.Replicas),
	}); err != nil {
		return t, err
	}
	choices := 0
	for _, given := range []bool{t.Job != "", t.JobID != "", t.All} {
		if given {
			choices++
		}
	}
	switch {
	case t.Name == "":
		return t, r.wrong(n, "a target has no name")
	case t.App.IsZero():
		return t, r.wrong(n, "target %q has no app", t.Name)
	case t.JobManager == "":
		return t, r.wrong(n, "target %q has no jobmanager", t.Name)
	case choices > 1:
		return t, r.wrong(n, "target %q: job, jobId and all can't be used together", t.Name)
	}
	return t, nil
}

// clash refuses a target that one before it has the name of, or a folder.
func (r targetsReader) clash(t target, before []target) error {
	for _, b := range before {
		if b.Name == t.Name {
			return r.wrong(t.at, "target %q: the name is taken by line %d", t.Name, b.at.Line)
		}
		for i, there := range b.folders() {
			for _, here := range t.folders() {
				switch {
				case there.Same(here) && i == 0:
					return r.wrong(t.at, "target %q: %s is the app of line %d, too", t.Name, here, b.at.Line)
				case there.Same(here):
					return r.wrong(t.at, "target %q: %s is a replica of line %d, too", t.Name, here, b.at.Line)
				case b.All && here.Within(there), t.All && there.Within(here):
					return r.wrong(t.at, "target %q: with line %d one app or replica lies in the other, which holds an app for each job", t.Name, b.at.Line)
				}
			}
		}
	}
	return nil
}

// folders are those that pins are kept in, the app first.
func (t target) folders() []blobstore.URI { return append([]blobstore.URI{t.App}, t.Replicas...) }

// fields reads a mapping that has these fields and no other.
func (r targetsReader) fields(n *yaml.Node, fields map[string]func(*yaml.Node) error) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return r.wrong(n, "fields are expected here")
	}
	var seen []string
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		read, ok := fields[key.Value]
		switch {
		case !ok:
			return r.wrong(key, "unknown field %q", key.Value)
		case slices.Contains(seen, key.Value):
			return r.wrong(key, "field %q is there twice", key.Value)
		}
		seen = append(seen, key.Value)
		if err := read(value); err != nil {
			return err
		}
	}
	return nil
}

func (r targetsReader) into(field any) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if err := n.Decode(field); err != nil {
			return r.wrong(n, "%q is not what is expected here", n.Value)
		}
		return nil
	}
}

func (r targetsReader) uri(field *blobstore.URI) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		var app appURI
		if err := app.UnmarshalText([]byte(n.Value)); err != nil || n.Kind != yaml.ScalarNode {
			return r.wrong(n, "%q is no URI such as s3://bucket/app", n.Value)
		}
		*field = app.URI
		return nil
	}
}

func (r targetsReader) uris(field *[]blobstore.URI) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.SequenceNode {
			return r.wrong(n, "a list is expected here")
		}
		for _, item := range n.Content {
			var u blobstore.URI
			if err := r.uri(&u)(item); err != nil {
				return err
			}
			*field = append(*field, u)
		}
		return nil
	}
}

// tally counts results for the one line that sums up.
type tally map[string]int

func (t tally) String() string {
	var words []string
	for _, result := range slices.Sorted(maps.Keys(t)) {
		words = append(words, fmt.Sprintf("%d %s", t[result], result))
	}
	return strings.Join(words, ", ")
}
