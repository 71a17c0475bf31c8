package flinkconf_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/cmd/chkpin/flinkconf"
)

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

const legacy = `
# the cluster of the orders job
rest.address: orders-jobmanager   # not YAML: a comment starts anywhere
rest.port: 8082
state.checkpoints.dir: s3://bucket/app
s3.access-key: AKIA
s3.secret-key: abc/def: ghi
not a setting
s3.endpoint: minio:9000
s3.path.style.access: true
high-availability: org.apache.flink.kubernetes.highavailability.KubernetesHaServicesFactory
`

const nested = `
rest:
  address: orders-jobmanager
  port: 8082
execution:
  checkpointing:
    dir: s3://bucket/app
    savepoint-dir: s3://bucket/savepoints
s3:
  access-key: AKIA
  secret-key: "abc/def: ghi"
  endpoint: http://minio:9000
  path:
    style:
      access: true
security.ssl.rest.enabled: true
`

func TestLegacyFile(t *testing.T) {
	c, err := flinkconf.Load(folder(t, map[string]string{"flink-conf.yaml": legacy}))
	require.NoError(t, err)
	assert.Equal(t, "http://orders-jobmanager:8082", c.JobManager())
	assert.Equal(t, "s3://bucket/app", c.Checkpoints())
	assert.True(t, c.HighAvailability())
	assert.Equal(t, flinkconf.S3{
		AccessKey: "AKIA", SecretKey: "abc/def: ghi", Endpoint: "https://minio:9000", PathStyle: true,
	}, c.S3())
}

func TestNestedFile(t *testing.T) {
	c, err := flinkconf.Load(filepath.Join(folder(t, map[string]string{"config.yaml": nested}), "config.yaml"))
	require.NoError(t, err)
	assert.Equal(t, "https://orders-jobmanager:8082", c.JobManager())
	assert.Equal(t, "s3://bucket/app", c.Checkpoints())
	assert.Equal(t, "s3://bucket/savepoints", c.Savepoints())
	assert.False(t, c.HighAvailability())
	assert.Equal(t, flinkconf.S3{
		AccessKey: "AKIA", SecretKey: "abc/def: ghi", Endpoint: "http://minio:9000", PathStyle: true,
	}, c.S3())
}

// Flink takes config.yaml when both are there.
func TestModernNameWins(t *testing.T) {
	c, err := flinkconf.Load(folder(t, map[string]string{
		"config.yaml": "rest.address: new", "flink-conf.yaml": "rest.address: old",
	}))
	require.NoError(t, err)
	assert.Equal(t, "http://new:8081", c.JobManager())
}

// The spellings of the hadoop and the presto plugin mean one setting.
func TestSpellingsOfS3Keys(t *testing.T) {
	for _, key := range []string{"s3.access-key", "s3.access.key", "s3a.access.key", "fs.s3a.access.key", "presto.s3.access-key"} {
		c, err := flinkconf.Load(folder(t, map[string]string{"config.yaml": key + ": AKIA"}))
		require.NoError(t, err)
		assert.Equal(t, "AKIA", c.S3().AccessKey, key)
	}
}

// An endpoint without a scheme is one of TLS, unless that is turned off (S3A's connection.ssl.enabled, Presto's
// ssl.enabled).
func TestS3WithoutTLS(t *testing.T) {
	for setting, want := range map[string]string{
		"s3.connection.ssl.enabled: false": "http://minio:9000", "s3.ssl.enabled: false": "http://minio:9000",
		"fs.s3a.connection.ssl.enabled: FALSE": "http://minio:9000", "s3.ssl.enabled: true": "https://minio:9000",
	} {
		c, err := flinkconf.Load(folder(t, map[string]string{"config.yaml": "s3.endpoint: minio:9000\n" + setting}))
		require.NoError(t, err)
		assert.Equal(t, want, c.S3().Endpoint, setting)
	}
}

