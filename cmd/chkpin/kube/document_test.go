//go:build kube

package kube

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore/storetest/servers"
	"github.com/chkpin/chkpin/cmd/chkpin/kube/cluster"
)

var record = flag.String("record", "", "`file` to write the table of scenarios to, when all of them were run and passed")

// part is what the scenarios ran on.
type part struct{ name, version string }

// noteVersions asks the parts what they are.
func (k *kube) noteVersions(ctx context.Context) {
	k.Helper()
	node := func(field string) string {
		return k.kubectl(ctx, "get", "nodes", "--output=jsonpath={.items[0].status.nodeInfo."+field+"}")
	}
	says := func(program string, args ...string) string {
		out, err := cluster.Run(ctx, "", program, args...)
		require.NoError(k, err)
		return firstLine(out)
	}
	word := func(text string, n int) string { return strings.Fields(text)[n] }
	k.parts = []part{
		{"Kubernetes", node("kubeletVersion")},
		{"containerd", strings.TrimPrefix(node("containerRuntimeVersion"), "containerd://")},
		{"runc", word(says("runc", "--version"), 2)},
		{"etcd", word(says("etcd", "--version"), 2)},
		{"buildah", word(says("buildah", "--version"), 2)},
		{"Linux", node("kernelVersion") + ", " + cgroups()},
		{"Flink", release},
		{"versitygw (S3)", servers.VersityVersion},
	}
	helm, _, err := k.Helm(ctx, "version", "--short")
	require.NoError(k, err)
	k.parts = append(k.parts, part{"Helm", firstLine(helm)})
}

func cgroups() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "cgroup v2"
	}
	return "cgroup v1"
}

// document is docs/kube-scenarios.md.
func (k *kube) document() string {
	var b strings.Builder
	var took time.Duration
	for _, r := range k.rows {
		took += r.took
	}
	fmt.Fprintf(&b, `# What was seen on real pods

`+"`make kube`"+` wrote this on %s, in a run in which every scenario passed: a cluster of one node on a machine with %d CPUs, %s in all.
Times are of that run, with whatever else the machine did. Each scenario is a function in [cmd/chkpin/kube](../cmd/chkpin/kube).

| scenario | seconds | seen |
| --- | ---: | --- |
`, time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), took.Round(time.Second))
	cell := strings.NewReplacer("|", `\|`, "\n", " ")
	for _, r := range k.rows {
		fmt.Fprintf(&b, "| %s | %.0f | %s |\n", cell.Replace(r.scenario), r.took.Seconds(), cell.Replace(r.seen))
	}
	b.WriteString("\n| part | version |\n| --- | --- |\n")
	for _, p := range k.parts {
		fmt.Fprintf(&b, "| %s | %s |\n", p.name, p.version)
	}
	b.WriteString(`
The programs of Kubernetes are built from its module and unchanged; images are made by buildah from what is on the machine, and none is pulled.

**Not shown**: Services and DNS (pods reach S3 and JobManagers by address), a CNI that enforces a NetworkPolicy (the API server takes ours, and that is all), the
webhooks of a cloud (a projected token and a stand-in of its token service take their place), the Flink Kubernetes Operator at work (its own definitions take our
FlinkDeployment), the Prometheus Operator (alerts are evaluated by ` + "`promtool`, `make chart`" + `), more than one node.
`)
	return b.String()
}
