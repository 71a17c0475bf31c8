package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Memory is what a container used, as its cgroup counts: the pages of its
// processes, its part of the page cache, and the kernel's buffers for it.
type Memory struct {
	Peak  int64 // bytes, the most at any time
	Limit int64
	Hits  int64 // how often the limit was met, and pages were given back
}

// WatchMemory follows a container that runs until it has ended. The cgroup goes
// with the container, so what is returned was read up to 20 ms before.
func (c *Cluster) WatchMemory(ctx context.Context, container string) (m Memory, err error) {
	group, err := c.memoryCgroup(ctx, container)
	if err != nil {
		return m, err
	}
	// cgroup v1, then v2. The Hits of v2 stand in a file of several lines.
	peak, limit, hits := "memory.max_usage_in_bytes", "memory.limit_in_bytes", "memory.failcnt"
	if _, err := os.Stat(filepath.Join(group, peak)); err != nil {
		peak, limit, hits = "memory.peak", "memory.max", "memory.events"
	}
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		var now Memory
		for file, n := range map[string]*int64{peak: &now.Peak, limit: &now.Limit, hits: &now.Hits} {
			*n, err = readNumber(filepath.Join(group, file))
			if gone(err) && m.Peak > 0 {
				return m, nil
			}
			if err != nil {
				return m, fmt.Errorf("memory of %s: %w", container, err)
			}
		}
		m = now
		select {
		case <-ctx.Done():
			return m, ctx.Err()
		case <-again.C:
		}
	}
}

// memoryCgroup is the folder of a container's cgroup.
func (c *Cluster) memoryCgroup(ctx context.Context, container string) (string, error) {
	tasks, err := Run(ctx, "", "ctr", "--address="+c.containerd, "--namespace=k8s.io", "tasks", "list")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(tasks) { // id, process, state
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != container {
			continue
		}
		groups, err := os.ReadFile("/proc/" + fields[1] + "/cgroup")
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(groups)) { // number:controllers:path, with no controllers in v2
			part := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if len(part) == 3 && part[1] == "memory" {
				return filepath.Join("/sys/fs/cgroup/memory", part[2]), nil
			}
			if len(part) == 3 && part[1] == "" && strings.Contains(part[2], container) {
				return filepath.Join("/sys/fs/cgroup", part[2]), nil
			}
		}
	}
	return "", fmt.Errorf("container %s does not run, or has no cgroup of its own", container)
}

// readNumber reads a file that is a number, or has one in a line that begins
// with max, as memory.events has. "max" alone is no limit.
func readNumber(file string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	number := strings.TrimSpace(string(text))
	for line := range strings.Lines(number) {
		if n, found := strings.CutPrefix(strings.TrimSpace(line), "max "); found {
			number = n
		}
	}
	if number == "max" {
		return 0, nil
	}
	return strconv.ParseInt(number, 10, 64)
}

// gone reports whether a cgroup was removed, or is about to be.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV)
}
