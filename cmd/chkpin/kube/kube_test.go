//go:build kube

// Package kube shows chkpin in a real Kubernetes cluster on this machine: the
// image from the Dockerfile, the chart, and what happens to real pods.
//
//	make kube
//
// prints a table of scenarios with their times. It needs root, the programs that
// package cluster names, and Flink as package lab fetches it; what is missing
// fails the test with how to get it. With CHKPIN_KUBE=allow-missing it says so
// and passes.
package kube

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/cmd/chkpin/kube/cluster"
)

const (
	image     = "localhost/chkpin:0.0.0-kube"
	namespace = "pins"
)

// repository is the folder of the project.
const repository = "../../.."

// kube is the cluster of all scenarios.
type kube struct {
	*testing.T
	*cluster.Cluster
	images *cluster.Images
	dir    string
	bin    string
	rows   []row
	jobs   int // that were started
	site
}

// row is a line of the table.
type row struct {
	scenario, seen string
	took           time.Duration
}

func TestKubernetes(t *testing.T) {
	bin := filepath.Join(cache(t), "bin", "kubernetes-v1.36.3")
	if missing := cluster.Missing(bin); len(missing) > 0 {
		text := "NOT RUN, no pod was started. Missing here:\n  " + strings.Join(missing, "\n  ")
		if os.Getenv("CHKPIN_KUBE") != "allow-missing" {
			t.Fatal(text)
		}
		fmt.Fprintln(os.Stderr, text)
		return
	}
	dir, err := os.MkdirTemp("", "chkpin-kube-") // paths of sockets must be short
	require.NoError(t, err)
	k := &kube{T: t, dir: dir, bin: bin, images: cluster.NewImages(filepath.Join(dir, "images"))}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	t.Cleanup(k.print)

	k.step("cluster comes up", up)
	k.step("image from the Dockerfile", buildImage)
	k.step("S3 and Flink on the loopback", startSite)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			outer := k.T
			k.T = t
			defer func() { k.T = outer }()
			k.step(s.name, s.run)
		})
	}
}

// step does one thing, which says what was seen, for the table.
func (k *kube) step(name string, do func(*kube, context.Context) string) {
	k.Helper()
	ctx, cancel := context.WithTimeout(k.Context(), 5*time.Minute)
	defer cancel()
	began, seen := time.Now(), "FAILED"
	defer func() { k.rows = append(k.rows, row{name, seen, time.Since(began)}) }()
	seen = do(k, ctx)
}

func (k *kube) print() {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, r := range k.rows {
		fmt.Fprintf(table, "%s\t%.1f s\t%s\n", r.scenario, r.took.Seconds(), r.seen)
	}
	_ = table.Flush() // to memory
	k.Logf("scenarios\n%s", b.String())
}

// up starts the cluster, with namespaces whose pods must be restricted.
func up(k *kube, ctx context.Context) string {
	archive := filepath.Join(k.dir, "pause.tar")
	require.NoError(k, k.images.Busybox(ctx, cluster.PauseImage, `--entrypoint=["/bin/sleep","2147483647"]`))
	require.NoError(k, k.images.Export(ctx, cluster.PauseImage, archive))
	c, err := cluster.Start(ctx, filepath.Join(k.dir, "c"), k.bin)
	require.NoError(k, err)
	k.Cluster = c
	k.Cleanup(func() { require.NoError(k, c.Stop()) })
	require.NoError(k, c.Import(ctx, archive))
	for _, name := range []string{namespace, "orders", "flink"} { // the latter are the overlays'
		k.kubectl(ctx, "create", "namespace", name)
		k.kubectl(ctx, "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted", "pod-security.kubernetes.io/warn=restricted")
	}
	return strings.TrimSpace(k.kubectl(ctx, "get", "nodes", "--no-headers"))
}

// buildImage builds the Dockerfile twice, and for arm64 once.
func buildImage(k *kube, ctx context.Context) string {
	build := func(arch string) string {
		id, err := k.images.Build(ctx, repository, image+"-"+arch, arch, "0.0.0-kube", "none")
		require.NoError(k, err)
		return id
	}
	first := build("amd64")
	require.Equal(k, first, build("amd64"), "the same commit makes the same image")
	build("arm64")
	archive := filepath.Join(k.dir, "chkpin.tar")
	require.NoError(k, k.images.Export(ctx, image+"-amd64", archive))
	info, err := os.Stat(archive)
	require.NoError(k, err)
	require.LessOrEqual(k, info.Size(), int64(35<<20), "image")
	require.NoError(k, k.Import(ctx, archive))
	return fmt.Sprintf("%.1f MB, reproducible; arm64 builds", float64(info.Size())/1e6)
}

func (k *kube) kubectl(ctx context.Context, args ...string) string {
	k.Helper()
	out, err := k.Kubectl(ctx, "", args...)
	require.NoError(k, err)
	return out
}

// cache is where package lab and "make kube-tools" keep what they fetch.
func cache(t *testing.T) string {
	if dir := os.Getenv("CHKPIN_LAB_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	require.NoError(t, err)
	return filepath.Join(dir, "chkpin-lab")
}
