//go:build kube

package kube

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/checkpoint/metadata"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/job"
	"github.com/chkpin/chkpin/cmd/chkpin/kube/cluster"
	"github.com/chkpin/chkpin/flinkrest"
)

const flinkImage = "localhost/flink:" + release

// flinkPod deploys a Flink application whose arguments never change.
func flinkPod(k *kube, ctx context.Context) string {
	address, client := k.deployFlink(ctx, "pod", flinkManifest)

	first, stats := k.runningJob(ctx, client, "")
	require.Nil(k, stats.Restored, "there was no pin")

	k.install(ctx, "pod", k.values("pod", k.forward(address), nil))
	tick := k.tick(ctx, "pod")
	require.Zero(k, tick.exit, tick.log)

	// What Flink wrote goes away with its job; only the pin remains.
	k.kubectl(ctx, "scale", "deployment/orders", "--namespace=jobs", "--replicas=0")
	k.kubectl(ctx, "wait", "pods", "--namespace=jobs", "--selector=app=orders", "--for=delete", "--timeout=90s")
	folder := filepath.Join(k.s3.Dir, bucket, "pod-checkpoints", first)
	require.DirExists(k, folder)
	require.NoError(k, os.RemoveAll(folder))
	k.kubectl(ctx, "scale", "deployment/orders", "--namespace=jobs", "--replicas=1")
	second, stats := k.runningJob(ctx, client, first)
	require.NotNil(k, stats.Restored)
	require.Contains(k, string(stats.Restored.ExternalPath), "s3://"+bucket+"/pod/last-state")

	tick = k.tick(ctx, "pod")
	require.Zero(k, tick.exit, tick.log)
	require.Contains(k, tick.log, "pinned checkpoint", "the lineage goes on")
	k.uninstall(ctx, "pod")
	k.kubectl(ctx, "delete", "namespace", "jobs", "--timeout=60s")
	return fmt.Sprintf("job %s… started empty, job %s… from checkpoint %d of the pin, and is pinned on", first[:6], second[:6], stats.Restored.ID)
}

// flinkStops redeploys a Flink application whose pod stops its job with a
// savepoint before it ends.
func flinkStops(k *kube, ctx context.Context) string {
	_, client := k.deployFlink(ctx, "stopped", stoppingManifest)
	first, stats := k.runningJob(ctx, client, "")
	require.Nil(k, stats.Restored, "there was no pin")
	require.NoFileExists(k, k.pin("stopped"), "nobody else pins here")

	k.kubectl(ctx, "rollout", "restart", "deployment/orders", "--namespace=jobs")
	second, stats := k.runningJob(ctx, client, first)
	failures := k.kubectl(ctx, "get", "events", "--namespace=jobs", "--field-selector=reason=FailedPreStopHook")
	require.Empty(k, strings.TrimSpace(failures), "of the hook")
	savepoints, err := filepath.Glob(filepath.Join(k.s3.Dir, bucket, "savepoints", "savepoint-"+first[:6]+"-*", "_metadata"))
	require.NoError(k, err)
	require.Len(k, savepoints, 1)
	pinned, err := os.ReadFile(savepoints[0])
	require.NoError(k, err)
	savepoint, err := metadata.Parse(pinned)
	require.NoError(k, err)
	require.NotNil(k, stats.Restored)
	require.Contains(k, string(stats.Restored.ExternalPath), "s3://"+bucket+"/stopped/last-state")
	require.Equal(k, savepoint.CheckpointID, stats.Restored.ID, "nothing is repeated")
	k.kubectl(ctx, "delete", "namespace", "jobs", "--timeout=120s")
	return fmt.Sprintf("job %s… ended in savepoint %d, which the hook pinned; job %s… started from it", first[:6], savepoint.CheckpointID, second[:6])
}

