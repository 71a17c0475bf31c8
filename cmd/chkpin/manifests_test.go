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

func TestPoliciesAreJSON(t *testing.T) {
	files, err := filepath.Glob("../../manifests/iam/*.json")
	require.NoError(t, err)
	require.Len(t, files, 3)
	for _, name := range files {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		var policy struct {
			Version   string
			Statement []struct{ Sid, Effect string }
		}
		require.NoError(t, json.Unmarshal(data, &policy), name)
		assert.Equal(t, "2012-10-17", policy.Version, name)
		assert.NotEmpty(t, policy.Statement, name)
	}
}
