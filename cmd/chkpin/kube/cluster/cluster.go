// Package cluster brings a Kubernetes cluster of one node up on this machine,
// for tests: etcd, API server, controller manager, scheduler, kubelet, containerd
// and runc, all of them the real ones. Pods have addresses in a network of their
// own, and reach this machine at [Gateway].
//
// There are no Services with addresses, no DNS, no image pulls, and nothing
// enforces a NetworkPolicy.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Gateway is the address of this machine in the network of the pods.
const Gateway = "10.213.77.1"

const (
	bridge   = "chkpin-kube"
	subnet   = "10.213.77.0/24"
	services = "10.214.0.0/16"
	node     = "localhost" // the kubelet's name and the name in its certificate
)

const plugins = "/usr/lib/cni"

// What the API server needs, and what a node and what runs on it need more:
// programs of the distribution, and those that "make kube-tools" makes.
var (
	serverPrograms = []string{"etcd"}
	serverBuilt    = []string{"kube-apiserver", "kubectl", "helm"}
	nodePrograms   = []string{"containerd", "ctr", "runc", "buildah", "ip", "busybox", "iptables", "mount", "umount", "unshare"}
	nodeBuilt      = []string{"kube-controller-manager", "kube-scheduler", "kubelet"}
)

const install = ": apt-get install etcd-server containerd runc buildah iproute2 busybox-static containernetworking-plugins iptables"

// Missing says what this machine does not have: of what the API server needs,
// see [StartServer], and of what a cluster with a node needs beside it.
func Missing(ctx context.Context, bin string) (server, node []string) {
	server = absent(bin, serverPrograms, serverBuilt)
	node = absent(bin, nodePrograms, nodeBuilt)
	if _, err := os.Stat(filepath.Join(plugins, "bridge")); err != nil {
		node = append(node, filepath.Join(plugins, "bridge")+install)
	}
	if os.Getuid() != 0 {
		return server, append(node, "root: containers need mounts, namespaces and cgroups")
	}
	if _, stderr, err := run(ctx, "", "unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "true"); err != nil {
		node = append(node, "namespaces for containers: "+strings.TrimSpace(stderr))
	}
	if err := probeCgroups(); err != nil {
		node = append(node, "cgroups for containers: "+err.Error())
	}
	return server, node
}

func absent(bin string, programs, built []string) (missing []string) {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p+install)
		}
	}
	for _, p := range built {
		if _, err := os.Stat(filepath.Join(bin, p)); err != nil {
			missing = append(missing, p+": make kube-tools")
		}
	}
	return missing
}

// Cluster is one that runs. Stop must be called.
type Cluster struct {
	dir, bin, logs string
	server         string
	containerd     string // its socket
	kubeconfig     string
	configs        map[string]string // kubeconfig files, by whose they are
	processes      []*process        // in the order of starting
	machine        *machine
}

// Start brings a cluster up in a folder of its own, from the programs in bin.
func Start(ctx context.Context, dir, bin string) (*Cluster, error) {
	return start(ctx, dir, bin, (*Cluster).startServer, (*Cluster).startControllers, (*Cluster).startNode)
}

// StartServer brings etcd and the API server up and nothing else: objects are
// judged and kept, and nothing comes of them. It needs no rights.
func StartServer(ctx context.Context, dir, bin string) (*Cluster, error) {
	return start(ctx, dir, bin, (*Cluster).startServer)
}