// deployFlink applies a manifest of Flink in a namespace of its own. It returns
// the JobManager's address on the loopback.
func (k *kube) deployFlink(ctx context.Context, app, manifest string) (string, *flinkrest.Client) {
	k.Helper()
	rest, rpc := port(k), port(k)
	k.kubectl(ctx, "create", "namespace", "jobs")
	_, err := k.Kubectl(ctx, k.flinkObjects(app, manifest, rest, rpc), "apply", "--filename=-")
	require.NoError(k, err)
	address := fmt.Sprintf("http://127.0.0.1:%d", rest)
	client, err := flinkrest.New(flinkrest.Config{URL: address})
	require.NoError(k, err)
	return address, client
}

// runningJob waits for a job that is not the one before, and for a checkpoint of
// its own.
func (k *kube) runningJob(ctx context.Context, client *flinkrest.Client, before string) (id string, stats flinkrest.Checkpoints) {
	k.Helper()
	k.wait(ctx, 15*time.Minute, func() bool {
		jobs, err := client.Jobs(ctx)
		if err != nil || len(jobs) != 1 || jobs[0].ID == before {
			return false
		}
		id = jobs[0].ID
		stats, err = client.Checkpoints(ctx, id)
		return err == nil && stats.LatestCompleted != nil
	})
	return id, stats
}

// buildFlink makes an image like the official one, of what package lab has: the
// distribution, a plugin for S3, the job, and the Java that runs here.
func buildFlink(k *kube, ctx context.Context) string {
	root := filepath.Join(k.dir, "flink-image")
	require.NoError(k, cluster.BusyboxRoot(ctx, root))
	k.sh(ctx, `set -e
mkdir -p "$1/opt/flink/plugins" "$1/opt/flink/conf" "$1/lib64"
"$(dirname "$(readlink -f "$5")")/jlink" --add-modules ALL-MODULE-PATH --strip-debug --no-man-pages --no-header-files --output "$1/opt/java"
cp -r "$2" "$1/opt/flink/lib"
cp -r "$3/." "$1/opt/flink/plugins/"
cp "$4" "$1/opt/flink/lib/job.jar"
mkdir -p "$1/etc"
echo 'flink:x:9999:9999::/opt/flink:/bin/sh' >> "$1/etc/passwd" # Hadoop's login asks for the user's name
for f in $(find "$1/opt/java" -name '*.so') "$1/opt/java/bin/java"; do ldd "$f" 2>/dev/null || true; done |
	sed -n 's|.*[[:space:]]\(/[^ ]*\) (0x.*|\1|p' | sort -u | grep -v "^$1" | while read -r lib; do
	mkdir -p "$1$(dirname "$lib")"; cp -L "$lib" "$1$lib"; done
chmod -R a+rX "$1"; chmod 1777 "$1/tmp"`, root, k.flink.Lib, k.plugins, k.jar, k.lab.Java)
	var opened strings.Builder
	for _, p := range []string{"java.lang", "java.lang.reflect", "java.net", "java.io", "java.nio", "java.text", "java.time", "java.util",
		"java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks", "sun.net.util", "sun.nio.ch"} {
		fmt.Fprintf(&opened, " --add-opens=java.base/%s=ALL-UNNAMED", p)
	}
	require.NoError(k, os.WriteFile(filepath.Join(root, "docker-entrypoint.sh"), []byte(`#!/bin/sh
role=$1; shift
case $role in
standalone-job) class=org.apache.flink.container.entrypoint.StandaloneApplicationClusterEntryPoint ;;
taskmanager) class=org.apache.flink.runtime.taskexecutor.TaskManagerRunner ;;
esac
exec /opt/java/bin/java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx320m -XX:MaxDirectMemorySize=256m`+opened.String()+` \
	-Dlog4j.configurationFile=file:/opt/flink/conf/log4j.properties -cp '/opt/flink/lib/*' $class --configDir /opt/flink/conf "$@"
`), 0o755))
	require.NoError(k, k.images.Make(ctx, flinkImage, root, "--env=FLINK_CONF_DIR=/opt/flink/conf", "--env=FLINK_LIB_DIR=/opt/flink/lib",
		"--env=FLINK_PLUGINS_DIR=/opt/flink/plugins", "--env=PATH=/bin:/opt/java/bin", "--user=9999"))
	archive := filepath.Join(k.dir, "flink.tar")
	require.NoError(k, k.images.Export(ctx, flinkImage, archive))
	require.NoError(k, k.Import(ctx, archive))
	info, err := os.Stat(archive)
	require.NoError(k, err)
	require.NoError(k, os.Remove(archive))
	return fmt.Sprintf("%.0f MB: the distribution, its plugin for S3, the job, a Java made by jlink", float64(info.Size())/1e6)
}

