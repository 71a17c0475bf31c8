package main

import (
	"bytes"
	"os"
	"runtime/debug"
	"strconv"
)

// cgroupLimits are where a container finds its memory limit: cgroup v2, then v1.
var cgroupLimits = []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}

// fitContainer tells the runtime the memory limit of the container, all but a
// tenth: it then collects garbage more often before the kernel ends the process.
// GOMEMLIMIT in the environment wins.
func fitContainer(files []string) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		// "max" in v2 and the largest number of pages in v1 are no limit.
		limit, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
		if err == nil && limit > 0 && limit < 1<<60 {
			lowerMemoryLimit(limit / 10 * 9)
		}
		return
	}
}

// lowerMemoryLimit sets the limit of the runtime unless it is lower already.
func lowerMemoryLimit(limit int64) {
	if limit < debug.SetMemoryLimit(-1) {
		debug.SetMemoryLimit(limit)
	}
}
