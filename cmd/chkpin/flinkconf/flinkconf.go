// Package flinkconf reads Flink's configuration file as a cluster does, and
// takes from it what chkpin needs to find the cluster's state.
package flinkconf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Names of the configuration file, in the order in which Flink looks for them
// (GlobalConfiguration 1.19 to 1.20; 2.x knows only the first, releases before
// 1.19 only the second).
const (
	modernName = "config.yaml"
	legacyName = "flink-conf.yaml"
)

// Conf is a configuration with flat keys. Its values may be secret, so it prints
// nothing of itself.
type Conf struct{ values map[string]string }

// Format implements [fmt.Formatter].
func (Conf) Format(f fmt.State, _ rune) { fmt.Fprint(f, "{redacted}") }

// Load reads a configuration file, or the one in a folder.
func Load(path string) (Conf, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Conf{}, err
	}
	if !info.IsDir() {
		return load(path)
	}
	c, err := load(filepath.Join(path, modernName))
	if errors.Is(err, fs.ErrNotExist) {
		c, err = load(filepath.Join(path, legacyName))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("%s holds neither %s nor %s: %w", path, modernName, legacyName, fs.ErrNotExist)
	}
	return c, err
}

func load(path string) (Conf, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Conf{}, err
	}
	if filepath.Base(path) == legacyName {
		return Conf{parseLegacy(data)}, nil
	}
	values, err := parseYAML(data)
	if err != nil {
		return Conf{}, fmt.Errorf("%s: %w", path, err)
	}
	return Conf{values}, nil
}

// parseLegacy reads "key: value" lines as GlobalConfiguration.loadLegacyYAMLResource
// (1.20.3) does, which is not YAML: everything from a '#' on is a comment, the
// key ends at the first ": ", lines of another form are skipped.
func parseLegacy(data []byte) map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		key, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if ok && key != "" && value != "" {
			values[key] = value
		}
	}
	return values
}

// parseYAML reads nested or flat YAML; nested keys are joined by dots
// (YamlParserUtils, 1.19 and later).
func parseYAML(data []byte) (map[string]string, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return nil, errors.New("not YAML") // yaml's own text quotes the file, which holds secrets
	}
	values := map[string]string{}
	if len(root.Content) == 1 {
		flatten("", root.Content[0], values)
	}
	return values, nil
}

func flatten(prefix string, node *yaml.Node, into map[string]string) {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i].Value
			if prefix != "" {
				key = prefix + "." + key
			}
			flatten(key, node.Content[i+1], into)
		}
	case yaml.SequenceNode:
		var items []string
		for _, item := range node.Content {
			items = append(items, item.Value)
		}
		into[prefix] = strings.Join(items, ";")
	case yaml.AliasNode:
		flatten(prefix, node.Alias, into)
	case yaml.ScalarNode:
		if node.Tag != "!!null" {
			into[prefix] = node.Value
		}
	}
}

// Of is a configuration that was found elsewhere than in a file, such as what a
// JobManager says.
func Of(values map[string]string) Conf { return Conf{values} }

// Parse reads the content of a file with this name, as Load does. A name that is
// not one of Flink's configuration is an error.
func Parse(name string, data []byte) (map[string]string, error) {
	switch filepath.Base(name) {
	case legacyName:
		return parseLegacy(data), nil
	case modernName:
		return parseYAML(data)
	}
	return nil, fmt.Errorf("%s is neither %s nor %s", name, modernName, legacyName)
}

// Flatten joins the keys of nested mappings by dots, as Flink does.
func Flatten(nested any) map[string]string {
	values := map[string]string{}
	var node yaml.Node
	if err := node.Encode(nested); err == nil {
		flatten("", &node, values)
	}
	return values
}

// Empty reports whether nothing is set.
func (c Conf) Empty() bool { return len(c.values) == 0 }

// Get returns the value of the first of the keys that is set.
func (c Conf) Get(keys ...string) string {
	for _, k := range keys {
		if v := c.values[k]; v != "" {
			return v
		}
	}
	return ""
}