func (k *kube) sh(ctx context.Context, script string, args ...string) {
	k.Helper()
	_, err := cluster.Run(ctx, "", "sh", append([]string{"-c", script, "sh"}, args...)...)
	require.NoError(k, err)
}

// flinkObjects fills in a manifest of Flink. Its pods are in the network of this
// machine, since the cluster has no Services.
func (k *kube) flinkObjects(app, manifest string, rest, rpc int) string {
	conf := map[string]string{
		"jobmanager.rpc.address": "127.0.0.1", "jobmanager.bind-host": "127.0.0.1", "jobmanager.rpc.port": fmt.Sprint(rpc),
		"rest.address": "127.0.0.1", "rest.bind-address": "127.0.0.1", "rest.port": fmt.Sprint(rest),
		"taskmanager.host": "127.0.0.1", "taskmanager.bind-host": "127.0.0.1", "taskmanager.numberOfTaskSlots": "2", "parallelism.default": "2",
		"execution.checkpointing.interval": "2 s", "execution.checkpointing.dir": "s3://" + bucket + "/" + app + "-checkpoints",
		"execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
		"cluster.registration.error-delay":                          "500", "restart-strategy.type": "none", "io.tmp.dirs": "/tmp",
		"taskmanager.cpu.cores": "1.0", "taskmanager.memory.framework.heap.size": "96m", "taskmanager.memory.framework.off-heap.size": "64m",
		"taskmanager.memory.task.heap.size": "192m", "taskmanager.memory.task.off-heap.size": "32m", "taskmanager.memory.managed.size": "128m",
		"taskmanager.memory.network.min": "32m", "taskmanager.memory.network.max": "32m", "taskmanager.memory.jvm-metaspace.size": "192m",
		"taskmanager.memory.jvm-overhead.min": "64m", "taskmanager.memory.jvm-overhead.max": "64m",
	}
	maps.Copy(conf, flinkS3(k.s3.URL, k.s3))
	var lines strings.Builder
	for _, key := range slices.Sorted(maps.Keys(conf)) {
		fmt.Fprintf(&lines, "    %s: %q\n", key, conf[key])
	}
	return strings.NewReplacer("<conf>", strings.TrimRight(lines.String(), "\n"), "<flink>", flinkImage, "<chkpin>", image+"-amd64",
		"<class>", job.Class, "<args>", strings.Join(sizes.Args(), `", "`), "<app>", "s3://"+bucket+"/"+app, "<savepoints>", "s3://"+bucket+"/savepoints",
		"<rest>", fmt.Sprint(rest), "<endpoint>", k.s3.URL, "<id>", k.s3.AccessKey, "<key>", k.s3.SecretKey).Replace(flinkConfiguration + manifest)
}

const flinkConfiguration = `apiVersion: v1
kind: ConfigMap
metadata: {name: orders, namespace: jobs}
data:
  config.yaml: |
<conf>
  log4j.properties: |
    rootLogger.level = INFO
    rootLogger.appenderRef.console.ref = console
    appender.console.name = console
    appender.console.type = CONSOLE
    appender.console.layout.type = PatternLayout
    appender.console.layout.pattern = %d %p %c %m%n
---
`

