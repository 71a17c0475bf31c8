package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/chkpin/chkpin/checkpoint"
)

var update = flag.Bool("update", false, "write generated files and golden renders anew")

const (
	chart  = "../../charts/chkpin/"
	schema = chart + "values.schema.json"
)

// A file that is generated from something else is what would be generated now.
func generated(t *testing.T, name, want string) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(name, []byte(want), 0o644))
	}
	got, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, want, string(got), "%s: write it anew with -update", name)
}

// The chart's schema knows every flag of the commands that the chart runs: one
// that is forgotten there could not be set.
func TestChartKnowsEveryFlag(t *testing.T) {
	data, err := os.ReadFile(schema)
	require.NoError(t, err)
	var root map[string]any
	require.NoError(t, json.Unmarshal(data, &root))
	settings := map[string]any{}
	for name, f := range chartFlags(t) {
		settings[name] = settingOf(f)
	}
	root["definitions"].(map[string]any)["settings"] = map[string]any{
		"type": "object", "additionalProperties": false, "properties": settings,
		"description": "Flags of chkpin without the dashes.",
	}
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	require.NoError(t, enc.Encode(root))
	generated(t, schema, want.String())
}

// chartFlags are the flags of the commands that the chart runs, by name. The
// chart gives them as variables, whose names it derives.
func chartFlags(t *testing.T) map[string]*kong.Flag {
	t.Helper()
	flags := map[string]*kong.Flag{}
	for _, f := range allFlags(t, "pin", "watch", "doctor") {
		if f.Name == "help" || f.Name == "manifest" { // a file of the one who calls doctor
			continue
		}
		if flags[f.Name] == nil { // pin's words, where a flag is doctor's, too
			flags[f.Name] = f
		}
		if f.Name == "relocated" {
			continue // an argument in the chart: a variable holds but one
		}
		variable := "CHKPIN_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		assert.Contains(t, f.Envs, variable, "the chart sets --%s by this variable", f.Name)
	}
	return flags
}

// allFlags are the flags of commands, or of all commands.
func allFlags(t *testing.T, commands ...string) (flags []*kong.Flag) {
	t.Helper()
	parser, err := kong.New(&cli{}, kong.Name("chkpin"))
	require.NoError(t, err)
	for _, command := range parser.Model.Leaves(false) {
		if len(commands) > 0 && !slices.Contains(commands, command.Name) {
			continue
		}
		for _, group := range command.AllFlags(false) {
			flags = append(flags, group...)
		}
	}
	require.NotEmpty(t, flags)
	return flags
}

