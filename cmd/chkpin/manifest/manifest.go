// Package manifest reads from Kubernetes manifests how Flink and chkpin are
// started: which words of a command line Flink takes as its own options, which
// go to the job, and what configuration stands beside them.
//
// It does not know the kinds of resources: wherever a document has containers,
// they are looked at, so that Deployment, StatefulSet, Job, CronJob, Pod and what
// operators define are all understood.
package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/chkpin/chkpin/cmd/chkpin/flinkconf"
)

// Manifest is what was found in one file of one or more documents.
type Manifest struct {
	Starts []Start // of Flink jobs
	Calls  []Call  // of chkpin

	// Settings is Flink configuration that the manifest holds: in the variable
	// FLINK_PROPERTIES, in a ConfigMap, in a FlinkDeployment, or as -D options that
	// Flink reads.
	Settings map[string]string
}

// Start is one place that starts a Flink job.
type Start struct {
	Where  string // such as "Deployment orders, container jobmanager"
	Action string // standalone-job, run, run-application, or FlinkDeployment

	// RestorePath is what Flink is told to restore from, "" when nothing.
	RestorePath string

	ClaimMode string // as given, "" when it is not
	JobID     string // as given, "" when Flink chooses it

	// Stopped is the first word that Flink does not know: that and Rest are the
	// job's own arguments.
	Stopped string
	Rest    []string

	// Unresolved is a word that only the start itself can tell, such as "$(cat
	// /chkpin/args)", among the options. "" when there is none.
	Unresolved string

	// UpgradeMode is what a FlinkDeployment says of what a new version of it starts
	// from: stateless, savepoint or last-state.
	UpgradeMode string

	// ByChkpin says that chkpin exec puts the restore path in.
	ByChkpin bool
}

// Call is one call of chkpin.
type Call struct {
	Where string
	Args  []string // without the program
	App   string   // the application's folder, "" when it is not said
}

// ofApp are the commands whose argument is an application's folder.
var ofApp = []string{"pin", "watch", "stop", "resolve", "exec", "rollback", "gc", "doctor"}

// uriFlags take a URI as the next word, which is not the application's folder.
var uriFlags = []string{"--checkpoints", "--savepoints", "--replica", "--target", "--relocated"}

// Command is the word that says what to do, if that is done to an application;
// "" else. The values of flags may stand before it.
func (c Call) Command() string {
	if at := c.command(); at >= 0 {
		return c.Args[at]
	}
	return ""
}

func (c Call) command() int {
	return slices.IndexFunc(c.Args, func(word string) bool { return slices.Contains(ofApp, word) })
}

// app is the application's folder in the arguments, "" if it is not there.
func (c Call) app() string {
	at := c.command()
	for i := at + 1; at >= 0 && i < len(c.Args); i++ {
		switch word := c.Args[i]; {
		case slices.Contains(uriFlags, word):
			i++
		case strings.Contains(word, "://") && !strings.HasPrefix(word, "-") && !strings.HasPrefix(word, "http"):
			return word
		}
	}
	return ""
}

