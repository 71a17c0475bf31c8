package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// usage is what one run of a program used, as command rusage reports it.
type usage struct {
	Started time.Time
	Wall    time.Duration
	CPU     time.Duration // user and system, with all children that were waited for
	RSS     int64         // bytes: the most that one of these processes had
	Exit    int
}

// program is a command line whose runs are measured.
type program struct {
	meter string   // the path of rusage
	env   []string // all of it
	args  []string
}

// run runs the program once. A run that fails is no measurement.
func (p program) run(ctx context.Context) (u usage, err error) {
	result, write, err := os.Pipe()
	if err != nil {
		return u, err
	}
	defer result.Close()
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, p.meter, p.args...)
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = p.env, &output, &output, []*os.File{write}
	// Both end when the benchmark is interrupted, rusage and what it runs.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err = cmd.Run()
	write.Close() // what stands in the pipe is small
	if err != nil {
		return u, fmt.Errorf("%q: %w\n%s", p.args, err, tail(output.Bytes()))
	}
	if err := json.NewDecoder(result).Decode(&u); err != nil {
		return u, fmt.Errorf("%q: reading its usage: %w", p.args, err)
	}
	if u.Exit != 0 {
		return u, fmt.Errorf("%q: exit code %d\n%s", p.args, u.Exit, tail(output.Bytes()))
	}
	return u, nil
}

// tail is the end of an output, enough to tell what went wrong.
func tail(output []byte) []byte { return output[max(0, len(output)-2000):] }

// usages are the runs of one program.
type usages []usage

// median is that of each figure by itself.
func (us usages) median() usage {
	return usage{
		Wall: median(us, func(u usage) time.Duration { return u.Wall }),
		CPU:  median(us, func(u usage) time.Duration { return u.CPU }),
		RSS:  median(us, func(u usage) int64 { return u.RSS }),
	}
}

// median is the middle of a figure, the greater one of two.
func median[E any, N int64 | time.Duration](of []E, figure func(E) N) N {
	var all []N
	for _, e := range of {
		all = append(all, figure(e))
	}
	slices.Sort(all)
	return all[len(all)/2]
}
