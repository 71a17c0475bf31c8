package manifest_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/cmd/chkpin/manifest"
)

// of is a manifest whose one container has these words.
func of(t *testing.T, command, args []string) manifest.Manifest {
	t.Helper()
	words, err := json.Marshal(map[string]any{"name": "jobmanager", "image": "flink:2.3", "command": command, "args": args})
	require.NoError(t, err)
	m, err := manifest.Parse([]byte(`{kind: Pod, metadata: {name: orders}, spec: {containers: [` + string(words) + `]}}`))
	require.NoError(t, err)
	return m
}

func start(t *testing.T, words ...string) manifest.Start {
	t.Helper()
	m := of(t, nil, words)
	require.Len(t, m.Starts, 1)
	return m.Starts[0]
}

// Where Flink stops reading, as its parser does: see the notes beside each.
func TestWhereFlinkStops(t *testing.T) {
	const pin = "s3://bucket/orders/last-state/_metadata"
	for name, c := range map[string]struct {
		words   []string
		restore string
		stopped string
		lost    []string
	}{
		"all read":            {[]string{"standalone-job", "--job-classname", "Orders", "--fromSavepoint", pin, "--topic", "orders"}, pin, "--topic", nil},
		"the script's word":   {[]string{"standalone-job.sh", "start-foreground", "-s", pin}, pin, "", nil},
		"with =":              {[]string{"standalone-job", "--fromSavepoint=" + pin}, pin, "", nil},
		"a beginning":         {[]string{"standalone-job", "--fromSave", pin}, pin, "", nil},
		"as a setting":        {[]string{"standalone-job", "-Dexecution.savepoint.path=" + pin, "-D", "a=b"}, pin, "", nil},
		"jars take all":       {[]string{"standalone-job", "--jars", "a.jar", "b.jar", "-s", pin}, pin, "", nil},
		"unknown long option": {[]string{"standalone-job", "--s3-uri", "s3://x", "--fromSavepoint", pin, "-Ds3.access-key=k"}, "", "--s3-uri", []string{"--fromSavepoint", "-Ds3.access-key"}},
		"a plain word":        {[]string{"standalone-job", "orders", "-s", pin}, "", "orders", []string{"-s"}},
		"-claimMode is -c":    {[]string{"standalone-job", "-claimMode", "CLAIM", "--fromSavepoint", pin}, "", "CLAIM", []string{"--fromSavepoint"}},
		"the job's own -s":    {[]string{"standalone-job", "--topic", "orders", "-s", "10"}, "", "--topic", nil},
		"flink run":           {[]string{"flink", "run", "-d", "-s", pin, "-cm", "CLAIM", "orders.jar", "--topic", "orders"}, pin, "orders.jar", nil},
		"behind the jar":      {[]string{"/opt/flink/bin/flink", "run-application", "-t", "kubernetes-application", "orders.jar", "-s", pin}, "", "orders.jar", []string{"-s"}},
		"the entry point":     {[]string{"java", "-cp", "lib/*", "org.apache.flink.container.entrypoint.StandaloneApplicationClusterEntryPoint", "--configDir", "conf", "-s", pin, "--topic"}, pin, "--topic", nil},
		"the front end":       {[]string{"java", "org.apache.flink.client.cli.CliFrontend", "run", "-s", pin, "orders.jar"}, pin, "orders.jar", nil},
		"a wrapper's run":     {[]string{"conda", "run", "-n", "orders", "flink", "run", "-s", pin, "orders.jar"}, pin, "orders.jar", nil},
		"behind a wrapper":    {[]string{"tini", "--", "/docker-entrypoint.sh", "standalone-job", "-s", pin}, pin, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, c.words...)
			assert.Equal(t, c.restore, s.RestorePath)
			assert.Equal(t, c.stopped, s.Stopped)
			assert.Equal(t, c.lost, s.Lost())
			assert.Equal(t, "Pod orders, container jobmanager", s.Where)
		})
	}
}