// A long line hides no setting behind it.
func TestLongLine(t *testing.T) {
	c, err := flinkconf.Load(folder(t, map[string]string{"flink-conf.yaml": "env.java.opts.all: " + strings.Repeat("-Dx=y ", 20_000) + "\nrest.address: orders\r\n"}))
	require.NoError(t, err)
	assert.Equal(t, "http://orders:8081", c.JobManager())
}

// Flink takes a storage account's key under its blob or its dfs name, with its own
// prefixes or the general one for Hadoop.
func TestAzureKeys(t *testing.T) {
	c, err := flinkconf.Load(folder(t, map[string]string{"flink-conf.yaml": `
fs.azure.account.key.one.blob.core.windows.net: b25l
fs.azure.account.key.two.dfs.core.chinacloudapi.cn: dHdv==
azure.account.key.three.blob.core.windows.net: dGhyZWU=
flink.hadoop.fs.azure.account.key.four.dfs.core.windows.net: Zm91cg==
flink.hadoop.fs.azure.account.key.one.blob.core.windows.net: bm90IHRoaXM=
fs.azure.account.keyprovider.five.blob.core.windows.net: org.apache.flink.fs.azurefs.EnvironmentVariableKeyProvider
`}))
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"one": "b25l", "two": "dHdv==", "three": "dGhyZWU=", "four": "Zm91cg=="}, c.AzureKeys())
}

// What harms a pin at a restore, by its names of two releases.
func TestClaimModeAndChangelog(t *testing.T) {
	for text, want := range map[string]struct {
		mode      string
		changelog bool
	}{
		"rest.port: 1": {"", false},
		"execution.savepoint-restore-mode: claim":                                                {"CLAIM", false},
		"execution.state-recovery.claim-mode: NO_CLAIM\nexecution.savepoint-restore-mode: CLAIM": {"NO_CLAIM", false},
		"state.backend.changelog.enabled: true":                                                  {"", true},
		"state.changelog.enabled: false":                                                         {"", false},
	} {
		c, err := flinkconf.Load(folder(t, map[string]string{"config.yaml": text}))
		require.NoError(t, err)
		assert.Equal(t, want.mode, c.ClaimMode(), text)
		assert.Equal(t, want.changelog, c.Changelog(), text)
	}
}

// A file that cannot be read is named; what is in it is not.
func TestErrorsHoldNoSecrets(t *testing.T) {
	_, err := flinkconf.Load(folder(t, nil))
	require.ErrorIs(t, err, fs.ErrNotExist)
	assert.ErrorContains(t, err, "config.yaml")

	_, err = flinkconf.Load(folder(t, map[string]string{"config.yaml": "s3: {secret-key: hush"}))
	require.ErrorContains(t, err, "config.yaml")
	assert.NotContains(t, err.Error(), "hush")

	c, err := flinkconf.Load(folder(t, map[string]string{"config.yaml": "s3.secret-key: hush"}))
	require.NoError(t, err)
	assert.Equal(t, "{redacted}", fmt.Sprintf("%v", c))
	assert.Equal(t, "{redacted}", fmt.Sprintf("%#v", c))
}

// Configuration that stands elsewhere than in a file of the cluster.
func TestOtherSources(t *testing.T) {
	conf := flinkconf.Of(map[string]string{"a": "1"})
	assert.Equal(t, "1", conf.Get("b", "a"))
	assert.False(t, conf.Empty())
	assert.True(t, flinkconf.Conf{}.Empty())

	values, err := flinkconf.Parse("conf/config.yaml", []byte("a: {b: 1}"))
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"a.b": "1"}, values)
	values, err = flinkconf.Parse("flink-conf.yaml", []byte("a.b: 1 # one"))
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"a.b": "1"}, values)
	_, err = flinkconf.Parse("log4j.properties", nil)
	require.Error(t, err)

	assert.Equal(t, map[string]string{"a.b": "1", "c": "x;y"},
		flinkconf.Flatten(map[string]any{"a": map[string]any{"b": 1}, "c": []string{"x", "y"}}))
	assert.Empty(t, flinkconf.Flatten(nil))
}
