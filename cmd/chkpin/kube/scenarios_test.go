//go:build kube

package kube

import (
	"archive/zip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore/storetest/faults"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/lab"
	"github.com/chkpin/chkpin/cmd/chkpin/kube/cluster"
)

// scenarios are shown one after the other; each leaves the cluster to the next.
// Some need no more than the API server.
var scenarios = []struct {
	name   string
	run    func(*kube, context.Context) string
	server bool
}{
	{"the strict server takes the chart's examples, the overlays and all manifests, without a warning", dryRun, true},
	{"and refuses what is wrong with them", dryRunRefuses, true},
	{"what helm install prints ends in commands that can be typed", notes, true},
	{"the operator's own definition takes our FlinkDeployment", operatorKind, true},
	{"the CronJob fires and pins a real Flink", cronJobFires, false},
	{"helm test asks doctor", helmTest, false},
	{"a watch pins, is ready, and tells Prometheus", watchPod, false},
	{"a JobManager that is down: exit 8, the pin is whole", jobManagerDown, false},
	{"a stuck tick is killed by its deadline, the next works", stuckTick, false},
	{"two ticks at once: one pin, published on condition", twoTicks, false},
	{"upgrade, rollback and uninstall leave the pin alone", lifeOfARelease, false},
	{"a role's projected token is where the SDK looks", projectedToken, false},
	{"500 targets in two shards of an Indexed Job, 128Mi each", fleet, false},
	{"the memory limit holds a pin of 20,000 files", holdsMemory, false},
	{"an image of Flink", buildFlink, false},
	{"a Flink pod starts without a pin, and again from it", flinkPod, false},
	{"a Flink pod that goes stops with a savepoint (preStop), the next starts from it", flinkStops, false},
}

// judge has the API server say what it thinks of objects, in namespaces whose
// pods must be restricted. A warning is an error here: of a pod in a CronJob the
// server only warns.
func (k *kube) judge(ctx context.Context, objects string, args ...string) error {
	_, err := k.Kubectl(ctx, objects, append([]string{"create", "--dry-run=server", "--validate=strict", "--warnings-as-errors"}, args...)...)
	return err
}

// dryRun has the API server judge what people will apply. Of the Prometheus
// Operator's kinds it knows no more than that they exist.
func dryRun(k *kube, ctx context.Context) string {
	for _, kind := range []string{"PodMonitor", "PrometheusRule"} {
		name := strings.ToLower(kind)
		k.define(ctx, strings.NewReplacer("NAME", name, "KIND", kind).Replace(monitoringKind), name+"s.monitoring.coreos.com")
	}
	values, err := filepath.Glob(filepath.Join(repository, "charts/chkpin/ci/*.yaml"))
	require.NoError(k, err)
	for _, file := range values {
		require.NoError(k, k.judge(ctx, k.rendered(ctx, "--values", file), "--namespace", namespace, "--filename=-"), file)
	}
	overlays, err := filepath.Glob(filepath.Join(repository, "manifests/overlays/*/kustomization.yaml"))
	require.NoError(k, err)
	for _, file := range overlays {
		require.NoError(k, k.judge(ctx, "", "--kustomize", filepath.Dir(file)))
	}
	plain, err := filepath.Glob(filepath.Join(repository, "manifests/*.yaml"))
	require.NoError(k, err)
	plain = slices.DeleteFunc(plain, func(file string) bool { return filepath.Base(file) == flinkDeployment })
	for _, file := range plain {
		require.NoError(k, k.judge(ctx, "", "--namespace", namespace, "--filename", file))
	}
	require.GreaterOrEqual(k, min(len(values), len(overlays), len(plain)), 4)
	return fmt.Sprintf("%d examples, %d overlays, %d manifests", len(values), len(overlays), len(plain))
}

// rendered is what the chart's user would apply by hand.
func (k *kube) rendered(ctx context.Context, args ...string) string {
	k.Helper()
	text, _, err := k.Helm(ctx, append([]string{"template", "release", chart, "--no-hooks", "--namespace", namespace}, args...)...)
	require.NoError(k, err)
	return text
}

