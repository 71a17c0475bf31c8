package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/chkpin/chkpin/checkpoint"
)

type execCommand struct {
	App appURI `arg:"" placeholder:"URI" env:"CHKPIN_APP" help:"The application's folder."`
	restoreChoice
	At      int      `placeholder:"N" default:"-1" help:"Insert the arguments before word N of the command (0 is the program), for commands chkpin does not know."`
	Command []string `arg:"" passthrough:"" help:"What to start: docker-entrypoint.sh standalone-job …, flink run …, after --."`
}

// Run replaces this process by the command, with the arguments that restore the
// pin among its own. Signals and the exit code are then the command's.
func (c *execCommand) Run(ctx context.Context, env *environment) error {
	command := c.Command
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		return usagef("chkpin exec <app> -- docker-entrypoint.sh standalone-job …", "no command to start")
	}
	at, err := c.position(command)
	if err != nil {
		return err
	}
	r, err := checkpoint.Resolve(ctx, env.store, c.App.URI, c.options(env))
	switch {
	case errors.Is(err, checkpoint.ErrNoPin) && c.AllowFirstStart:
		env.sayFirstStart(ctx, c.App.URI)
	case err != nil:
		return c.explain(err)
	default:
		for _, text := range r.Warnings {
			env.log.Warn(text)
		}
		command = slices.Insert(slices.Clone(command), at, r.Args()...)
	}
	program, err := exec.LookPath(command[0])
	if err != nil {
		return usagef("is it in the image, and on PATH?", "%v", err)
	}
	env.log.Info("starting", "program", program, "restore", r.Path.String())
	if err := syscall.Exec(program, command, os.Environ()); err != nil {
		return fmt.Errorf("starting %s: %w", program, err)
	}
	return nil
}

// actions are the words after which Flink's own options stand, whatever script
// or wrapper they are given to.
var actions = []string{"standalone-job", "run", "run-application"}

// position finds where Flink still reads options as its own: right after its
// action. Its parser stops at the first word it does not know and hands all that
// follows to the job (measured on 1.20.5 and 2.3.0).
func (c *execCommand) position(command []string) (int, error) {
	if c.At >= 0 {
		if c.At == 0 || c.At > len(command) {
			return 0, usagef("word 0 is the program; the arguments go before word N", "--at %d is not within the %d words of the command", c.At, len(command))
		}
		return c.At, nil
	}
	for i, word := range command[1:] {
		if slices.Contains(actions, word) {
			return i + 2, nil
		}
	}
	return 0, usagef("say with --at N where the arguments go", "none of the words %s is in the command, so chkpin does not know where Flink reads options", strings.Join(actions, ", "))
}