// Load reads a file of YAML documents.
func Load(name string) (Manifest, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return Manifest{}, err
	}
	m, err := Parse(data)
	if err != nil {
		return m, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// Parse reads YAML documents.
func Parse(data []byte) (Manifest, error) {
	m := Manifest{Settings: map[string]string{}}
	for dec, n := yaml.NewDecoder(bytes.NewReader(data)), 1; ; n++ {
		var document map[string]any
		err := dec.Decode(&document)
		if errors.Is(err, io.EOF) {
			return m, nil
		}
		if kind := (*yaml.TypeError)(nil); errors.As(err, &kind) {
			return m, fmt.Errorf("document %d is not a manifest: it is no mapping", n) // the error quotes the file, which may hold secrets
		}
		if err != nil {
			return m, fmt.Errorf("document %d is not a manifest: %w", n, err)
		}
		m.document(document)
	}
}

func (m *Manifest) document(doc map[string]any) {
	if items, ok := doc["items"].([]any); ok { // kind List
		for _, item := range items {
			if d, ok := item.(map[string]any); ok {
				m.document(d)
			}
		}
		return
	}
	name := text(mapping(doc["metadata"])["name"])
	where := strings.TrimSpace(text(doc["kind"]) + " " + name)
	spec := mapping(doc["spec"])
	switch doc["kind"] {
	case "ConfigMap":
		for file, content := range inOrder(mapping(doc["data"])) {
			m.configure(file, text(content))
		}
	case "FlinkDeployment", "FlinkSessionJob":
		m.operated(where, spec)
	}
	m.containers(where, spec)
}

// operated looks at a job that the Flink Kubernetes operator runs: its args all
// go to the job.
func (m *Manifest) operated(where string, spec map[string]any) {
	maps.Copy(m.Settings, flinkconf.Flatten(spec["flinkConfiguration"]))
	job, ok := spec["job"].(map[string]any)
	if !ok {
		return // a session cluster
	}
	m.Starts = append(m.Starts, Start{
		Where: where, Action: "FlinkDeployment",
		RestorePath: text(job["initialSavepointPath"]), UpgradeMode: text(job["upgradeMode"]),
		Rest: list(job["args"]),
	})
}

// containers looks for containers wherever a pod's specification may be.
func (m *Manifest) containers(where string, node any) {
	switch n := node.(type) {
	case []any:
		for _, item := range n {
			m.containers(where, item)
		}
	case map[string]any:
		for key, value := range inOrder(n) {
			if key == "containers" || key == "initContainers" {
				for _, item := range sequence(value) {
					m.container(where, mapping(item))
				}
				continue
			}
			m.containers(where, value)
		}
	}
}

func (m *Manifest) container(where string, c map[string]any) {
	where = fmt.Sprintf("%s, container %s", where, text(c["name"]))
	env := map[string]string{}
	for _, item := range sequence(c["env"]) {
		variable := mapping(item)
		if value, ok := variable["value"]; ok { // not from a Secret or the like
			env[text(variable["name"])] = text(value)
		}
	}
	m.configure("flink-conf.yaml", env["FLINK_PROPERTIES"]) // docker-entrypoint.sh appends it to the configuration
	words := list(c["command"])
	if len(words) == 0 && strings.Contains(path.Base(text(c["image"])), "chkpin") {
		words = []string{"chkpin"} // the image's entrypoint
	}
	words = append(words, list(c["args"])...)
	for i, word := range words {
		words[i] = expand(word, env)
	}
	for _, line := range commandLines(words) {
		m.commandLine(where, line, env)
	}
}

// expand puts the container's variables into $(NAME), as Kubernetes does.
func expand(word string, env map[string]string) string {
	for name, value := range env {
		word = strings.ReplaceAll(word, "$("+name+")", value)
	}
	return word
}

// commandLine looks at one command line, for a call of chkpin and for the start of
// a job, which with chkpin exec are one.
func (m *Manifest) commandLine(where string, words []string, env map[string]string) {
	call, called := parseCall(words)
	if called {
		call.Where = where
		if call.App == "" && call.command() >= 0 {
			call.App = env["CHKPIN_APP"]
		}
		m.Calls = append(m.Calls, call)
	}
	start, settings, ok := parseStart(words)
	if !ok {
		return
	}
	start.Where = where
	start.ByChkpin = called && call.Command() == "exec"
	m.Starts = append(m.Starts, start)
	maps.Copy(m.Settings, settings)
}

// parseCall finds chkpin in a command line: as the program, behind the -- of a
// wrapper, or behind the shell's exec.
func parseCall(words []string) (call Call, ok bool) {
	for i, word := range words {
		program := i == 0 || words[i-1] == "--" || words[i-1] == "exec"
		if !program || path.Base(word) != "chkpin" {
			continue
		}
		call.Args = words[i+1:]
		if end := slices.Index(call.Args, "--"); end >= 0 {
			call.Args = call.Args[:end] // what exec starts
		}
		call.App = call.app()
		return call, true
	}
	return call, false
}

// configure takes in a file of Flink's configuration; other files are none.
func (m *Manifest) configure(file, content string) {
	if conf, err := flinkconf.Parse(file, []byte(content)); err == nil {
		maps.Copy(m.Settings, conf)
	}
}

// inOrder walks over a mapping by its keys, so that every reading of a manifest
// finds the same first.
func inOrder(m map[string]any) iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if !yield(key, m[key]) {
				return
			}
		}
	}
}

func mapping(node any) map[string]any { m, _ := node.(map[string]any); return m }
func sequence(node any) []any         { s, _ := node.([]any); return s }

func text(node any) string {
	if node == nil {
		return ""
	}
	return fmt.Sprint(node)
}

func list(node any) (words []string) {
	for _, item := range sequence(node) {
		words = append(words, text(item))
	}
	return words
}
