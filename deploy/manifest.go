package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Manifest is one job as its users write it: what runs, and with which settings
// of Flink. The fields and their names are those of flink-sql-runner.
type Manifest struct {
	Name        string // of the job in Flink (pipeline.name), and of its folders
	Description string
	TargetTable string
	SQL, Code   string            // exactly one of them
	Properties  map[string]string // flinkProperties
	Meta        Meta              // of a manifest that was deployed; zero in a user's
}

// Meta is what deploying adds to a manifest.
type Meta struct {
	QueryID         string // a UUID, new with every changed query
	Version         int    // 1, 2, …: grows with every changed query
	CreateTimestamp string // when the query was first deployed, in UTC
}

// ManifestError says what in a manifest cannot be used, and where.
type ManifestError struct {
	File         string
	Line, Column int // from 1; 0 when unknown
	Text         string
}

func (e *ManifestError) Error() string {
	switch {
	case e.Line == 0:
		return fmt.Sprintf("%s: %s", e.File, e.Text)
	case e.Column == 0:
		return fmt.Sprintf("%s: line %d: %s", e.File, e.Line, e.Text)
	}
	return fmt.Sprintf("%s: line %d, column %d: %s", e.File, e.Line, e.Column, e.Text)
}

// placeholder stands for the name of the job in a template.
const placeholder = "{job_name}"

// Parse reads a user's manifest and merges it over a template: single fields win,
// flinkProperties do one by one. In the template {job_name} stands for the name
// of the job. The names of both are for messages; template may be nil.
func Parse(file string, data []byte, templateFile string, template []byte) (Manifest, error) {
	own, err := parseFields(file, data)
	if err != nil {
		return Manifest{}, err
	}
	var name string
	if field, ok := own["name"]; ok {
		if name, err = scalar(file, "name", &field); err != nil {
			return Manifest{}, err
		}
	}
	var defaults map[string]yaml.Node
	if len(bytes.TrimSpace(template)) > 0 {
		defaults, err = parseFields(templateFile, bytes.ReplaceAll(template, []byte(placeholder), []byte(name)))
		if err != nil {
			return Manifest{}, err
		}
	}
	merged := Manifest{Properties: map[string]string{}}
	for _, part := range []struct {
		file   string
		fields map[string]yaml.Node
	}{{templateFile, defaults}, {file, own}} {
		if err := merged.read(part.file, part.fields, false); err != nil {
			return Manifest{}, err
		}
	}
	return merged, merged.check(file)
}

// ParseStored reads a manifest that was stored when it was deployed, by this
// program or by flink-sql-runner. Fields that it does not know are not of
// interest.
func ParseStored(file string, data []byte) (Manifest, error) {
	m := Manifest{Properties: map[string]string{}}
	fields, err := parseFields(file, data)
	if err == nil {
		err = m.read(file, fields, true)
	}
	switch {
	case err != nil:
		return m, err
	case m.Meta.Version < 1:
		return m, &ManifestError{File: file, Text: "it has no meta.query-version, so it is no manifest of a deployed job"}
	}
	return m, m.check(file)
}

// parseFields reads the top level of a YAML document.
func parseFields(file string, data []byte) (map[string]yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, &ManifestError{File: file, Text: "it is empty"}
	case err != nil:
		return nil, syntaxError(file, data, err)
	}
	if root := document.Content[0]; root.Kind != yaml.MappingNode {
		return nil, at(file, root, "it is not a mapping with the fields of a job")
	}
	var fields map[string]yaml.Node
	if err := document.Decode(&fields); err != nil {
		return nil, syntaxError(file, data, err)
	}
	switch err := decoder.Decode(&document); {
	case err == nil:
		return nil, at(file, &document, "a second document; write one job a file")
	case !errors.Is(err, io.EOF):
		return nil, syntaxError(file, data, err)
	}
	return fields, nil
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// syntaxError says where. The library tells the line alone; the column is that of
// its first word.
func syntaxError(file string, data []byte, err error) error {
	text := oneLine(err)
	e := &ManifestError{File: file, Text: "not YAML: " + text}
	m := yamlLine.FindStringSubmatch(text)
	if m == nil {
		return e
	}
	e.Text = "not YAML: " + text[len(m[0]):]
	e.Line, _ = strconv.Atoi(m[1])
	if lines := bytes.Split(data, []byte("\n")); e.Line <= len(lines) {
		line := lines[e.Line-1]
		e.Column = 1 + len(line) - len(bytes.TrimLeft(line, " \t"))
	}
	return e
}

// oneLine is the first thing that the library has to say.
func oneLine(err error) string {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:\n  ")
	text, _, _ = strings.Cut(text, "\n")
	return text
}

func at(file string, n *yaml.Node, format string, args ...any) error {
	return &ManifestError{file, n.Line, n.Column, fmt.Sprintf(format, args...)}
}

