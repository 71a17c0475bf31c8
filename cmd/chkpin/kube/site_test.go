//go:build kube

package kube

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore/storetest/servers"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/job"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/lab"
	"github.com/chkpin/chkpin/cmd/chkpin/kube/cluster"
)

const (
	bucket  = "flink"
	release = "2.3.0" // of Flink
	chart   = repository + "/charts/chkpin"
)

// site is what lies outside of the cluster: S3 and Flink, on the loopback.
type site struct {
	s3        servers.S3
	s3ForPods string
	lab       lab.Lab
	flink     lab.Distribution
	plugins   string
	jar       string
	jm        string // of the Flink that runs on the loopback, as pods reach it
}

// startSite starts S3, and a Flink with a job whose checkpoints lie there.
func startSite(k *kube, ctx context.Context) string {
	k.s3 = servers.VersityGW(k, []string{bucket}, "--keep-alive")
	k.s3ForPods = k.forward(k.s3.URL)
	var err error
	k.lab, err = lab.Find()
	require.NoError(k, err)
	k.flink, err = k.lab.Distribution(ctx, release)
	require.NoError(k, err)
	k.jar, err = k.lab.Compile(ctx, k.flink, job.Class, job.Source())
	require.NoError(k, err)
	k.plugins, err = k.lab.Plugin(ctx, "flink-s3-fs-hadoop", release)
	require.NoError(k, err)
	conf := flinkS3(k.s3.URL, k.s3)
	conf["execution.checkpointing.num-retained"] = "30" // ticks on slow storage are part of what is shown
	c, err := k.lab.Start(lab.Options{
		Distribution: k.flink,
		Dir:          filepath.Join(k.dir, "flink"),
		Job:          lab.Job{Jar: k.jar, Class: job.Class, Args: sizes.Args()},
		Checkpoints:  "s3://" + bucket + "/checkpoints",
		Interval:     2 * time.Second,
		Plugins:      k.plugins,
		Conf:         conf,
	})
	require.NoError(k, err)
	k.Cleanup(c.Stop)
	k.jm = k.forward(c.URL)
	_, err = c.WaitRunning(ctx)
	require.NoError(k, err)
	_, err = c.WaitCheckpoints(ctx, 1)
	require.NoError(k, err)
	return "Flink " + release + " has a checkpoint"
}

// sizes put state into files.
var sizes = job.Options{Keys: 200, BlobBytes: 1000, ListElements: 2700, BroadcastEntries: 1500, PaceMillis: 20}

// flinkS3 is Flink's configuration of an S3 server. The Hadoop filesystem deletes
// marks of folders otherwise, which this server has no notion of.
func flinkS3(endpoint string, s servers.S3) map[string]string {
	return map[string]string{
		"s3.endpoint": endpoint, "s3.path.style.access": "true", "s3.access-key": s.AccessKey, "s3.secret-key": s.SecretKey,
		"s3.directory.marker.retention": "keep",
	}
}

func (k *kube) jobManager() string { return k.jm }

// pin is the file of a pin in the server's folder.
func (k *kube) pin(app string) string {
	return filepath.Join(k.s3.Dir, bucket, app, "last-state", "_metadata")
}

// forward makes a server of the loopback reachable for pods, at the URL that it
// returns.
func (k *kube) forward(target string) string {
	k.Helper()
	u, err := url.Parse(target)
	require.NoError(k, err)
	l, err := net.Listen("tcp", cluster.Gateway+":0")
	require.NoError(k, err)
	k.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return // closed
			}
			go join(from, u.Host)
		}
	}()
	return "http://" + l.Addr().String()
}

// join copies both ways until both are done.
func join(from net.Conn, address string) {
	defer from.Close()
	to, err := net.Dial("tcp", address)
	if err != nil {
		return // as if nobody listened
	}
	defer to.Close()
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(to, from) // a connection that broke has ended
		to.(*net.TCPConn).CloseWrite()
		close(done)
	}()
	_, _ = io.Copy(from, to)
	from.(*net.TCPConn).CloseWrite()
	<-done
}

type settings map[string]any