// define has the API server know a kind.
func (k *kube) define(ctx context.Context, definition, name string) {
	k.Helper()
	_, err := k.Kubectl(ctx, definition, "apply", "--server-side", "--filename=-")
	require.NoError(k, err)
	k.wait(ctx, time.Minute, func() bool {
		conditions := k.kubectl(ctx, "get", "crd/"+name, "--output=jsonpath={range .status.conditions[*]}{.type}={.status} {end}")
		return strings.Contains(conditions, "Established=True")
	})
}

// dryRunRefuses shows that the judge is awake.
func dryRunRefuses(k *kube, ctx context.Context) string {
	good := k.rendered(ctx, "--set=app=s3://bucket/orders,jobmanager=http://jm:8081")
	require.NoError(k, k.judge(ctx, good, "--namespace", namespace, "--filename=-"))
	var said []string
	for _, c := range []struct{ old, new, says string }{
		{"concurrencyPolicy:", "concurrencePolicy:", "unknown field"},
		{`schedule: "* * * * *"`, `schedule: "61 * * * *"`, "end of range (61) above maximum (59)"},
		{"allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "would violate PodSecurity"},
	} {
		require.Contains(k, good, c.old)
		err := k.judge(ctx, strings.ReplaceAll(good, c.old, c.new), "--namespace", namespace, "--filename=-")
		require.ErrorContains(k, err, c.says, c.new)
		said = append(said, c.says)
	}
	return strings.Join(said, ", ")
}

func notes(k *kube, ctx context.Context) string {
	for values, want := range map[string][]string{
		"s3-irsa.yaml": {
			`orders: ticks at "* * * * *", and is pinned as` + "\n  s3://bucket/orders/last-state/_metadata",
			"helm test orders --namespace " + namespace + " --logs",
			"kubectl --namespace " + namespace + " create job --from=cronjob/orders-chkpin orders-chkpin-now",
		},
		"azure-workload-identity.yaml": {"payments: is watched", "kubectl --namespace " + namespace + " logs --follow deployment/orders-chkpin-orders"},
		"fleet.yaml":                   {"s3://bucket/session/<job name>/last-state/_metadata", "create job --from=cronjob/orders-chkpin-fleet orders-chkpin-fleet-now"},
	} {
		out, _, err := k.Helm(ctx, "install", "orders", chart, "--namespace", namespace, "--dry-run=client", "--values", chart+"/ci/"+values)
		require.NoError(k, err)
		_, notes, found := strings.Cut(out, "\nNOTES:\n")
		require.True(k, found, out)
		for _, line := range want {
			require.Contains(k, notes, line, values)
		}
	}
	return "helm test first, then a tick at once"
}

// flinkDeployment is the manifest of a kind that Kubernetes does not have.
const flinkDeployment = "flinkdeployment.yaml"

// operatorRelease is the newest whose definitions Maven has.
const operatorRelease = "1.10.0"

// operatorKind takes the definition of the Flink Kubernetes Operator from its jar.
func operatorKind(k *kube, ctx context.Context) string {
	const artifact, name = "flink-kubernetes-operator-api", "flinkdeployments.flink.apache.org"
	l, err := lab.Find()
	require.NoError(k, err)
	dir, err := l.Plugin(ctx, artifact, operatorRelease)
	require.NoError(k, err)
	jar, err := zip.OpenReader(filepath.Join(dir, artifact, artifact+"-"+operatorRelease+".jar"))
	require.NoError(k, err)
	defer jar.Close()
	definition, err := fs.ReadFile(jar, "META-INF/fabric8/"+name+"-v1.yml")
	require.NoError(k, err)
	k.define(ctx, string(definition), name)

	text := k.read(filepath.Join(repository, "manifests", flinkDeployment))
	require.NoError(k, k.judge(ctx, text, "--namespace", namespace, "--filename=-"))
	require.Contains(k, text, "savepointRedeployNonce:")
	err = k.judge(ctx, strings.ReplaceAll(text, "savepointRedeployNonce:", "savepointNonce:"), "--namespace", namespace, "--filename=-")
	require.ErrorContains(k, err, `unknown field "spec.job.savepointNonce"`)
	return "operator " + operatorRelease + ": accepted; a field that it does not have is refused"
}

const monitoringKind = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: NAMEs.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: KIND, plural: NAMEs, singular: NAME}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

