package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// machine is what a cluster changes outside of its folder, as it was before.
type machine struct {
	dir        string
	sysctls    map[string]string
	namespaces []string // of networks
	cgroups    []string // folders that containerd makes
}

// sysctls that the kubelet and the bridge plugin set.
var sysctls = []string{
	"/proc/sys/vm/overcommit_memory", "/proc/sys/vm/panic_on_oom", "/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops",
	"/proc/sys/kernel/keys/root_maxkeys", "/proc/sys/kernel/keys/root_maxbytes", "/proc/sys/net/ipv4/ip_forward",
}

const (
	networks = "/run/netns"
	cgroups  = "/sys/fs/cgroup/*/k8s.io"
)

func remember(dir string) (*machine, error) {
	m := &machine{dir: dir, sysctls: map[string]string{}}
	for _, file := range sysctls {
		text, err := os.ReadFile(file)
		if err == nil {
			m.sysctls[file] = string(text)
		}
	}
	var err error
	if m.namespaces, err = filepath.Glob(networks + "/*"); err != nil {
		return nil, err
	}
	m.cgroups, err = filepath.Glob(cgroups)
	return m, err
}

// restore puts everything back. What stays behind is in the error.
func (m *machine) restore(ctx context.Context) error {
	var errs []error
	if _, err := os.Stat("/sys/class/net/" + bridge); err == nil {
		_, err := Run(ctx, "", "ip", "link", "delete", bridge)
		errs = append(errs, err)
	}
	errs = append(errs, m.unmount(ctx, m.dir))
	if now, err := filepath.Glob(networks + "/cni-*"); err == nil {
		for _, ns := range now {
			if !slices.Contains(m.namespaces, ns) {
				errs = append(errs, m.unmount(ctx, ns), os.Remove(ns))
			}
		}
	}
	if now, err := filepath.Glob(cgroups); err == nil {
		for _, group := range now {
			if !slices.Contains(m.cgroups, group) {
				errs = append(errs, removeCgroup(group))
			}
		}
	}
	for file, was := range m.sysctls {
		if now, err := os.ReadFile(file); err == nil && string(now) != was {
			errs = append(errs, os.WriteFile(file, []byte(was), 0o644))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cluster: putting the machine back: %w", err)
	}
	return nil
}

// unmount undoes the mounts at a path and below it, the last one first.
func (m *machine) unmount(ctx context.Context, path string) error {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer file.Close()
	var points []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && (fields[4] == path || strings.HasPrefix(fields[4], path+"/")) {
			points = append(points, fields[4])
		}
	}
	var errs []error
	for _, point := range slices.Backward(points) {
		_, err := Run(ctx, "", "umount", "--lazy", point)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// probeCgroups makes a cgroup that limits memory, and removes it.
func probeCgroups() error {
	for _, root := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} { // v1, v2
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
			continue
		}
		probe, err := os.MkdirTemp(root, "chkpin-probe-")
		if err != nil {
			return err
		}
		return os.Remove(probe)
	}
	return errors.New("none are mounted at /sys/fs/cgroup")
}

// removeCgroup removes a cgroup and those in it, which must be empty.
func removeCgroup(group string) error {
	var folders []string
	err := filepath.WalkDir(group, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			folders = append(folders, name)
		}
		return err
	})
	for _, folder := range slices.Backward(folders) {
		err = errors.Join(err, os.Remove(folder))
	}
	return err
}
