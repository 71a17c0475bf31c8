// Command chkpin keeps a constant path from which an Apache Flink job restarts.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run(os.Args[1:])) }

// run parses the command line, runs the command until it ends or a signal
// arrives, and returns the exit code.
func run(args []string) int {
	fitContainer(cgroupLimits)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		cancel(interrupted{<-signals})
		signal.Stop(signals) // a second signal ends the process at once
	}()

	command, env, err := parse(withCommand(args), os.Stdout, os.Stderr)
	if err == nil {
		err = command.Run(ctx, env)
	}
	return exitCode(ctx, err, os.Stderr)
}

// interrupted is the cause of a context that a signal ended.
type interrupted struct{ signal os.Signal }

func (i interrupted) Error() string { return fmt.Sprintf("interrupted (%s)", i.signal) }