func cronJobFires(k *kube, ctx context.Context) string {
	k.install(ctx, "orders", k.values("orders", k.jobManager(), nil))
	var job string
	k.wait(ctx, 2*time.Minute, func() bool {
		job = k.kubectl(ctx, "get", "jobs", "--namespace", namespace, "--output", `jsonpath={.items[?(@.status.succeeded==1)].metadata.name}`)
		return job != ""
	})
	k.kubectl(ctx, "patch", "cronjob", "orders-chkpin", "--namespace", namespace, "--patch", `{"spec":{"suspend":true}}`)
	job, _, _ = strings.Cut(job, " ")
	log := k.kubectl(ctx, "logs", "--namespace", namespace, "job/"+job)
	require.Contains(k, log, "pinned checkpoint")
	require.FileExists(k, k.pin("orders"))
	// The last of the five commands of docs/kubernetes.md.
	log = k.kubectl(ctx, "logs", "--namespace", namespace, "--selector=chkpin/application=orders", "--tail=2")
	require.Contains(k, log, "pinned checkpoint")
	return firstLine(log)
}

func helmTest(k *kube, ctx context.Context) string {
	out, _, err := k.Helm(ctx, "test", "orders", "--namespace", namespace, "--logs")
	require.NoError(k, err)
	require.Contains(k, out, "Succeeded")
	return "Succeeded"
}

func watchPod(k *kube, ctx context.Context) string {
	values := k.values("watched", k.jobManager(), settings{"interval": "2s", "listen": ":9464"})
	values["mode"] = "watch"
	values["networkPolicy"] = map[string]any{"enabled": true}
	k.install(ctx, "watched", values)
	k.kubectl(ctx, "rollout", "status", "deployment/watched-chkpin", "--namespace", namespace, "--timeout=3m")
	require.FileExists(k, k.pin("watched"))
	address := k.kubectl(ctx, "get", "pods", "--namespace", namespace, "--selector=chkpin/application=watched", "--output=jsonpath={.items[0].status.podIP}")
	got, err := http.Get("http://" + address + ":9464/metrics")
	require.NoError(k, err)
	defer got.Body.Close()
	metrics, err := io.ReadAll(got.Body)
	require.NoError(k, err)
	require.Contains(k, string(metrics), "\nchkpin_restorable 1\n")
	require.Contains(k, string(metrics), "\nchkpin_held 0\n")
	pinned := regexp.MustCompile(`chkpin_ticks_total\{result="pinned"\} \d+`).FindString(string(metrics))
	require.NotEmpty(k, pinned, "%s", metrics)
	k.uninstall(ctx, "watched")
	return "chkpin_restorable 1, " + pinned
}

func jobManagerDown(k *kube, ctx context.Context) string {
	before := k.read(k.pin("orders"))
	k.install(ctx, "down", k.values("orders", "http://"+cluster.Gateway+":1", settings{"tolerate": nil, "jobmanager-timeout": "2s"}))
	tick := k.tick(ctx, "down")
	require.Equal(k, 8, tick.exit, tick.log)
	require.Equal(k, before, k.read(k.pin("orders")))
	k.uninstall(ctx, "down")
	return firstLine(tick.log)
}

func stuckTick(k *kube, ctx context.Context) string {
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer silent.Close()
	values := k.values("orders", k.forward(silent.URL), settings{"jobmanager-timeout": "10m", "timeout": "4s"})
	values["cronjob"] = map[string]any{"suspend": true, "activeDeadlineSeconds": 5}
	k.install(ctx, "stuck", values)
	job := k.start(ctx, "stuck")
	began := time.Now()
	k.ended(ctx, job)
	took := time.Since(began)
	why := k.kubectl(ctx, "get", "job", job, "--namespace", namespace, "--output", `jsonpath={.status.conditions[?(@.type=="Failed")].reason}`)
	require.Equal(k, "DeadlineExceeded", why)
	tick := k.tick(ctx, "orders")
	require.Zero(k, tick.exit, tick.log)
	k.uninstall(ctx, "stuck")
	return fmt.Sprintf("%s after %.0f s; then: %s", why, took.Seconds(), firstLine(tick.log))
}

