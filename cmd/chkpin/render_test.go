//go:build chart

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// These tests need helm, kubectl, kubeconform and promtool: "make chart" runs
// them.

const (
	goldens = "testdata/kubernetes/"
	base    = `{app: "s3://bucket/orders", jobmanager: "http://jm:8081", ` // of values that are right
)

func tool(t *testing.T, name string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func runs(t *testing.T, name string, args ...string) string {
	t.Helper()
	stdout, stderr, err := tool(t, name, args...)
	require.NoError(t, err, "%s %s\n%s%s", name, strings.Join(args, " "), stdout, stderr)
	return stdout
}

// The chart renders what it is known to render, and Kubernetes' schemas accept
// it. What is rendered is read by other tests.
func TestChartRenders(t *testing.T) {
	files, err := filepath.Glob(chart + "ci/*.yaml")
	require.NoError(t, err)
	require.Len(t, files, 4)
	for _, values := range files {
		runs(t, "helm", "lint", "--strict", chart, "--values", values)
		rendered := runs(t, "helm", "template", "orders", chart, "--namespace", "orders", "--values", values)
		name := goldens + "chart-" + filepath.Base(values)
		generated(t, name, rendered)
		conforms(t, name)
	}
}

func TestOverlaysRender(t *testing.T) {
	overlays, err := filepath.Glob("../../manifests/overlays/*")
	require.NoError(t, err)
	require.NotEmpty(t, overlays)
	for _, folder := range append(overlays, "../../manifests/base", "../../manifests/watch") {
		name := goldens + "kustomize-" + filepath.Base(folder) + ".yaml"
		generated(t, name, runs(t, "kubectl", "kustomize", folder))
		conforms(t, name)
	}
	plain, err := filepath.Glob("../../manifests/*.yaml")
	require.NoError(t, err)
	conforms(t, plain...)
}

// conforms has kubeconform check files against the schemas of Kubernetes, which
// have none for the kinds of the Prometheus Operator and of Flink's.
func conforms(t *testing.T, files ...string) {
	t.Helper()
	program, err := exec.LookPath("kubeconform")
	require.NoError(t, err)
	schemas := filepath.Join(filepath.Dir(program), "schemas")
	require.DirExists(t, schemas)
	runs(t, program, append([]string{"-strict", "-skip", "PodMonitor,PrometheusRule,FlinkDeployment",
		"-schema-location", schemas + "/{{.ResourceKind}}{{.KindSuffix}}.json"}, files...)...)
}

// The alerts of the chart's examples fire when they should and not before, as
// Prometheus evaluates them.
func TestChartAlerts(t *testing.T) {
	tests, err := filepath.Glob("testdata/alerts/*.yaml")
	require.NoError(t, err)
	require.Len(t, tests, 2)
	for _, name := range tests {
		dir := t.TempDir()
		test, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "test.yaml"), test, 0o644))
		var rules []byte
		for _, d := range documentsOf(t, goldens+filepath.Base(name)) {
			if d["kind"] == "PrometheusRule" {
				rules, err = yaml.Marshal(d["spec"])
				require.NoError(t, err)
			}
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, "rules.yaml"), rules, 0o644))
		runs(t, "promtool", "check", "rules", "--lint-fatal", filepath.Join(dir, "rules.yaml"))
		runs(t, "promtool", "test", "rules", filepath.Join(dir, "test.yaml"))
	}
}