// flinkManifest is JobManager and TaskManager in one pod, with init container and
// arguments as in manifests/init-container.yaml, form 1.
const flinkManifest = `apiVersion: apps/v1
kind: Deployment
metadata: {name: orders, namespace: jobs}
spec:
  strategy: {type: Recreate}
  selector: {matchLabels: {app: orders}}
  template:
    metadata: {labels: {app: orders}}
    spec:
      hostNetwork: true
      terminationGracePeriodSeconds: 5
      volumes:
        - {name: chkpin, emptyDir: {}}
        - {name: conf, configMap: {name: orders}}
      initContainers:
        - name: resolve
          image: <chkpin>
          imagePullPolicy: Never
          args: [resolve, --allow-first-start, --output-file=/chkpin/args, <app>, --s3-endpoint=<endpoint>, --s3-path-style, --s3-region=us-east-1]
          env: [{name: AWS_ACCESS_KEY_ID, value: <id>}, {name: AWS_SECRET_ACCESS_KEY, value: <key>}]
          volumeMounts: [{name: chkpin, mountPath: /chkpin}]
      containers:
        - name: jobmanager
          image: <flink>
          imagePullPolicy: Never
          command: [sh, -c, 'exec /docker-entrypoint.sh standalone-job $(cat /chkpin/args) "$@"', standalone-job]
          args: [--job-classname, <class>, "<args>"]
          volumeMounts: [{name: chkpin, mountPath: /chkpin, readOnly: true}, {name: conf, mountPath: /opt/flink/conf}]
        - name: taskmanager
          image: <flink>
          imagePullPolicy: Never
          command: [/docker-entrypoint.sh, taskmanager]
          volumeMounts: [{name: conf, mountPath: /opt/flink/conf}]
`

// stoppingManifest is manifests/init-container.yaml, form 2, with the hook of
// docs/kubernetes.md. The TaskManager has a pod of its own: it must live until the
// savepoint is complete.
const stoppingManifest = `apiVersion: apps/v1
kind: Deployment
metadata: {name: orders, namespace: jobs}
spec:
  strategy: {type: Recreate}
  selector: {matchLabels: {app: orders}}
  template:
    metadata: {labels: {app: orders}}
    spec:
      hostNetwork: true
      terminationGracePeriodSeconds: 120
      volumes:
        - {name: chkpin, emptyDir: {}}
        - {name: conf, configMap: {name: orders}}
      initContainers:
        - name: install
          image: <chkpin>
          imagePullPolicy: Never
          args: [install, /chkpin]
          volumeMounts: [{name: chkpin, mountPath: /chkpin}]
      containers:
        - name: jobmanager
          image: <flink>
          imagePullPolicy: Never
          command: [/chkpin/chkpin, exec, --allow-first-start, <app>, --, /docker-entrypoint.sh]
          args: [standalone-job, -Dexecution.shutdown-on-application-finish=false, --job-classname, <class>, "<args>"]
          env:
            - {name: AWS_ACCESS_KEY_ID, value: <id>}
            - {name: AWS_SECRET_ACCESS_KEY, value: <key>}
            - {name: CHKPIN_S3_ENDPOINT, value: "<endpoint>"}
            - {name: CHKPIN_S3_PATH_STYLE, value: "true"}
            - {name: CHKPIN_S3_REGION, value: us-east-1}
          lifecycle:
            preStop: {exec: {command: [/chkpin/chkpin, stop, <app>, "http://127.0.0.1:<rest>", --target=<savepoints>]}}
          volumeMounts: [{name: chkpin, mountPath: /chkpin, readOnly: true}, {name: conf, mountPath: /opt/flink/conf}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: orders-taskmanager, namespace: jobs}
spec:
  selector: {matchLabels: {app: orders-taskmanager}}
  template:
    metadata: {labels: {app: orders-taskmanager}}
    spec:
      hostNetwork: true
      terminationGracePeriodSeconds: 5
      volumes:
        - {name: conf, configMap: {name: orders}}
      containers:
        - name: taskmanager
          image: <flink>
          imagePullPolicy: Never
          command: [/docker-entrypoint.sh, taskmanager]
          volumeMounts: [{name: conf, mountPath: /opt/flink/conf}]
`

// port is one that nobody listens on now.
func port(k *kube) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(k, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
