package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
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

// Run uploads a job's jar to a session cluster and runs it through its REST API, as a platform does that has no flink
// command. The restore path may be empty, the claim mode too; releases before 1.15 know no mode.
func (c *Cluster) Run(ctx context.Context, job Job, restorePath, claimMode string) error {
	var form bytes.Buffer
	parts := multipart.NewWriter(&form)
	part, err := parts.CreateFormFile("jarfile", filepath.Base(job.Jar))
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	content, err := os.ReadFile(job.Jar)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if _, err := part.Write(content); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := parts.Close(); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	var uploaded struct{ Filename string }
	if err := c.send(ctx, http.MethodPost, "/jars/upload", parts.FormDataContentType(), &form, &uploaded); err != nil {
		return err
	}

	request := map[string]any{
		"entryClass": job.Class, "programArgsList": job.Args,
		"parallelism": parallelism, // else it is 1, whatever the cluster's default is
	}
	if restorePath != "" {
		request["savepointPath"] = restorePath
	}
	if claimMode != "" {
		request[c.claimModeField] = claimMode
	}
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	// The JobManager answers when the job is submitted, until when it loads classes and runs main.
	return c.send(ctx, http.MethodPost, "/jars/"+path.Base(uploaded.Filename)+"/run", "application/json", bytes.NewReader(body), nil)
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