func TestOtherOptions(t *testing.T) {
	s := start(t, "standalone-job", "--job-id", "00ff", "-n")
	assert.Equal(t, "00ff", s.JobID)
	assert.Equal(t, "claim", start(t, "flink", "run", "--restoreMode", "claim", "x.jar").ClaimMode)
	for _, words := range [][]string{{"taskmanager"}, {"run", "x.jar"}, {"sleep", "1"}} {
		assert.Empty(t, of(t, nil, words).Starts, "%q", words)
	}
}

// A script of a shell: what only a run can tell is said to be so, and "$@" is
// what follows the script.
func TestScripts(t *testing.T) {
	m := of(t, []string{"sh", "-c", `set -e; exec /docker-entrypoint.sh standalone-job $(cat /chkpin/args) "$@"`, "standalone-job"},
		[]string{"--job-classname", "Orders", "--topic", "x"})
	require.Len(t, m.Starts, 1)
	assert.Equal(t, "$(cat /chkpin/args)", m.Starts[0].Unresolved)
	assert.Equal(t, "--topic", m.Starts[0].Stopped)

	m = of(t, []string{"bash", "-ec"}, []string{`flink run -s "$PIN" 'my job.jar'`})
	require.Len(t, m.Starts, 1)
	assert.Equal(t, `"$PIN"`, m.Starts[0].RestorePath)
	assert.Equal(t, "my job.jar", m.Starts[0].Stopped)

	m = of(t, []string{"sh", "-c", "if broken standalone-job --fromSavepoint s3://x"}, nil) // no shell takes it
	require.Len(t, m.Starts, 1)
	assert.Equal(t, "s3://x", m.Starts[0].RestorePath)
}

// All kinds of documents in one file; configuration is collected from where it
// may stand.
func TestDocuments(t *testing.T) {
	m, err := manifest.Load(filepath.Join("testdata", "documents.yaml"))
	require.NoError(t, err)
	var where []string
	for _, s := range m.Starts {
		where = append(where, s.Where)
	}
	assert.ElementsMatch(t, []string{
		"Deployment deployment, container jobmanager",
		"StatefulSet statefulset, container jobmanager",
		"Job job, container jobmanager",
		"Pod pod, container jobmanager",
		"FlinkDeployment operated",
	}, where)
	assert.Equal(t, map[string]string{
		"high-availability.type":                                    "kubernetes",
		"execution.checkpointing.interval":                          "1min",
		"execution.checkpointing.externalized-checkpoint-retention": "DELETE_ON_CANCELLATION",
		"s3.endpoint":                    "http://minio:9000",
		"state.checkpoints.num-retained": "3",
	}, m.Settings)

	calls := map[string]string{}
	for _, c := range m.Calls {
		calls[c.Where+": "+c.Command()] = c.App
	}
	assert.Equal(t, map[string]string{
		"Job job, container jobmanager: exec":    "s3://bucket/job",
		"CronJob cronjob, container chkpin: pin": "s3://bucket/cronjob",
	}, calls)
	for _, s := range m.Starts {
		assert.Equal(t, s.Action == "FlinkDeployment", s.UpgradeMode == "savepoint", s.Where)
		assert.Equal(t, s.Where == "Job job, container jobmanager", s.ByChkpin, s.Where)
	}
}

// The manifests that chkpin comes with are read without a finding.
func TestOurManifests(t *testing.T) {
	m, err := manifest.Load("../../../manifests/init-container.yaml")
	require.NoError(t, err)
	require.Len(t, m.Starts, 2)
	assert.Equal(t, "$(cat /chkpin/args)", m.Starts[0].Unresolved)
	assert.True(t, m.Starts[1].ByChkpin)
	for _, s := range m.Starts {
		assert.Empty(t, s.Lost())
	}
}

