package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// Every command line of chkpin that the manifests hold is one that chkpin takes.
func TestManifestsSpeakOurCommandLine(t *testing.T) {
	files, err := filepath.Glob("../../manifests/*.yaml")
	require.NoError(t, err)
	lines := 0
	for _, name := range files {
		f, err := os.Open(name)
		require.NoError(t, err)
		defer f.Close()
		for dec := yaml.NewDecoder(f); ; {
			var document any
			err := dec.Decode(&document)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err, name)
			for _, args := range commandLines(document) {
				lines++
				_, _, err := parse(args, io.Discard, io.Discard)
				assert.NoError(t, err, "%s: chkpin %s", name, strings.Join(args, " "))
			}
		}
	}
	assert.GreaterOrEqual(t, lines, 4, "command lines found")
}

// commandLines are the arguments of the containers that run chkpin.
func commandLines(node any) (found [][]string) {
	switch n := node.(type) {
	case []any:
		for _, item := range n {
			found = append(found, commandLines(item)...)
		}
	case map[string]any:
		command, args := words(n["command"]), words(n["args"])
		image, _ := n["image"].(string)
		switch {
		case len(command) > 0 && strings.HasSuffix(command[0], "/chkpin"):
			found = append(found, slices.Concat(command[1:], args))
		case len(command) == 0 && strings.HasPrefix(image, "chkpin/"):
			found = append(found, installable(args))
		}
		for _, value := range n {
			found = append(found, commandLines(value)...)
		}
	}
	return found
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