func start(ctx context.Context, dir, bin string, parts ...func(*Cluster, context.Context) error) (c *Cluster, err error) {
	c = &Cluster{dir: dir, bin: bin, logs: filepath.Join(dir, "logs"), containerd: filepath.Join(dir, "containerd.sock")}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if c.machine, err = remember(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	for _, part := range parts {
		if err := part(c, ctx); err != nil {
			return c, fmt.Errorf("cluster: %w", err)
		}
	}
	return c, nil
}

func (c *Cluster) startServer(ctx context.Context) error {
	if err := os.MkdirAll(c.logs, 0o755); err != nil {
		return err
	}
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	pki, err := newAuthority(c.dir)
	if err != nil {
		return err
	}
	c.server = fmt.Sprintf("https://127.0.0.1:%d", ports[0])
	c.configs = map[string]string{}
	for _, id := range []struct{ name, user, group string }{
		{"apiserver", "kube-apiserver", ""},
		{"admin", "admin", "system:masters"},
		{"kubelet-client", "kube-apiserver-kubelet-client", "system:masters"},
		{"controllers", "system:kube-controller-manager", ""},
		{"scheduler", "system:kube-scheduler", ""},
		{"node", "system:node:" + node, "system:nodes"},
	} {
		if err := pki.issue(id.name, id.user, id.group); err != nil {
			return err
		}
		if c.configs[id.name], err = pki.kubeconfig(id.name, c.server); err != nil {
			return err
		}
	}
	c.kubeconfig = c.configs["admin"]
	etcd, peer := fmt.Sprintf("http://127.0.0.1:%d", ports[1]), fmt.Sprintf("http://127.0.0.1:%d", ports[2])
	at := c.at
	if err := c.begin("etcd", "--name=chkpin", "--data-dir="+at("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+etcd, "--advertise-client-urls="+etcd,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=chkpin="+peer); err != nil {
		return err
	}
	if err := c.begin(filepath.Join(c.bin, "kube-apiserver"), "--etcd-servers="+etcd,
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", ports[0]),
		"--endpoint-reconciler-type=none", "--service-cluster-ip-range="+services, "--allow-privileged=true",
		"--client-ca-file="+at("ca.crt"), "--tls-cert-file="+at("apiserver.crt"), "--tls-private-key-file="+at("apiserver.key"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+at("sa.pub"),
		"--service-account-signing-key-file="+at("sa.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--kubelet-client-certificate="+at("kubelet-client.crt"), "--kubelet-client-key="+at("kubelet-client.key"),
		"--kubelet-certificate-authority="+at("ca.crt"), "--kubelet-preferred-address-types=Hostname"); err != nil {
		return err
	}
	return c.wait(ctx, "API server", 2*time.Minute, func(ctx context.Context) error {
		_, err := c.Kubectl(ctx, "", "get", "--raw", "/readyz")
		return err
	})
}

func (c *Cluster) at(file string) string { return filepath.Join(c.dir, file) }

func (c *Cluster) startControllers(context.Context) error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	at, configs := c.at, c.configs
	if err := c.begin(filepath.Join(c.bin, "kube-controller-manager"), "--kubeconfig="+configs["controllers"],
		"--authentication-kubeconfig="+configs["controllers"], "--authorization-kubeconfig="+configs["controllers"],
		"--service-account-private-key-file="+at("sa.key"), "--root-ca-file="+at("ca.crt"), "--use-service-account-credentials=true",
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", ports[0]), "--leader-elect=false"); err != nil {
		return err
	}
	return c.begin(filepath.Join(c.bin, "kube-scheduler"), "--kubeconfig="+configs["scheduler"],
		"--authentication-kubeconfig="+configs["scheduler"], "--authorization-kubeconfig="+configs["scheduler"],
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", ports[1]), "--leader-elect=false")
}

// Kubectl runs kubectl as an administrator.
func (c *Cluster) Kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	return Run(ctx, stdin, filepath.Join(c.bin, "kubectl"), append([]string{"--kubeconfig=" + c.kubeconfig}, args...)...)
}

// Helm runs helm as an administrator. It finds no configuration but this
// cluster's. The warnings are the API server's.
func (c *Cluster) Helm(ctx context.Context, args ...string) (out, warnings string, err error) {
	home := "HELM_CACHE_HOME=" + filepath.Join(c.dir, "helm")
	return run(ctx, "", "env", append([]string{home, filepath.Join(c.bin, "helm"), "--kubeconfig=" + c.kubeconfig}, args...)...)
}

// Import gives the node an image from a docker-archive.
func (c *Cluster) Import(ctx context.Context, archive string) error {
	_, err := Run(ctx, "", "ctr", "--address="+c.containerd, "--namespace=k8s.io", "images", "import", archive)
	return err
}

// Stop ends everything, puts back what was changed on the machine, and tells
// what could not be.
func (c *Cluster) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var errs []error
	if c.kubeconfig != "" && len(c.processes) > 4 { // with a node, whose pods have networks and mounts
		for _, what := range []string{"cronjobs,jobs,deployments", "pods"} {
			if _, err := c.Kubectl(ctx, "", "delete", what, "--all", "--all-namespaces", "--grace-period=1", "--timeout=60s"); err != nil {
				errs = append(errs, err)
			}
		}
		if tasks, err := Run(ctx, "", "ctr", "--address="+c.containerd, "--namespace=k8s.io", "tasks", "list", "--quiet"); err == nil {
			c.stopPart("kubelet")
			for _, id := range strings.Fields(tasks) {
				_, _ = Run(ctx, "", "ctr", "--address="+c.containerd, "--namespace=k8s.io", "tasks", "delete", "--force", id)
			}
		}
	}
	for _, p := range slices.Backward(c.processes) {
		p.stop()
	}
	return errors.Join(append(errs, c.machine.restore(ctx))...)
}

func (c *Cluster) stopPart(name string) {
	for _, p := range c.processes {
		if p.name == name {
			p.stop()
		}
	}
}

// Logs is the end of what each part logged.
func (c *Cluster) Logs() string {
	var b strings.Builder
	for _, p := range c.processes {
		fmt.Fprintf(&b, "--- %s\n%s\n", p.name, p.tail())
	}
	return b.String()
}
