package main

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// Every command line of chkpin that the manifests and the renders of overlays and
// chart hold is one that chkpin takes, with the variables of its container.
func TestManifestsSpeakOurCommandLine(t *testing.T) {
	plain, err := filepath.Glob("../../manifests/*.yaml")
	require.NoError(t, err)
	plain = append(plain, argo)
	rendered, err := filepath.Glob("testdata/kubernetes/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, rendered)
	variables := map[string]bool{"CHKPIN_APP": true, "CHKPIN_JOBMANAGER": true} // those of arguments and flags
	for _, f := range allFlags(t) {
		for _, name := range f.Envs {
			variables[name] = true
		}
	}
	flinkConf := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(flinkConf, "config.yaml"), []byte("rest.address: jobmanager\n"), 0o644))
	here := strings.NewReplacer("/opt/flink/conf", flinkConf)
	lines := 0
	for _, name := range append(plain, rendered...) {
		documents := documentsOf(t, name)
		configMaps := map[string]map[string]any{}
		for _, d := range documents {
			if d["kind"] == "ConfigMap" {
				data, _ := d["data"].(map[string]any)
				configMaps[d["metadata"].(map[string]any)["name"].(string)] = data
				if targets, ok := data["targets.yaml"].(string); ok {
					file := filepath.Join(t.TempDir(), "targets.yaml")
					require.NoError(t, os.WriteFile(file, []byte(targets), 0o644))
					_, err := readTargets(file)
					assert.NoError(t, err, name)
				}
			}
		}
		for _, d := range documents {
			for _, c := range calls(d, configMaps) {
				lines++
				t.Run(filepath.Base(name)+"/"+c.args[0], func(t *testing.T) {
					for variable, value := range c.env {
						if strings.HasPrefix(variable, "CHKPIN_") {
							assert.True(t, variables[variable], "chkpin does not know %s", variable)
							assert.NotEmpty(t, value, variable)
						}
						t.Setenv(variable, here.Replace(value))
					}
					_, _, err := parse(c.args, io.Discard, io.Discard)
					assert.NoError(t, err, "chkpin %s, with %v", strings.Join(c.args, " "), c.env)
				})
			}
		}
	}
	assert.GreaterOrEqual(t, lines, 20, "command lines found")
}

const argo = "../../manifests/argo/streaming-makes-way.yaml"

// A container of our image that names its program names the one that is in there.
func TestOurImageHasTheProgram(t *testing.T) {
	dockerfile, err := os.ReadFile("../../Dockerfile")
	require.NoError(t, err)
	plain, err := filepath.Glob("../../manifests/*.yaml")
	require.NoError(t, err)
	named := 0
	var look func(name string, node any)
	look = func(name string, node any) {
		switch n := node.(type) {
		case []any:
			for _, item := range n {
				look(name, item)
			}
		case map[string]any:
			image, _ := n["image"].(string)
			if command := words(n["command"]); strings.HasPrefix(image, "chkpin/") && len(command) > 0 {
				named++
				assert.Contains(t, string(dockerfile), "ENTRYPOINT [\""+command[0]+"\"]", name)
			}
			for _, value := range n {
				look(name, value)
			}
		}
	}
	for _, name := range append(plain, argo) {
		for _, d := range documentsOf(t, name) {
			look(name, d)
		}
	}
	assert.Positive(t, named, "Argo has to be told")
}

// Every pod is one that Pod Security "restricted" admits.
func TestPodsAreRestricted(t *testing.T) {
	plain, err := filepath.Glob("../../manifests/*.yaml")
	require.NoError(t, err)
	rendered, err := filepath.Glob("testdata/kubernetes/*.yaml")
	require.NoError(t, err)
	containers := 0
	for _, name := range append(plain, rendered...) {
		for _, d := range documentsOf(t, name) {
			for _, pod := range pods(d) {
				ofPod, _ := pod["securityContext"].(map[string]any)
				for _, list := range []string{"initContainers", "containers"} {
					items, _ := pod[list].([]any)
					for _, item := range items {
						containers++
						got := maps.Clone(ofPod)
						if got == nil {
							got = map[string]any{}
						}
						maps.Copy(got, item.(map[string]any)["securityContext"].(map[string]any))
						assert.Equal(t, true, got["runAsNonRoot"], name)
						assert.Equal(t, false, got["allowPrivilegeEscalation"], name)
						assert.Equal(t, map[string]any{"type": "RuntimeDefault"}, got["seccompProfile"], name)
						assert.Equal(t, map[string]any{"drop": []any{"ALL"}}, got["capabilities"], name)
					}
				}
			}
		}
	}
	assert.GreaterOrEqual(t, containers, 20, "containers found")
}

// pods are the specs of pods.
func pods(node any) (found []map[string]any) {
	switch n := node.(type) {
	case []any:
		for _, item := range n {
			found = append(found, pods(item)...)
		}
	case map[string]any:
		if _, ok := n["containers"]; ok {
			return []map[string]any{n}
		}
		for _, value := range n {
			found = append(found, pods(value)...)
		}
	}
	return found
}

