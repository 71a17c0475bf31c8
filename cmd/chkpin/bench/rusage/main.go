// Command rusage runs a program to its end and writes, as JSON to file
// descriptor 3, what it used.
//
//	rusage PROGRAM ARGUMENT…
//
// It stands between the benchmark and the program because Linux counts the
// memory of the process that started a program as the program's own, up to its
// execve: this one is small.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// usage is what package main of the benchmark reads.
type usage struct {
	Started time.Time
	Wall    time.Duration
	CPU     time.Duration // user and system, with all children that were waited for
	RSS     int64         // bytes: the most that one of these processes had
	Exit    int
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: rusage PROGRAM ARGUMENT…")
		os.Exit(80)
	}
	if err := run(exec.Command(os.Args[1], os.Args[2:]...)); err != nil {
		fmt.Fprintf(os.Stderr, "rusage: %v\n", err)
		os.Exit(1)
	}
}

func run(cmd *exec.Cmd) error {
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = cmd.Wait() // its error repeats the exit code
	wall := time.Since(started)
	r := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return json.NewEncoder(os.NewFile(3, "result")).Encode(usage{
		Started: started,
		Wall:    wall,
		CPU:     cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(),
		RSS:     int64(r.Maxrss) * rssUnit(),
		Exit:    cmd.ProcessState.ExitCode(),
	})
}

// rssUnit: Linux counts KiB, others bytes.
func rssUnit() int64 {
	if runtime.GOOS == "linux" {
		return 1024
	}
	return 1
}