// twoTicks has two pods publish at once. Both may see the same checkpoint: then
// each says that it is pinned, in the same words, and one of them published it.
func twoTicks(k *kube, ctx context.Context) string {
	// Slow storage has both look before one has published.
	slow := faults.Start(k, k.s3.URL)
	slow.Latency = 500 * time.Millisecond
	k.install(ctx, "race", k.values("race", k.jobManager(), settings{"s3-endpoint": k.forward(slow.URL)}))
	first, second := k.start(ctx, "race"), k.start(ctx, "race")
	pinned := map[string]bool{} // what is said, which names generation and checkpoint
	said := 0
	var lines []string
	for _, job := range []string{first, second} {
		k.ended(ctx, job)
		tick := k.result(ctx, job)
		line := firstLine(tick.log)
		lines = append(lines, line)
		switch {
		case tick.exit == 0 && strings.HasPrefix(line, "pinned checkpoint"):
			pinned[line] = true
		case tick.exit == 6, tick.exit == 0 && strings.HasPrefix(line, "unchanged"):
			said++
		default:
			require.FailNow(k, "neither published nor said why not", "exit %d\n%s", tick.exit, tick.log)
		}
	}
	puts := 0
	for _, r := range slow.Requests() {
		if r.Method == http.MethodPut && strings.HasSuffix(r.Path, "/race/last-state/_metadata") {
			puts++
			require.NotEmpty(k, r.Header.Get("If-None-Match")+r.Header.Get("If-Match"), "nobody publishes without a condition")
		}
	}
	require.FileExists(k, k.pin("race"))
	tick := k.tick(ctx, "race")
	require.Zero(k, tick.exit, tick.log)
	k.uninstall(ctx, "race")
	var seen string
	switch {
	case len(pinned) == 2:
		seen = "one after the other, each its checkpoint"
	case said > 0:
		seen = "the second says so"
	default:
		seen = "both the same checkpoint, in one generation"
	}
	require.NotEmpty(k, pinned, lines)
	return fmt.Sprintf("%s; %d conditional PUTs of last-state/_metadata: %s", seen, puts, strings.Join(slices.Compact(lines), " / "))
}

// lifeOfARelease is about a release of its own, whose ticks are started by hand:
// none of another minute changes the pin meanwhile.
func lifeOfARelease(k *kube, ctx context.Context) string {
	k.uninstall(ctx, "orders")
	values := k.values("life", k.jobManager(), nil)
	k.install(ctx, "life", values)
	tick := k.tick(ctx, "life")
	require.Zero(k, tick.exit, tick.log)
	before := k.read(k.pin("life"))
	unchanged := func(after string) {
		k.Helper()
		require.True(k, before == k.read(k.pin("life")), "the pin has other bytes after %s", after) // which nobody wants to see
	}
	keeps := func() bool {
		return strings.Contains(k.kubectl(ctx, "get", "cronjob", "life-chkpin", "--namespace", namespace, "--output=yaml"), "CHKPIN_KEEP")
	}
	values["settings"].(settings)["keep"] = 5
	values["labels"] = map[string]any{"team": "orders"}
	k.install(ctx, "life", values)
	require.True(k, keeps())
	unchanged("upgrade")
	_, _, err := k.Helm(ctx, "rollback", "life", "--namespace", namespace, "--wait")
	require.NoError(k, err)
	require.False(k, keeps())
	unchanged("rollback")
	k.uninstall(ctx, "life")
	unchanged("uninstall")
	return "the pin has the same bytes after each"
}

