package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/cmd/chkpin/manifest"
)

type execCommand struct {
	appChoice
	restoreChoice
	At int `placeholder:"N" default:"-1" help:"Insert --fromSavepoint and the path before word N of the command (0 is the program), for commands chkpin does not know."`

	command []string // what follows --
}

// Help implements [kong.HelpProvider].
func (c *execCommand) Help() string {
	return `The command follows --. It is started in the place of chkpin, so signals and the exit code are its own. Where it is told what to restore is decided by the word in it that begins Flink's options: standalone-job, run, run-application, standalone-job.sh start-foreground, or the class of the entry point.

  $ chkpin exec --allow-first-start s3://bucket/orders -- /docker-entrypoint.sh standalone-job --job-classname Orders
  $ chkpin exec --flink-version 1.20 s3://bucket/orders -- flink run -d orders.jar
  $ chkpin exec --at 2 s3://bucket/orders -- my-entrypoint start --job-classname Orders`
}

const hintNoCommand = "the command to start follows --: chkpin exec <app> -- docker-entrypoint.sh standalone-job …"

// Run replaces this process by the command, with the arguments that restore the
// pin among its own. Signals and the exit code are then the command's.
func (c *execCommand) Run(ctx context.Context, env *environment) error {
	if len(c.command) == 0 {
		return usagef(hintNoCommand, "no command to start")
	}
	place, err := c.place()
	if err != nil {
		return err
	}
	program, err := exec.LookPath(c.command[0])
	if err != nil {
		return usagef("is it in the image, and on PATH?", "%v", err)
	}
	r, err := c.restored(ctx, env, c.uris())
	if err != nil {
		return err
	}
	command := c.command
	if !r.Path.IsZero() {
		command = slices.Insert(slices.Clone(command), place.at, place.args(r, c.FlinkVersion)...)
	}
	env.log.Info("starting", "program", program, "restore", r.Path.String())
	if err := syscall.Exec(program, command, os.Environ()); err != nil {
		return fmt.Errorf("starting %s: %w", program, err)
	}
	return nil
}

// place is where a command is told what to restore.
type place struct {
	at  int  // before this word
	run bool // it is an action of the flink command
}

func (p place) args(r checkpoint.Resolved, flink checkpoint.FlinkVersion) []string {
	if p.run {
		return r.RunArgs(flink)
	}
	return r.Args()
}

func (c *execCommand) place() (place, error) {
	if c.At >= 0 {
		if c.At == 0 || c.At > len(c.command) {
			return place{}, usagef("word 0 is the program; the arguments go before word N", "--at %d is not within the %d words of the command", c.At, len(c.command))
		}
		return place{at: c.At}, nil
	}
	p, ok := placeIn(c.command)
	if !ok {
		return place{}, usagef("say with --at N where the arguments go", "none of the words %s is in the command, so chkpin does not know where Flink reads options", strings.Join(actions, ", "))
	}
	options := manifest.ReadOptions(c.command[p.at:], p.run)
	if options.Restore != "" {
		return place{}, usagef("leave it out: chkpin puts in the path that it proved", "the command says already what to restore, with %s", options.Restore)
	}
	return p, refuseClaim(options)
}

// refuseClaim: of two modes under the option's two names Flink takes -claimMode
// (measured on 1.20.5, 2.0.2 and 2.3.0), and a job that claims the pin deletes it.
func refuseClaim(o manifest.Options) error {
	if !strings.EqualFold(o.ClaimMode, "CLAIM") {
		return nil
	}
	return usagef("leave the mode out: chkpin says NO_CLAIM; who must claim gives Flink a copy, made with chkpin copy",
		"the command claims what it restores, and so deletes the pin")
}

// actions are the words after which Flink's own options stand, whatever script
// or wrapper they are given to.
var actions = []string{"standalone-job", "run", "run-application"}

// placeIn finds where Flink still reads options as its own: right after its
// action. Its parsers stop at the first word they do not know, and hand all that
// follows to the job (measured on 1.20.5 and 2.3.0). A run that does not follow
// flink may be a wrapper's own, such as conda run; it counts when there is nothing
// better.
func placeIn(command []string) (place, bool) {
	isScript := func(i int) bool {
		return path.Base(command[i]) == startScript && i+1 < len(command) && slices.Contains(startActions, command[i+1])
	}
	if isScript(0) {
		return place{at: 2}, true
	}
	var wrapped place
	isFlink := isFrontend(command[0])
	for i := 1; i < len(command); i++ {
		switch word := command[i]; {
		case word == manifest.EntryPointClass, word == "standalone-job":
			return place{at: i + 1}, true
		case isScript(i):
			return place{at: i + 2}, true
		case word == "run" || word == "run-application":
			found := place{at: i + 1, run: true}
			if isFlink {
				return found, true
			}
			wrapped = cmp.Or(wrapped, found)
		case isFrontend(word):
			isFlink = true
		}
	}
	return wrapped, wrapped.run
}

// isFrontend reports whether a word starts Flink's command line.
func isFrontend(word string) bool {
	return path.Base(word) == "flink" || word == manifest.FrontendClass
}

// startScript is the script that an image's entry point starts, and startActions
// its first word.
const startScript = "standalone-job.sh"

var startActions = []string{"start", "start-foreground"}
