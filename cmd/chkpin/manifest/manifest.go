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
	"maps"
	"os"
	"path"
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

	// ByChkpin says that chkpin exec puts the restore path in.
	ByChkpin bool
}

// Call is one call of chkpin.
type Call struct {
	Where string
	Args  []string // without the program
	App   string   // the application's folder, "" when it is not said
}

// Command is the word that says what to do, "" when there is none.
func (c Call) Command() string {
	for _, word := range c.Args {
		if !strings.HasPrefix(word, "-") {
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
		for file, content := range mapping(doc["data"]) {
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
	flat := flinkconf.Flatten(spec["flinkConfiguration"])
	maps.Copy(m.Settings, flat)
	job, ok := spec["job"].(map[string]any)
	if !ok {
		return
	}
	m.Starts = append(m.Starts, Start{
		Where: where, Action: "FlinkDeployment",
		RestorePath: text(job["initialSavepointPath"]),
		Rest:        list(job["args"]),
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
		for key, value := range n {
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
		env[text(variable["name"])] = text(variable["value"])
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

func (m *Manifest) commandLine(where string, words []string, env map[string]string) {
	for i, word := range words {
		program := i == 0 || words[i-1] == "--" || words[i-1] == "exec" // behind a wrapper or the shell's exec
		if !program || path.Base(word) != "chkpin" {
			continue
		}
		call := Call{Where: where, Args: words[i+1:]}
		for _, arg := range call.Args {
			if arg == "--" {
				break
			}
			if strings.Contains(arg, "://") && !strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "http") {
				call.App = arg
				break
			}
		}
		if call.App == "" {
			call.App = env["CHKPIN_APP"]
		}
		m.Calls = append(m.Calls, call)
		break
	}
	start, settings, ok := parseStart(words)
	if !ok {
		return
	}
	start.Where = where
	start.ByChkpin = len(m.Calls) > 0 && m.Calls[len(m.Calls)-1].Where == where && m.Calls[len(m.Calls)-1].Command() == "exec"
	m.Starts = append(m.Starts, start)
	maps.Copy(m.Settings, settings)
}

// configure takes in a file of Flink's configuration; other files are none.
func (m *Manifest) configure(file, content string) {
	if conf, err := flinkconf.Parse(file, []byte(content)); err == nil {
		maps.Copy(m.Settings, conf)
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