// s3 looks a setting of the S3 filesystems up under all its spellings: the
// hadoop plugin maps s3.x, s3a.x and fs.s3a.x to one key and takes access-key
// for access.key (flink-s3-fs-hadoop, S3FileSystemFactory); the presto plugin
// reads s3.x and presto.s3.x (flink-s3-fs-presto, S3FileSystemFactory).
func (c Conf) s3(names ...string) string {
	var keys []string
	for _, name := range names {
		for _, prefix := range []string{"s3.", "s3a.", "fs.s3a.", "presto.s3."} {
			keys = append(keys, prefix+name)
		}
	}
	return c.Get(keys...)
}

// S3 is how the cluster reaches its S3.
type S3 struct {
	AccessKey, SecretKey, SessionToken string
	Endpoint, Region                   string
	PathStyle                          bool
}

// S3 returns the settings of the S3 filesystems, empty where there are none.
func (c Conf) S3() S3 {
	s := S3{
		AccessKey:    c.s3("access-key", "access.key"),
		SecretKey:    c.s3("secret-key", "secret.key"),
		SessionToken: c.s3("session-token", "session.token"),
		Endpoint:     c.s3("endpoint"),
		Region:       c.s3("endpoint.region", "region"),
		PathStyle:    strings.EqualFold(c.s3("path.style.access", "path-style-access"), "true"),
	}
	if s.Endpoint != "" && !strings.Contains(s.Endpoint, "://") {
		scheme := "https://"
		// Of Hadoop's S3A, and of Presto's PrestoS3FileSystem.
		if strings.EqualFold(c.s3("connection.ssl.enabled", "ssl.enabled"), "false") {
			scheme = "http://"
		}
		s.Endpoint = scheme + s.Endpoint
	}
	return s
}

// AzureKeys returns the keys of storage accounts by the account's name. Flink's
// filesystem for Azure hands what begins with fs.azure. or azure. on to Hadoop
// (AbstractAzureFSFactory, 1.20), which looks for a key under the account's blob
// name or, for abfs, its dfs name; Flink hands flink.hadoop. on in general
// (HadoopUtils).
func (c Conf) AzureKeys() map[string]string {
	keys := map[string]string{}
	for _, prefix := range []string{"flink.hadoop.fs.azure.account.key.", "azure.account.key.", "fs.azure.account.key."} {
		for name, value := range c.values {
			host, ok := strings.CutPrefix(name, prefix)
			account, _, dotted := strings.Cut(host, ".")
			if ok && dotted && value != "" {
				keys[strings.ToLower(account)] = value
			}
		}
	}
	return keys
}

// Checkpoints is the folder of the checkpoint folders, "" when it is not set.
func (c Conf) Checkpoints() string {
	return c.Get("execution.checkpointing.dir", "state.checkpoints.dir")
}

// Savepoints is the default folder of savepoints, "" when it is not set.
func (c Conf) Savepoints() string {
	return c.Get("execution.checkpointing.savepoint-dir", "state.savepoints.dir")
}

// JobManager is the URL of the REST API, "" when the address is not set.
func (c Conf) JobManager() string {
	address := c.Get("rest.address", "jobmanager.rpc.address")
	if address == "" {
		return ""
	}
	scheme := "http"
	if strings.EqualFold(c.Get("security.ssl.rest.enabled"), "true") {
		scheme = "https"
	}
	port := c.Get("rest.port")
	if port == "" {
		port = "8081"
	}
	return scheme + "://" + address + ":" + port
}

// HighAvailability reports whether the cluster recovers jobs from a store of
// its own: a checkpoint there wins over any restore path.
func (c Conf) HighAvailability() bool {
	mode := c.Get("high-availability.type", "high-availability")
	return mode != "" && !strings.EqualFold(mode, "NONE")
}

// ClaimMode is what becomes of the state a job restores, in capitals, "" when it
// is not set (StateRecoveryOptions since 1.20, SavepointConfigOptions before).
func (c Conf) ClaimMode() string {
	return strings.ToUpper(c.Get("execution.state-recovery.claim-mode", "execution.savepoint-restore-mode"))
}

// Changelog reports whether the changelog state backend is on
// (StateChangelogOptions; the second name until 1.19).
func (c Conf) Changelog() bool {
	return strings.EqualFold(c.Get("state.changelog.enabled", "state.backend.changelog.enabled"), "true")
}