// What makes no sense is refused before anything is installed, and the message
// names it.
func TestChartRefuses(t *testing.T) {
	for _, c := range []struct{ values, says string }{
		{``, `application "orders": set app to its folder, such as s3://bucket/orders`},
		{`{app: /state/orders, jobmanager: "http://jm:8081"}`, `at '/app'`},
		{`{app: "s3://bucket/orders"}`, `application "orders": set jobmanager, such as http://orders-jobmanager:8081, or flinkConfigMap`},
		{base + `settings: {timeot: 5m}}`, `additional properties 'timeot' not allowed`},
		{base + `settings: {timeout: 5}}`, `at '/settings/timeout'`},
		{base + `settings: {tolerate: [no-jobs]}}`, `at '/settings/tolerate'`},
		{base + `schedule: "@hourly"}`, `additional properties 'schedule' not allowed`},
		{base + `settings: {timeout: 10m}, cronjob: {activeDeadlineSeconds: 600}}`,
			`application "orders": cronjob.activeDeadlineSeconds (600) must be longer than settings.timeout (600s)`},
		{base + `mode: watch, settings: {all: true}}`, `application "orders": mode watch pins one job; take mode cronjob for settings.all`},
		{base + `mode: fleet, jobmanager: "", flinkConfigMap: conf}`, `application "orders": with mode fleet set jobmanager`},
		{`{jobmanager: "http://jm:8081", applications: [{name: a, app: "s3://b/a"}, {name: a, app: "s3://b/b"}]}`, `applications: two have the name "a"`},
		{`{jobmanager: "http://jm:8081", applications: [{name: a, app: "s3://b/a"}, {name: b, app: "s3://b/a/"}]}`, `applications "a" and "b" have the same app`},
		{`{jobmanager: "http://jm:8081", applications: [{name: a, app: "s3://b/a", podMonitor: {enabled: true}}]}`, `additional properties 'podMonitor' not allowed`},
	} {
		values := filepath.Join(t.TempDir(), "values.yaml")
		require.NoError(t, os.WriteFile(values, []byte(c.values), 0o644))
		_, stderr, err := tool(t, "helm", "template", "orders", chart, "--values", values)
		if assert.Error(t, err, c.values) {
			assert.Contains(t, stderr, c.says, c.values)
		}
	}
}

// How values merge and become variables.
func TestChartSettings(t *testing.T) {
	for _, c := range []struct{ values, has, hasNot string }{
		{base + `settings: {keep: 1000000}}`, "- name: CHKPIN_KEEP\n                  value: \"1000000\"", ""},
		{base + `settings: {tolerate: null}}`, "", "CHKPIN_TOLERATE"},
		{base + `settings: {tolerate: []}}`, "", "CHKPIN_TOLERATE"},
		{base + `settings: {s3-endpoint: ""}}`, "", "CHKPIN_S3_ENDPOINT"},
		{base + `settings: {all: false}}`, "- name: CHKPIN_ALL\n                  value: \"false\"", ""},
		{base + `settings: {replica: ["s3://a/b", "s3://c/d,e"]}}`, `value: s3://a/b,s3://c/d\,e`, ""},
		{base + `settings: {relocated: ["file:/a=file:/b", "file:/c=file:/d"]}}`, "- --relocated=file:/a=file:/b\n                - --relocated=file:/c=file:/d\n", "CHKPIN_RELOCATED"},
		{base + `settings: {all: true}, applications: [{name: a, settings: {all: false}}]}`, "- name: CHKPIN_ALL\n                  value: \"false\"", ""},
		{base + `settings: {timeout: 1h30m}}`, "activeDeadlineSeconds: 10860", ""},
		{base + `mode: watch, settings: {listen: "127.0.0.1:8080"}}`, "containerPort: 8080", ""},
		{base + `mode: fleet, settings: {replica: "s3://a/b,s3://c/d", job-id: "0123"}}`, "replicas:\n        - s3://a/b\n        - s3://c/d\n", ""},
		{base + `settings: {jobmanager-token: {secretKeyRef: {name: rest, key: token}}}}`, "name: CHKPIN_JOBMANAGER_TOKEN\n                  valueFrom:\n                    secretKeyRef:\n", ""},
		{base + `fullnameOverride: a-name-that-is-longer-than-what-a-cronjob-may-be-called}`, "name: a-name-that-is-longer-than-what-a-cronjob-m-", "may-be-called"},
	} {
		values := filepath.Join(t.TempDir(), "values.yaml")
		require.NoError(t, os.WriteFile(values, []byte(c.values), 0o644))
		rendered := runs(t, "helm", "template", "orders", chart, "--values", values)
		assert.Contains(t, rendered, c.has, c.values)
		if c.hasNot != "" {
			assert.NotContains(t, rendered, c.hasNot, c.values)
		}
	}
}