func documentsOf(t *testing.T, name string) (documents []map[string]any) {
	t.Helper()
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	for dec := yaml.NewDecoder(f); ; {
		var document map[string]any
		err := dec.Decode(&document)
		if errors.Is(err, io.EOF) {
			return documents
		}
		require.NoError(t, err, name)
		documents = append(documents, document)
	}
}

// call is a container that runs chkpin.
type call struct {
	args []string
	env  map[string]string
}

// calls are the containers that run chkpin.
func calls(node any, configMaps map[string]map[string]any) (found []call) {
	switch n := node.(type) {
	case []any:
		for _, item := range n {
			found = append(found, calls(item, configMaps)...)
		}
	case map[string]any:
		command, args := words(n["command"]), words(n["args"])
		image, _ := n["image"].(string)
		switch {
		case len(command) > 0 && strings.HasSuffix(command[0], "/chkpin"):
			found = append(found, call{slices.Concat(command[1:], args), variablesOf(n, configMaps)})
		case len(command) == 0 && strings.HasPrefix(image, "chkpin/"):
			found = append(found, call{installable(args), variablesOf(n, configMaps)})
		}
		for _, value := range n {
			found = append(found, calls(value, configMaps)...)
		}
	}
	return found
}

// variablesOf are the variables of a container. Those of Secrets have some value.
func variablesOf(container map[string]any, configMaps map[string]map[string]any) map[string]string {
	env := map[string]string{}
	from, _ := container["envFrom"].([]any)
	for _, source := range from {
		ref, _ := source.(map[string]any)["configMapRef"].(map[string]any)
		name, _ := ref["name"].(string)
		for variable, value := range configMaps[name] {
			env[variable] = value.(string)
		}
	}
	list, _ := container["env"].([]any)
	for _, item := range list {
		variable := item.(map[string]any)
		value, ok := variable["value"].(string)
		if !ok {
			value = "0" // of a Secret, or the index of a Job
		}
		env[variable["name"].(string)] = value
	}
	return env
}

// installable names a folder that exists here for the one command that checks.
func installable(args []string) []string {
	if len(args) == 2 && args[0] == "install" {
		return []string{"install", "."}
	}
	return args
}

func words(node any) (out []string) {
	list, _ := node.([]any)
	for _, item := range list {
		word, _ := item.(string)
		out = append(out, word)
	}
	return out
}

// A restarted container would not run its init containers again.
func TestResolvedArgumentsAreNotReused(t *testing.T) {
	data, err := os.ReadFile("../../manifests/init-container.yaml")
	require.NoError(t, err)
	first, _, _ := strings.Cut(string(data), "\n---\n")
	require.Contains(t, first, "args: [resolve,")
	require.Contains(t, first, "restartPolicy: Never")
}

// The policies allow each role what it reads and lists, also what is not there
// on the very first start, and deny Flink all of it.
func TestPolicies(t *testing.T) {
	type statement struct {
		Effect    string
		Action    any
		Resource  any
		Condition struct{ StringLike map[string][]string }
	}
	for name, keys := range map[string][]string{
		"tick":       {"orders/chkpin.json", "orders/last-state/_metadata", "orders/0123/chk-1/_metadata"},
		"resolve":    {"orders/chkpin.json", "orders/last-state/_metadata", "orders/last-state/generations/1/pin.json"},
		"deny-flink": {"orders/chkpin.json", "orders/last-state/_metadata", "orders/last-state/state/0123"},
	} {
		data, err := os.ReadFile("../../manifests/iam/" + name + ".json")
		require.NoError(t, err)
		var policy struct {
			Version   string
			Statement []statement
		}
		require.NoError(t, json.Unmarshal(data, &policy), name)
		assert.Equal(t, "2012-10-17", policy.Version, name)
		for _, key := range keys {
			named := slices.ContainsFunc(policy.Statement, func(s statement) bool {
				return covers(s.Resource, "arn:aws:s3:::bucket/", key)
			})
			assert.True(t, named, "%s: no resource covers %s", name, key)
			listed := slices.ContainsFunc(policy.Statement, func(s statement) bool {
				return name == "deny-flink" || covers(s.Condition.StringLike["s3:prefix"], "", key)
			})
			assert.True(t, listed, "%s: no listable prefix covers %s", name, key)
		}
	}
}

// covers reports whether one of the patterns, a string or a list, matches a key.
func covers(patterns any, prefix, key string) bool {
	var list []string
	switch p := patterns.(type) {
	case string:
		list = []string{p}
	case []string:
		list = p
	case []any:
		list = words(p)
	}
	return slices.ContainsFunc(list, func(p string) bool {
		p, found := strings.CutPrefix(p, prefix)
		start, wild := strings.CutSuffix(p, "*")
		return found && (p == key || wild && strings.HasPrefix(key, start))
	})
}