// projectedToken plays the webhook of IRSA, which mounts a token and names it in
// the environment, and the service that takes such tokens.
func projectedToken(k *kube, ctx context.Context) string {
	const role = "arn:aws:iam::123456789012:role/chkpin"
	var audience atomic.Value
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("Action") == "AssumeRoleWithWebIdentity" && r.FormValue("RoleArn") == role {
			audience.Store(claims(r.FormValue("WebIdentityToken")))
		}
		fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>`+
			`<Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken></SessionToken><Expiration>%s</Expiration></Credentials>`+
			`</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
			k.s3.AccessKey, k.s3.SecretKey, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	defer sts.Close()
	values := k.values("irsa", k.jobManager(), nil)
	values["env"] = []any{
		env("AWS_ROLE_ARN", role),
		env("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"),
		env("AWS_ENDPOINT_URL_STS", k.forward(sts.URL)),
	}
	values["serviceAccount"] = map[string]any{"annotations": map[string]any{"eks.amazonaws.com/role-arn": role}}
	values["volumes"] = []any{map[string]any{"name": "aws-iam-token", "projected": map[string]any{"sources": []any{
		map[string]any{"serviceAccountToken": map[string]any{"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "token"}},
	}}}}
	values["volumeMounts"] = []any{map[string]any{
		"name": "aws-iam-token", "mountPath": "/var/run/secrets/eks.amazonaws.com/serviceaccount", "readOnly": true,
	}}
	k.install(ctx, "irsa", values)
	tick := k.tick(ctx, "irsa")
	require.Zero(k, tick.exit, tick.log)
	require.FileExists(k, k.pin("irsa"))
	got, _ := audience.Load().(tokenClaims)
	require.Equal(k, tokenClaims{[]string{"sts.amazonaws.com"}, "system:serviceaccount:" + namespace + ":irsa-chkpin"}, got)
	k.uninstall(ctx, "irsa")
	return got.Subject + " for " + got.Audience[0]
}

// tokenClaims are what a cloud looks at in a service account's token.
type tokenClaims struct {
	Audience []string `json:"aud"`
	Subject  string   `json:"sub"`
}

func firstLine(text string) string {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "{") {
			return strings.TrimSpace(line)
		}
	}
	return strings.TrimSpace(text)
}

func (k *kube) read(file string) string {
	k.Helper()
	text, err := os.ReadFile(file)
	require.NoError(k, err)
	return string(text)
}

func env(name, value string) map[string]any { return map[string]any{"name": name, "value": value} }

// fleet pins 500 applications. One JobManager serves for all of them.
func fleet(k *kube, ctx context.Context) string {
	const targets, shards = 500, 2
	values := k.values("", "", settings{"parallel": 16})
	var applications []any
	for i := range targets {
		applications = append(applications, map[string]any{
			"name": fmt.Sprintf("app-%03d", i), "app": fmt.Sprintf("s3://%s/fleet/app-%03d", bucket, i), "jobmanager": k.jobManager(),
		})
	}
	delete(values, "app")
	delete(values, "jobmanager")
	values["mode"], values["applications"] = "fleet", applications
	values["fleet"] = map[string]any{"shards": shards}
	k.install(ctx, "fleet", values)
	name := strings.TrimPrefix(strings.TrimSpace(k.kubectl(ctx, "get", "cronjobs", "--namespace", namespace,
		"--selector", "app.kubernetes.io/instance=fleet", "--output=name")), "cronjob.batch/")
	var took []string
	var peak int64
	for n := range 2 {
		began := time.Now()
		job := k.startFrom(ctx, name)
		if n == 0 { // the next is too short to follow
			for _, m := range k.memoryOf(ctx, job, shards) {
				peak = max(peak, m.Peak)
			}
		}
		k.ended(ctx, job)
		took = append(took, fmt.Sprintf("%.0f s", time.Since(began).Seconds()))
		log := k.kubectl(ctx, "logs", "--namespace", namespace, "--selector", "job-name="+job, "--tail=3")
		done := k.kubectl(ctx, "get", "job", job, "--namespace", namespace, "--output", "jsonpath={.status.succeeded}")
		require.Equal(k, fmt.Sprint(shards), done, log)
	}
	pins, err := filepath.Glob(filepath.Join(k.s3.Dir, bucket, "fleet/*/last-state/_metadata"))
	require.NoError(k, err)
	require.Len(k, pins, targets)
	k.uninstall(ctx, "fleet")
	return fmt.Sprintf("first ticks %s, the next %s, from start to end of the pods; peak %.0f MiB", took[0], took[1], float64(peak)/(1<<20))
}

// claims reads a token without looking at its signature.
func claims(token string) (c tokenClaims) {
	parts := strings.Split(token, ".")
	if len(parts) == 3 {
		if text, err := decodeSegment(parts[1]); err == nil {
			_ = json.Unmarshal(text, &c) // what does not parse has no claims
		}
	}
	return c
}
