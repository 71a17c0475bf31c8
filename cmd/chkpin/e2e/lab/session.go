package lab

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
)

// WaitReady waits until the TaskManager of a session cluster offers its slots: from then on jobs can be submitted.
func (c *Cluster) WaitReady(ctx context.Context) error {
	return c.poll(ctx, "a slot", func() (bool, error) {
		var overview struct {
			Slots int `json:"slots-total"`
		}
		err := c.call(ctx, http.MethodGet, "/overview", &overview)
		return overview.Slots > 0, err
	})
}

// Submit runs a job on a session cluster, with "flink run -d". runArgs are options of flink run, such as -s and a path.
func (c *Cluster) Submit(ctx context.Context, job Job, runArgs ...string) error {
	args := append([]string{"run", "-d", "-c", job.Class}, runArgs...)
	args = append(args, job.Jar)
	_, err := c.Flink(ctx, append(args, job.Args...)...)
	return err
}

// Flink runs the flink command, such as Flink(ctx, "list"), and returns what it prints, which is part of the error,
// too.
func (c *Cluster) Flink(ctx context.Context, args ...string) (output string, err error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, c.CLI, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("lab: flink %s: %w\n%s", strings.Join(args, " "), err, &out)
	}
	return out.String(), nil
}

// writeCommand writes a shell script that becomes a command, with arguments of its own.
func writeCommand(path string, env, command []string) error {
	var text strings.Builder
	fmt.Fprintln(&text, "#!/bin/sh")
	for _, variable := range env {
		name, value, _ := strings.Cut(variable, "=")
		fmt.Fprintf(&text, "export %s=%s\n", name, quoted(value))
	}
	text.WriteString("exec")
	for _, word := range command {
		text.WriteString(" " + quoted(word))
	}
	fmt.Fprintln(&text, ` "$@"`)
	return os.WriteFile(path, []byte(text.String()), 0o755)
}

// quoted is a word for a shell.
func quoted(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }
