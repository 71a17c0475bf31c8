package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const schemaFolder = "../../docs/schema"

// schemasVariable is where chkpin in a story finds the schemas.
const schemasVariable = "SCHEMAS"

// breach is how chkpin exits in a story when its JSON is not what docs/json.md promises.
const breach = 99

// mainWithSchemas is chkpin in the stories. Whatever JSON it prints on stdout, in any story, has to be as the schema of
// its command says, with no field more.
func mainWithSchemas() {
	folder := os.Getenv(schemasVariable)
	name := jsonCommand(os.Args[1:])
	if folder == "" || name == "" {
		main()
		return
	}
	stdout := os.Stdout
	in, out, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	os.Stdout = out
	printed := make(chan []byte)
	go func() {
		var all bytes.Buffer
		io.Copy(io.MultiWriter(stdout, &all), in) //nolint:errcheck // a reader that went away is chkpin's to see
		printed <- all.Bytes()
	}()
	code := run(os.Args[1:])
	out.Close()
	if err := validate(folder, name, <-printed); err != nil {
		fmt.Fprintf(os.Stderr, "chkpin %s printed JSON that docs/schema does not describe: %v\n", name, err)
		code = breach
	}
	os.Exit(code)
}

// withoutSchema are commands whose stdout is no JSON, whatever --output says.
var withoutSchema = []string{"watch", "exec", "completion"}

// jsonCommand is the command of a command line that prints JSON, "" for any other.
func jsonCommand(args []string) string {
	asked := os.Getenv("CHKPIN_OUTPUT") == "json" || os.Getenv("CHKPIN_FORMAT") == "json"
	for i, arg := range args {
		before := args[max(i-1, 0)]
		asked = asked || arg == "json" && (before == "--output" || before == "--format") || arg == "--output=json" || arg == "--format=json"
	}
	if !asked || os.Getenv("COMP_LINE") != "" || slices.Contains(args, "--help") || slices.Contains(args, "text") {
		return ""
	}
	parser, err := newParser(&cli{}, io.Discard, io.Discard)
	if err != nil {
		panic(err)
	}
	for _, arg := range withCommand(args) {
		for _, node := range parser.Model.Children {
			if node.Name == arg && !slices.Contains(withoutSchema, arg) {
				return arg
			}
		}
	}
	return ""
}

// validate checks lines of JSON against the schema of a command.
func validate(folder, command string, lines []byte) error {
	schema, err := schemaOf(folder, command)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(lines) {
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
		if err == nil {
			err = schema.Validate(value)
		}
		if err != nil {
			return fmt.Errorf("%w in %s", err, line)
		}
	}
	return nil
}

// schemaOf reads the schema of a command. The published one lets fields be added, as the contract does; here, a field
// that it does not describe is an error.
func schemaOf(folder, command string) (*jsonschema.Schema, error) {
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	names, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil || len(names) == 0 {
		return nil, errors.Join(err, fmt.Errorf("no schemas in %s", folder))
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := compiler.AddResource("file:///"+filepath.Base(name), closed(schema)); err != nil {
			return nil, err
		}
	}
	return compiler.Compile("file:///" + command + ".json")
}

// closed forbids fields that an object's schema does not describe.
func closed(schema any) any {
	switch schema := schema.(type) {
	case map[string]any:
		for _, part := range schema {
			closed(part)
		}
		_, object := schema["properties"].(map[string]any)
		if _, said := schema["additionalProperties"]; object && !said {
			schema["additionalProperties"] = false
		}
	case []any:
		for _, part := range schema {
			closed(part)
		}
	}
	return schema
}

// A schema is documentation: each command has one that is linked, and each field says what it is.
func TestEveryCommandHasASchema(t *testing.T) {
	doc, err := os.ReadFile("../../docs/json.md")
	require.NoError(t, err)
	for _, node := range commands(t) {
		if slices.Contains(withoutSchema, node.Name) {
			continue
		}
		t.Run(node.Name, func(t *testing.T) {
			_, err := schemaOf(schemaFolder, node.Name)
			require.NoError(t, err)
			assert.Contains(t, string(doc), "(schema/"+node.Name+".json)")
			data, err := os.ReadFile(filepath.Join(schemaFolder, node.Name+".json"))
			require.NoError(t, err)
			schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
			require.NoError(t, err)
			described(t, node.Name, schema)
		})
	}
}

func described(t *testing.T, path string, schema any) {
	t.Helper()
	object := schema.(map[string]any)
	assert.NotEmpty(t, object["description"], path)
	properties, _ := object["properties"].(map[string]any)
	for name, property := range properties {
		described(t, path+"."+name, property)
	}
	definitions, _ := object["$defs"].(map[string]any)
	for name, definition := range definitions {
		described(t, path+"/"+name, definition)
	}
	if items, ok := object["items"].(map[string]any); ok && items["properties"] != nil {
		described(t, path+"[]", items)
	}
}

// The lines that docs/json.md shows are what the schemas describe.
func TestExamplesOfJSONAreValid(t *testing.T) {
	doc, err := os.ReadFile("../../docs/json.md")
	require.NoError(t, err)
	command, shown := "", 0
	for line := range strings.Lines(string(doc)) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			command = strings.TrimSpace(strings.Split(title, ",")[0])
		}
		if strings.HasPrefix(line, "{") {
			shown++
			assert.NoError(t, validate(schemaFolder, command, []byte(line)), command)
		}
	}
	assert.GreaterOrEqual(t, shown, 10)
}

// What the stories rely on: a field too many, one too few and a word that is none of the known are noticed.
func TestSchemasRefuse(t *testing.T) {
	const good = `{"version":"1","revision":"","go":"go1"}`
	require.NoError(t, validate(schemaFolder, "version", []byte(good)))
	assert.ErrorContains(t, validate(schemaFolder, "version", []byte(`{"version":"1","revision":"","go":"go1","more":1}`)), "'more'")
	assert.ErrorContains(t, validate(schemaFolder, "version", []byte(`{"version":"1","go":"go1"}`)), "'revision'")
	assert.Error(t, validate(schemaFolder, "version", []byte("chkpin 1\n")))
	assert.ErrorContains(t, validate(schemaFolder, "stop", []byte(`{"result":"perhaps"}`)), "/result")
}