// settingOf is the schema of a flag's value: its own type, a reference to a
// Secret or the like, or null, which takes it back.
func settingOf(f *kong.Flag) map[string]any {
	one := map[string]any{}
	switch target := f.Target.Type(); {
	case f.IsBool():
		one["type"] = "boolean"
	case target == reflect.TypeFor[time.Duration]():
		one["type"], one["pattern"] = "string", `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	case target == reflect.TypeFor[byteSize]():
		one["type"] = []string{"string", "integer"}
	case target == reflect.TypeFor[int]():
		one["type"] = "integer"
	default: // a number here would be a name that YAML took for one, such as a job id of zeros
		one["type"] = "string"
	}
	if f.Enum != "" {
		one = map[string]any{"enum": f.EnumSlice()}
	}
	choices := []any{one}
	if f.IsSlice() {
		choices = append(choices, map[string]any{"type": "array", "items": one})
	}
	if f.Name != "relocated" {
		choices = append(choices, map[string]any{"$ref": "#/definitions/valueFrom"})
	}
	choices = append(choices, map[string]any{"type": "null"})
	return map[string]any{"description": f.Help, "anyOf": choices}
}

// The schema has a place for every value that the chart documents, and for no
// other.
func TestChartSchemaKnowsEveryValue(t *testing.T) {
	data, err := os.ReadFile(schema)
	require.NoError(t, err)
	var s struct {
		Properties  map[string]any
		Definitions struct {
			Application struct{ Properties map[string]any }
		}
	}
	require.NoError(t, json.Unmarshal(data, &s))
	inApplication, inRelease := 0, 0
	for name := range valuesOf(t) {
		assert.Contains(t, s.Properties, name, "a property of the schema")
		inRelease++
	}
	assert.Len(t, s.Properties, inRelease+1, "and \"global\", which Helm adds")
	for name := range s.Definitions.Application.Properties {
		if name != "name" {
			assert.Contains(t, s.Properties, name, "an application's value is one of the release, too")
			inApplication++
		}
	}
	assert.Positive(t, inApplication)
}

func valuesOf(t *testing.T) (values map[string]yaml.Node) {
	t.Helper()
	data, err := os.ReadFile(chart + "values.yaml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(data, &values))
	return values
}

// The README of the chart is the comments of its values.
func TestChartReadme(t *testing.T) {
	data, err := os.ReadFile(chart + "values.yaml")
	require.NoError(t, err)
	var document yaml.Node
	require.NoError(t, yaml.Unmarshal(data, &document))
	const mark = "<!-- from values.yaml -->\n"
	readme, err := os.ReadFile(chart + "README.md")
	require.NoError(t, err)
	intro, _, found := strings.Cut(string(readme), mark)
	require.True(t, found, "the README says where the table begins")
	var table strings.Builder
	table.WriteString(intro + mark + "\n| value | default | |\n| --- | --- | --- |\n")
	describeValues(t, &table, "", document.Content[0])
	generated(t, chart+"README.md", table.String())
}

func describeValues(t *testing.T, w *strings.Builder, prefix string, node *yaml.Node) {
	t.Helper()
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		// A comment after an empty line belongs to what follows as a whole.
		paragraphs := strings.Split(key.HeadComment, "\n\n")
		comment := strings.TrimPrefix(strings.ReplaceAll(paragraphs[len(paragraphs)-1], "\n# ", " "), "# ")
		name := prefix + key.Value
		if value.Kind == yaml.MappingNode && len(value.Content) > 0 && slices.ContainsFunc(value.Content, func(n *yaml.Node) bool { return n.HeadComment != "" }) {
			if comment != "" {
				fmt.Fprintf(w, "| `%s` | | %s |\n", name, comment)
			}
			describeValues(t, w, name+".", value)
			continue
		}
		assert.NotEmpty(t, comment, "values.yaml documents %s", name)
		var v any
		require.NoError(t, value.Decode(&v))
		def, err := json.Marshal(v)
		require.NoError(t, err)
		fmt.Fprintf(w, "| `%s` | `%s` | %s |\n", name, def, comment)
	}
}

// Alerts and dashboard ask for metrics that watch has.
func TestAlertsAskForOurMetrics(t *testing.T) {
	m := newMetrics()
	m.observe(checkpoint.Pinned{}, verdict{outcome: done}, time.Second)
	families, err := m.registry.Gather()
	require.NoError(t, err)
	known := map[string]bool{}
	for _, f := range families {
		known[f.GetName()] = true
	}
	asked := regexp.MustCompile(`\bchkpin_[a-z_]+\b`)
	for _, name := range []string{"templates/_alerts.tpl", "files/dashboard.json"} {
		data, err := os.ReadFile(chart + name)
		require.NoError(t, err)
		metrics := asked.FindAllString(string(data), -1)
		assert.NotEmpty(t, metrics, name)
		for _, metric := range metrics {
			assert.True(t, known[strings.TrimSuffix(metric, "_bucket")], "%s asks for %s", name, metric)
		}
	}
}

// Jobs are not tried again where that changes nothing.
func TestPodFailurePolicyKnowsTheExitCodes(t *testing.T) {
	again := []outcome{done, failed, unreachable, denied, stopped}
	var final []string
	for _, o := range outcomes {
		if !slices.Contains(again, o) && o != different { // which only diff exits with
			final = append(final, fmt.Sprint(o.code))
		}
	}
	want := "values: [" + strings.Join(final, ", ") + "]"
	for _, name := range []string{chart + "templates/cronjob.yaml", "../../manifests/base/cronjob.yaml"} {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		assert.Contains(t, string(data), want, name)
	}
}
