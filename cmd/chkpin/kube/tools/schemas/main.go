// Command schemas makes a JSON schema of each Kubernetes kind from the API
// description (swagger.json) of the Kubernetes module, for kubeconform. They are
// strict: a field that a kind does not have is an error.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// schema is a node of a JSON schema.
type schema = map[string]any

const definitions = "#/definitions/"

// scalars are the types whose description is narrower than what the API server
// takes: their JSON may be a number as well as a string.
var scalars = map[string]schema{
	"io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": []string{"string", "integer"}},
	"io.k8s.apimachinery.pkg.api.resource.Quantity":   {"type": []string{"string", "number"}},
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: schemas SWAGGER.JSON FOLDER")
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func run(description, folder string) error {
	text, err := os.ReadFile(description)
	if err != nil {
		return err
	}
	var api struct {
		Definitions map[string]schema `json:"definitions"`
	}
	if err := json.Unmarshal(text, &api); err != nil {
		return fmt.Errorf("%s: %w", description, err)
	}
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	for name, definition := range api.Definitions {
		for _, id := range kinds(definition) {
			whole := inline(definition, api.Definitions, []string{name}).(schema)
			if err := id.write(folder, whole); err != nil {
				return err
			}
		}
	}
	return nil
}

// kind is a group, version and kind that a definition serves.
type kind struct{ Group, Version, Kind string }

// kinds of a definition. Those of many groups, like DeleteOptions, describe no
// manifest.
func kinds(definition schema) []kind {
	list, _ := definition["x-kubernetes-group-version-kind"].([]any)
	if len(list) != 1 {
		return nil
	}
	gvk := list[0].(schema)
	return []kind{{gvk["group"].(string), gvk["version"].(string), gvk["kind"].(string)}}
}

// write stores a schema under the name that kubeconform derives from a manifest.
func (k kind) write(folder string, s schema) error {
	properties, _ := s["properties"].(schema)
	if properties["apiVersion"] == nil || properties["kind"] == nil {
		return nil
	}
	apiVersion := strings.TrimPrefix(k.Group+"/"+k.Version, "/")
	properties["apiVersion"] = schema{"type": "string", "enum": []string{apiVersion}}
	properties["kind"] = schema{"type": "string", "enum": []string{k.Kind}}
	required, _ := s["required"].([]any)
	s["required"] = append([]any{"apiVersion", "kind"}, required...)

	group, _, _ := strings.Cut(k.Group, ".")
	name := strings.ToLower(strings.Join(slices.DeleteFunc([]string{k.Kind, group, k.Version}, func(s string) bool { return s == "" }), "-"))
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, name+".json"), text, 0o666)
}

// inline returns a node with the definitions that it refers to in their places.
// Where a definition contains itself, inside is anything.
func inline(node any, all map[string]schema, within []string) any {
	switch node := node.(type) {
	case []any:
		copied := make([]any, len(node))
		for i, n := range node {
			copied[i] = inline(n, all, within)
		}
		return copied
	case schema:
		if ref, ok := node["$ref"].(string); ok {
			name := strings.TrimPrefix(ref, definitions)
			switch {
			case scalars[name] != nil:
				return maps.Clone(scalars[name])
			case slices.Contains(within, name):
				return schema{}
			}
			return inline(all[name], all, append(slices.Clip(within), name))
		}
		copied := schema{}
		for key, value := range node {
			switch {
			case key == "properties":
				fields := schema{}
				for field, s := range value.(schema) {
					fields[field] = inline(s, all, within)
				}
				copied[key] = fields
			case key == "format", key == "description", strings.HasPrefix(key, "x-kubernetes-"):
			default:
				copied[key] = inline(value, all, within)
			}
		}
		if copied["properties"] != nil && copied["additionalProperties"] == nil {
			copied["additionalProperties"] = false
		}
		return copied
	}
	return node
}
