package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// PauseImage holds the namespaces of a pod. The cluster makes it from busybox.
const PauseImage = "registry.k8s.io/pause:3.10"

// startNode makes the network of the pods, starts containerd and the kubelet, and
// waits until the node takes pods.
func (c *Cluster) startNode(ctx context.Context) error {
	for _, args := range [][]string{
		{"link", "add", bridge, "type", "bridge"},
		{"address", "add", Gateway + "/24", "dev", bridge},
		{"link", "set", bridge, "up"},
	} {
		if _, err := Run(ctx, "", "ip", args...); err != nil {
			return err
		}
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	health, err := freePort()
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"containerd.toml": containerdConfig,
		"cni/net.conf":    networkConfig,
		"kubelet.yaml":    kubeletConfig,
	} {
		text = strings.NewReplacer("DIR", c.dir, "PLUGINS", plugins, "PAUSE", PauseImage, "BRIDGE", bridge, "SUBNET", subnet,
			"HEALTHPORT", fmt.Sprint(health), "PORT", fmt.Sprint(port)).Replace(text)
		file := filepath.Join(c.dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := c.begin("containerd", "--config="+filepath.Join(c.dir, "containerd.toml")); err != nil {
		return err
	}
	if err := c.wait(ctx, "containerd", time.Minute, func(ctx context.Context) error {
		_, err := Run(ctx, "", "ctr", "--address="+c.containerd, "version")
		return err
	}); err != nil {
		return err
	}
	if err := c.begin(filepath.Join(c.bin, "kubelet"), "--config="+filepath.Join(c.dir, "kubelet.yaml"),
		"--kubeconfig="+filepath.Join(c.dir, "node.kubeconfig"), "--hostname-override="+node, "--root-dir="+filepath.Join(c.dir, "kubelet")); err != nil {
		return err
	}
	return c.wait(ctx, "node", 2*time.Minute, func(ctx context.Context) error {
		if _, err := c.Kubectl(ctx, "", "wait", "--for=condition=Ready", "node/"+node, "--timeout=5s"); err != nil {
			return err
		}
		_, err := c.Kubectl(ctx, "", "get", "serviceaccount", "default")
		return err
	})
}

// restrict_oom_score_adj, because a root without CAP_SYS_RESOURCE cannot lower
// the score.
const containerdConfig = `version = 2
root = "DIR/containerd/root"
state = "DIR/containerd/state"
[grpc]
  address = "DIR/containerd.sock"
[ttrpc]
  address = "DIR/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "DIR/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "PAUSE"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "PLUGINS"
    conf_dir = "DIR/cni"
`

const networkConfig = `{
  "cniVersion": "0.4.0", "name": "chkpin", "type": "bridge", "bridge": "BRIDGE", "isGateway": true,
  "ipam": {"type": "host-local", "dataDir": "DIR/addresses", "ranges": [[{"subnet": "SUBNET"}]], "routes": [{"dst": "0.0.0.0/0"}]}
}
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
oomScoreAdj: 0
maxOpenFiles: 20000
makeIPTablesUtilChains: false
address: 127.0.0.1
port: PORT
healthzPort: HEALTHPORT
authentication: {anonymous: {enabled: false}, x509: {clientCAFile: DIR/ca.crt}}
tlsCertFile: DIR/node.crt
tlsPrivateKeyFile: DIR/node.key
containerRuntimeEndpoint: unix://DIR/containerd.sock
imageServiceEndpoint: unix://DIR/containerd.sock
podLogsDir: DIR/podlogs
volumePluginDir: DIR/volumeplugins
resolvConf: ""
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi}
syncFrequency: 5s
`
