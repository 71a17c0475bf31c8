package main

import (
	"bytes"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// helpWithExitCodes is kong's help, ending with the exit codes. What exec starts
// is cut off before kong sees it (cutCommand), so kong's usage line lacks it.
func helpWithExitCodes(options kong.HelpOptions, ctx *kong.Context) error {
	out := ctx.Stdout
	var text bytes.Buffer
	ctx.Stdout = &text
	err := kong.DefaultHelpPrinter(options, ctx)
	ctx.Stdout = out
	if err != nil {
		return err
	}
	help := strings.Replace(text.String(), "exec <app> ... [flags]\n", "exec <app> ... [flags] -- CMD…\n", 1)
	_, err = io.WriteString(out, help+"\nExit codes:\n"+exitTable())
	return err
}

// What follows is shown below the usage lines, of the commands that do not have
// it beside their flags. There are examples in each, which a test parses.

// Help implements [kong.HelpProvider].
func (*pinCommand) Help() string {
	return `Looks once at what the JobManager's newest completed checkpoint is. If it is not the pinned one, its files are copied below <app>, every one is proved to be there, and only then <app>/last-state/_metadata is replaced, at once. Whatever fails leaves the pin as it was. Run it every minute.

  $ chkpin pin s3://bucket/orders http://orders-jobmanager:8081
  pinned checkpoint 42 of job 1624fd774f99507e464787c646439a53 as 00000007-chk-42: 8 files copied (508 KiB), 12 reused

Where no job, or no checkpoint yet, is nothing to wake anybody for:

  $ chkpin pin s3://bucket/orders http://orders-jobmanager:8081 --tolerate no-job --tolerate no-checkpoint

Every job of a session cluster, each to <app>/<job name>:

  $ chkpin pin --all s3://bucket/session http://session-jobmanager:8081`
}

// Help implements [kong.HelpProvider].
func (*watchCommand) Help() string {
	return `Does what chkpin pin does, again and again, until it is told to stop; what pin says with its exit code stands in the log and in /metrics. After failures it waits longer, up to eight intervals.

  $ chkpin watch s3://bucket/orders http://orders-jobmanager:8081 --interval 30s --listen :9464`
}

// Help implements [kong.HelpProvider].
func (*stopCommand) Help() string {
	return `The planned end of a run. First it finds out whether the savepoint would be pinned: a job that is held is not stopped. What the next start restores is then the savepoint, and nothing is done twice.

  $ chkpin stop s3://bucket/orders http://orders-jobmanager:8081 --target s3://bucket/savepoints
  $ chkpin stop s3://bucket/orders http://session-jobmanager:8081 --job orders --format native`
}

// Help implements [kong.HelpProvider].
func (*verifyCommand) Help() string {
	return `Reads _metadata, and asks the store whether every byte range that it names is there. State itself is not read. The exit code is 0 if the checkpoint restores, and 4 if it does not.

  $ chkpin verify s3://bucket/orders
  restorable: s3://bucket/orders/last-state/_metadata (20 files, 1.2 GiB)

  $ chkpin verify s3://bucket/checkpoints/1624fd774f99507e464787c646439a53/chk-42`
}

// Help implements [kong.HelpProvider].
func (*inspectCommand) Help() string {
	return `Shows the operators with their state, then every file. Only _metadata is read, so it works for a checkpoint whose files are lost, too.

  $ chkpin inspect s3://bucket/orders
  $ chkpin inspect --output json file:///state/savepoints/savepoint-1624fd-0123456789ab | jq '.operators[].uid'`
}

// Help implements [kong.HelpProvider].
func (*installCommand) Help() string {
	return `For an init container: its volume hands chkpin to the Flink container, whose image has none.

  $ chkpin install /tmp`
}

// Help implements [kong.HelpProvider].
func (*versionCommand) Help() string {
	return `The revision is that of the sources; a build without them has none.

  $ chkpin version
  $ chkpin version --output json`
}

// Help implements [kong.HelpProvider].
func (*copyCommand) Help() string {
	return `Copies everything that is named, then a _metadata that names the copies. What is there whole is not copied again, so a copy that was cut off is finished by the same command.

  $ chkpin copy s3://bucket/checkpoints/1624fd774f99507e464787c646439a53/chk-42 s3://elsewhere/chk-42
  $ chkpin copy s3://bucket/orders s3://elsewhere/orders --dry-run     # the whole pin, with its generations`
}

// Help implements [kong.HelpProvider].
func (*transitionCommand) Help() string {
	return `Waits until a deployment of a Ververica Platform, or with --flink a job of a JobManager, is in a state; then asks for another state of one.

  $ chkpin transition --vvp-host vvp.example.com --monitor-deployment streaming --monitor-state SUSPENDED --trigger-deployment batch --trigger-state RUNNING

  $ chkpin transition --flink http://orders-jobmanager:8081 --monitor-state FINISHED --trigger-jobmanager http://other-jobmanager:8081 --action stop`
}
