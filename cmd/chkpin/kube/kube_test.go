//go:build kube

// Package kube shows chkpin in a real Kubernetes cluster on this machine: the
// image from the Dockerfile, the chart, and what happens to real pods.
//
//	make kube
//
// prints a table of scenarios with their times, and writes it to
// docs/kube-scenarios.md when all passed. It needs root, the programs that
// package cluster names, and Flink as package lab fetches it. Where something is
// missing it shows what an API server without a node can, says what was not run
// and how to get what is missing, and fails. With CHKPIN_KUBE=allow-missing it
// says so and passes.
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
	kubernetes = "v1.36.3"

	image     = "localhost/chkpin:0.0.0-kube"
	namespace = "pins"
)

// repository is the folder of the project.
const repository = "../../.."

// patience is how long a scenario may take on a busy machine.
const patience = 20 * time.Minute

// kube is the cluster of all scenarios.
type kube struct {
	*testing.T
	*cluster.Cluster
	images *cluster.Images
	dir    string
	bin    string
	rows   []row
	parts  []part // versions of what runs
	jobs   int    // that were started
	site
}

// row is a line of the table.
type row struct {
	scenario, seen string
	took           time.Duration
}

func TestKubernetes(t *testing.T) {
	bin := filepath.Join(cache(t), "bin", "kubernetes-"+kubernetes)
	server, node := cluster.Missing(t.Context(), bin)
	dir, err := os.MkdirTemp("", "chkpin-kube-") // paths of sockets must be short
	require.NoError(t, err)
	k := &kube{T: t, dir: dir, bin: bin, images: cluster.NewImages(filepath.Join(dir, "images"))}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	t.Cleanup(k.print)

	whole := len(server)+len(node) == 0
	switch {
	case whole:
		k.step("cluster comes up", up)
		k.step("image from the Dockerfile", buildImage)
		k.step("S3 and Flink on the loopback", startSite)
	case len(server) == 0:
		k.step("API server comes up, without a node", serverUp)
	}
	var not []string
	for _, s := range scenarios {
		if !whole && (len(server) > 0 || !s.server) {
			not = append(not, s.name)
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			outer := k.T
			k.T = t
			defer func() { k.T = outer }()
			k.step(s.name, s.run)
		})
	}
	if whole {
		return
	}
	text := fmt.Sprintf("NOT RUN, no pod was started:\n  %s\nMissing here:\n  %s",
		strings.Join(not, "\n  "), strings.Join(append(server, node...), "\n  "))
	if os.Getenv("CHKPIN_KUBE") != "allow-missing" {
		t.Error(text)
		return
	}
	fmt.Fprintln(os.Stderr, text)
}

// step does one thing, which says what was seen, for the table.
func (k *kube) step(name string, do func(*kube, context.Context) string) {
	k.Helper()
	ctx, cancel := context.WithTimeout(k.Context(), patience)
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
	if *record != "" && !k.Failed() && len(k.rows) > len(scenarios) {
		require.NoError(k, os.WriteFile(*record, []byte(k.document()), 0o644))
	}
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
	k.namespaces(ctx)
	k.noteVersions(ctx)
	return strings.TrimSpace(k.kubectl(ctx, "get", "nodes", "--no-headers"))
}

// serverUp starts the API server alone.
func serverUp(k *kube, ctx context.Context) string {
	c, err := cluster.StartServer(ctx, filepath.Join(k.dir, "c"), k.bin)
	require.NoError(k, err)
	k.Cluster = c
	k.Cleanup(func() { require.NoError(k, c.Stop()) })
	k.namespaces(ctx)
	return "ready"
}

// namespaces makes those that chart and overlays are for. Their pods must be
// restricted.
func (k *kube) namespaces(ctx context.Context) {
	k.Helper()
	for _, name := range []string{namespace, "orders", "flink"} { // the latter are the overlays'
		k.kubectl(ctx, "create", "namespace", name)
		k.kubectl(ctx, "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted", "pod-security.kubernetes.io/warn=restricted")
	}
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
	seen, err := k.images.Inspect(ctx, image+"-amd64", `{{.OCIv1.Config.User}} {{index .OCIv1.Config.Labels "org.opencontainers.image.version"}} {{index .OCIv1.Config.Labels "org.opencontainers.image.revision"}}`)
	require.NoError(k, err)
	require.Equal(k, "65532:65532 0.0.0-kube none", seen, "user and labels")
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