// values of the chart for one application below the bucket, with ticks only when
// they are asked for, except for the release "orders".
func (k *kube) values(app, jobManager string, more settings) map[string]any {
	set := settings{"s3-endpoint": k.s3ForPods, "s3-path-style": true, "s3-region": "us-east-1"}
	maps.Copy(set, more)
	return map[string]any{
		"app":        "s3://" + bucket + "/" + app,
		"jobmanager": jobManager,
		"settings":   set,
		"image":      map[string]any{"repository": strings.Split(image, ":")[0], "tag": strings.Split(image, ":")[1] + "-amd64", "pullPolicy": "Never"},
		"env":        []any{env("AWS_ACCESS_KEY_ID", k.s3.AccessKey), env("AWS_SECRET_ACCESS_KEY", k.s3.SecretKey)},
		// A Job that is looked at must not be tidied away when the next one ends.
		"cronjob": map[string]any{"suspend": app != "orders", "backoffLimit": 0, "successfulJobsHistoryLimit": 10, "failedJobsHistoryLimit": 10},
	}
}

// install installs or upgrades a release of the chart. The API server must not
// warn.
func (k *kube) install(ctx context.Context, release string, values map[string]any) {
	k.Helper()
	text, err := json.Marshal(values)
	require.NoError(k, err)
	file := filepath.Join(k.dir, "values.json")
	require.NoError(k, os.WriteFile(file, text, 0o600))
	_, warnings, err := k.Helm(ctx, "upgrade", "--install", release, chart, "--namespace", namespace, "--values", file)
	require.NoError(k, err)
	require.Empty(k, warnings)
}

func (k *kube) uninstall(ctx context.Context, release string) {
	k.Helper()
	_, _, err := k.Helm(ctx, "uninstall", release, "--namespace", namespace, "--wait")
	require.NoError(k, err)
}

// tick is what a tick's pod did.
type tick struct {
	exit int
	log  string
}

// tick runs one tick of a release to its end.
func (k *kube) tick(ctx context.Context, release string) tick {
	k.Helper()
	job := k.start(ctx, release)
	k.ended(ctx, job)
	return k.result(ctx, job)
}

// start starts a tick of a release, and returns its Job.
func (k *kube) start(ctx context.Context, release string) string {
	k.Helper()
	return k.startFrom(ctx, release+"-chkpin")
}

func (k *kube) startFrom(ctx context.Context, cronJob string) string {
	k.Helper()
	k.jobs++
	name := fmt.Sprintf("%s-%d", cronJob, k.jobs)
	k.kubectl(ctx, "create", "job", name, "--from=cronjob/"+cronJob, "--namespace", namespace)
	return name
}

var final = regexp.MustCompile(`\b(Complete|Failed)\b`)

// ended waits for a Job's end.
func (k *kube) ended(ctx context.Context, job string) {
	k.Helper()
	k.wait(ctx, 15*time.Minute, func() bool {
		return final.MatchString(k.kubectl(ctx, "get", "job", job, "--namespace", namespace, "--output", "jsonpath={.status.conditions[*].type}"))
	})
}

func (k *kube) result(ctx context.Context, job string) tick {
	k.Helper()
	code := k.kubectl(ctx, "get", "pods", "--namespace", namespace, "--selector", "job-name="+job,
		"--output", "jsonpath={.items[0].status.containerStatuses[0].state.terminated.exitCode}")
	exit, err := strconv.Atoi(code)
	require.NoError(k, err, "pod of %s: %q", job, code)
	return tick{exit, k.kubectl(ctx, "logs", "--namespace", namespace, "job/"+job)}
}

// wait polls until something holds.
func (k *kube) wait(ctx context.Context, most time.Duration, holds func() bool) {
	k.Helper()
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	poll := time.NewTicker(500 * time.Millisecond)
	defer poll.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			pods, _ := k.Kubectl(context.WithoutCancel(ctx), "", "get", "pods,jobs", "--all-namespaces")
			events, _ := k.Kubectl(context.WithoutCancel(ctx), "", "get", "events", "--all-namespaces", "--sort-by=.lastTimestamp")
			require.FailNow(k, "waited in vain", "%s\n%s", pods, events[max(0, len(events)-4000):])
		case <-poll.C:
		}
	}
}

func decodeSegment(text string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(text) }