// Names that YAML takes for numbers or the like, and texts that hold its signs, stay what they are.
func TestChartTakesOddNames(t *testing.T) {
	values := filepath.Join(t.TempDir(), "values.yaml")
	require.NoError(t, os.WriteFile(values, []byte(`
jobmanager: http://jm:8081
mode: watch
fullnameOverride: "12"
flinkConfigMap: "34"
claims: [{claimName: "56", mountPath: /state, subPath: "78"}, {claimName: orders.state, mountPath: "/a: b"}]
alerts: {enabled: true, heldFor: "1h"}
podMonitor: {enabled: true}
dashboard: {enabled: true}
networkPolicy: {enabled: true}
applications:
  - {name: "true", app: "s3://bucket/a #1: b"}
  - {name: orders, app: "s3://bucket/c"}
  - {name: "9", app: "s3://bucket/d", mode: cronjob, cronjob: {timeZone: "null"}}
`), 0o644))
	rendered := filepath.Join(t.TempDir(), "rendered.yaml")
	require.NoError(t, os.WriteFile(rendered, []byte(runs(t, "helm", "template", "1e3", chart, "--values", values)), 0o644))
	conforms(t, rendered)
	for _, d := range documentsOf(t, rendered) {
		metadata := d["metadata"].(map[string]any)
		assert.IsType(t, "", metadata["name"], d["kind"])
		for label, value := range metadata["labels"].(map[string]any) {
			assert.IsType(t, "", value, "%s %s", d["kind"], label)
		}
		if d["kind"] != "PrometheusRule" {
			continue
		}
		groups := d["spec"].(map[string]any)["groups"].([]any)
		require.Len(t, groups, 3)
		rule := groups[0].(map[string]any)["rules"].([]any)[0].(map[string]any)
		assert.Contains(t, rule["annotations"].(map[string]any)["description"], "The pin in s3://bucket/a #1: b was never made")
	}
	text, err := os.ReadFile(rendered)
	require.NoError(t, err)
	assert.Contains(t, string(text), "name: claim-56\n")
	assert.NotContains(t, string(text), "name: claim-orders.state\n", "a volume's name has no dots")
}

// What is set twice stands there once: YAML has no key twice, and server-side apply no variable.
func TestChartSaysNothingTwice(t *testing.T) {
	values := filepath.Join(t.TempDir(), "values.yaml")
	require.NoError(t, os.WriteFile(values, []byte(base+`mode: watch, podMonitor: {enabled: true, labels: {app.kubernetes.io/instance: prometheus}},
  alerts: {enabled: true}, prometheusRule: {labels: {app.kubernetes.io/name: prometheus}}, dashboard: {enabled: true, labels: {helm.sh/chart: x}},
  labels: {app.kubernetes.io/version: "7", app.kubernetes.io/name: x, team: orders}, settings: {keep: 4}, env: [{name: CHKPIN_KEEP, value: "5"}]}`), 0o644))
	text := runs(t, "helm", "template", "orders", chart, "--values", values)
	rendered := filepath.Join(t.TempDir(), "rendered.yaml")
	require.NoError(t, os.WriteFile(rendered, []byte(text), 0o644))
	for _, d := range documentsOf(t, rendered) { // refuses a key that is there twice
		labels := d["metadata"].(map[string]any)["labels"].(map[string]any)
		switch d["kind"] {
		case "PodMonitor":
			assert.Equal(t, "prometheus", labels["app.kubernetes.io/instance"], "by which it is found")
		case "PrometheusRule":
			assert.Equal(t, "prometheus", labels["app.kubernetes.io/name"])
		case "Deployment":
			assert.Equal(t, "chkpin", labels["app.kubernetes.io/name"])
			assert.Equal(t, "orders", labels["team"])
			assert.Equal(t, 1, strings.Count(text, "- name: CHKPIN_KEEP\n              value: \"5\""))
			assert.NotContains(t, text, "value: \"4\"")
		}
	}
}