// The example for the operator restores the folder of the pin, and gives the job
// nothing that is Flink's.
func TestOurFlinkDeployment(t *testing.T) {
	m, err := manifest.Load("../../../manifests/flinkdeployment.yaml")
	require.NoError(t, err)
	require.Len(t, m.Starts, 1)
	assert.Equal(t, "s3://bucket/orders/last-state", m.Starts[0].RestorePath)
	assert.Equal(t, "last-state", m.Starts[0].UpgradeMode)
	assert.Empty(t, m.Starts[0].Lost())
}

// Variables of the container are put in; one whose value stands elsewhere stays,
// for only the start can tell.
func TestVariables(t *testing.T) {
	m, err := manifest.Parse([]byte(`{kind: Pod, metadata: {name: orders}, spec: {containers: [{name: jobmanager,
		env: [{name: HERE, value: "s3://x"}, {name: ELSEWHERE, valueFrom: {secretKeyRef: {name: a, key: b}}}],
		args: [standalone-job, --fromSavepoint, $(HERE)/$(ELSEWHERE)]}]}}`))
	require.NoError(t, err)
	assert.Equal(t, "s3://x/$(ELSEWHERE)", m.Starts[0].RestorePath)
}

func TestNoManifest(t *testing.T) {
	_, err := manifest.Load("no such file")
	require.ErrorIs(t, err, os.ErrNotExist)
	for _, text := range []string{"- a list", "a: [", "kind: Pod\n---\n- b"} {
		_, err := manifest.Parse([]byte(text))
		require.ErrorContains(t, err, "is not a manifest", "%q", text)
	}
	_, err = manifest.Parse([]byte("- secret"))
	require.NotContains(t, err.Error(), "secret")
	m, err := manifest.Parse([]byte("kind: Pod\nmetadata: x\nspec: {containers: y, initContainers: [z, {command: 7}]}\n---\n"))
	require.NoError(t, err)
	assert.Empty(t, m.Starts)
}

// Two restore paths in a command are one too many, unless one is the job's.
func TestRestoreOption(t *testing.T) {
	for _, c := range []struct {
		words string
		run   bool
		want  string
	}{
		{"", false, ""},
		{"--job-classname Orders", false, ""},
		{"--fromSavepoint s3://b/k --job-classname Orders", false, "--fromSavepoint"},
		{"--job-classname Orders -s s3://b/k", false, "-s"},
		{"-j Orders --fromSavepoint=s3://b/k", false, "--fromSavepoint=s3://b/k"},
		{"-j Orders -Dexecution.savepoint.path=s3://b/k", false, "execution.savepoint.path=s3://b/k"},
		{"-j Orders -D execution.state-recovery.path=s3://b/k", false, "execution.state-recovery.path=s3://b/k"},
		{"-D rest.port=1 --fromSavepoint s3://b/k", false, "--fromSavepoint"},
		{"-Drest.port=1 -j Orders north --fromSavepoint s3://b/k", false, ""},
		{"-j Orders -- --fromSavepoint s3://b/k", false, ""},
		{"-ss3://b/k -j Orders", false, "-ss3://b/k"}, // measured on 1.13.6, 1.20.5 and 2.3.0, as what follows
		{"--from=s3://b/k -j Orders", false, "--from=s3://b/k"},
		{"-D=execution.savepoint.path=s3://b/k", false, "execution.savepoint.path=s3://b/k"},
		{"-jOrders -x -s s3://b/k", false, ""},
		{"-d orders.jar -s north", true, ""},
		{"-p2 -ss3://b/k orders.jar", true, "-ss3://b/k"},
		{"-sae orders.jar", true, ""},
		{"-d -c Orders -s s3://b/k orders.jar", true, "-s"},
		{"-p 4 -py orders.py -s s3://b/k", true, "-s"},
		{"-t kubernetes-application --detached local:///orders.jar --fromSavepoint x", true, ""},
	} {
		require.Equal(t, c.want, manifest.ReadOptions(strings.Fields(c.words), c.run).Restore, c.words)
	}
}