// read takes over the fields of one document.
func (m *Manifest) read(file string, fields map[string]yaml.Node, stored bool) error {
	texts := map[string]*string{"name": &m.Name, "description": &m.Description, "target-table": &m.TargetTable, "sql": &m.SQL, "code": &m.Code}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		field := fields[key]
		text, isText := texts[key]
		var err error
		switch {
		case isText:
			*text, err = scalar(file, key, &field)
		case key == "flinkProperties":
			err = m.readProperties(file, &field)
		case key == "meta" && stored:
			err = m.Meta.read(file, &field)
		case key == "meta":
			err = at(file, &field, "meta is written by deploy, not by hand")
		case !stored:
			err = at(file, &field, "unknown field %q; a job has name, description, target-table, sql or code, and flinkProperties", key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *Manifest) readProperties(file string, field *yaml.Node) error {
	if field.Tag == "!!null" {
		return nil
	}
	if field.Kind != yaml.MappingNode && field.Kind != yaml.AliasNode {
		return at(file, field, "flinkProperties is not a mapping of settings")
	}
	var properties map[string]yaml.Node
	if err := field.Decode(&properties); err != nil {
		return at(file, field, "flinkProperties: %s", oneLine(err))
	}
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		value := properties[key]
		text, err := setting(file, "flinkProperties."+key, &value)
		if err != nil {
			return err
		}
		m.Properties[key] = text
	}
	return nil
}

// newestLayout is that of stored manifests. flink-sql-runner writes none, which
// is the same.
const newestLayout = 1

func (m *Meta) read(file string, field *yaml.Node) error {
	var meta struct {
		ID      string `yaml:"query-id"`
		Version int    `yaml:"query-version"`
		Created string `yaml:"query-create-timestamp"`
		Layout  int    `yaml:"layout"`
	}
	if err := field.Decode(&meta); err != nil {
		return at(file, field, "meta: %s", oneLine(err))
	}
	if meta.Layout > newestLayout {
		return at(file, field, "written by a newer chkpin (layout %d); this one knows layout %d", meta.Layout, newestLayout)
	}
	*m = Meta{meta.ID, meta.Version, meta.Created}
	return nil
}

// settled are the spellings of true and false in the YAML of flink-sql-runner
// (PyYAML), in lower case. Flink knows the first two alone.
var settled = map[string]string{"true": "true", "false": "false", "yes": "true", "no": "false", "on": "true", "off": "false"}

// setting is a single value as Flink reads it.
func setting(file, key string, n *yaml.Node) (string, error) {
	text, err := scalar(file, key, n)
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if truth, ok := settled[strings.ToLower(text)]; ok && n.Style == 0 { // neither quoted nor a block
		return truth, err
	}
	return text, err
}

// scalar is a single value as text.
func scalar(file, key string, n *yaml.Node) (string, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.Kind != yaml.ScalarNode:
		return "", at(file, n, "%s is not a single value", key)
	case n.Tag == "!!null":
		return "", at(file, n, "%s has no value", key)
	}
	return n.Value, nil
}

// usable are names that can be a folder's and an object's on any store.
var usable = regexp.MustCompile(`^[\pL\pN][\pL\pN._-]*$`)

func (m *Manifest) check(file string) error {
	fail := func(format string, args ...any) error {
		return &ManifestError{File: file, Text: fmt.Sprintf(format, args...)}
	}
	switch name, set := m.Properties[pipelineName]; {
	case m.Name == "":
		return fail("the job has no name")
	case !usable.MatchString(m.Name):
		return fail("the name %q cannot be a folder's: letters, digits, '.', '_' and '-' can", m.Name)
	case m.SQL == "" && m.Code == "":
		return fail("neither sql nor code says what to run")
	case m.SQL != "" && m.Code != "":
		return fail("both sql and code say what to run")
	case set && name != m.Name:
		return fail("pipeline.name is %q; a running job is found by its name, so it must be %q, or be left out", name, m.Name)
	}
	m.Properties[pipelineName] = m.Name
	return nil
}

const pipelineName = "pipeline.name" // PipelineOptions.NAME, 1.13 to 2.3

// Encode is the manifest as YAML, with sorted keys. It reads as flink-sql-runner's
// do.
func (m Manifest) Encode() []byte {
	fields := map[string]any{"name": m.Name, "flinkProperties": m.Properties, "meta": map[string]any{
		"query-id":               m.Meta.QueryID,
		"query-version":          m.Meta.Version,
		"query-create-timestamp": m.Meta.CreateTimestamp,
	}}
	for key, text := range map[string]string{"description": m.Description, "target-table": m.TargetTable, "sql": m.SQL, "code": m.Code} {
		if text != "" {
			fields[key] = text
		}
	}
	data, err := yaml.Marshal(fields)
	if err != nil {
		panic(err) // texts and numbers always marshal
	}
	return data
}
