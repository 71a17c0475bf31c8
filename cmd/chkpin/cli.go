package main

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/cmd/chkpin/flinkconf"
	"github.com/chkpin/chkpin/flinkrest"
)

const description = `Makes an Apache Flink job restart from a constant path.

<app> is the application's folder: file:///state/app. After "chkpin pin <app> <jobmanager>",
<app>/last-state/_metadata restores, whatever Flink later deletes.`

// cli is the command line. Every environment variable is spelled out, since
// kong would otherwise derive one for each flag.
type cli struct {
	Output    string                  `enum:"text,json" default:"text" env:"CHKPIN_OUTPUT" help:"How to print results: text or json."`
	LogFormat string                  `enum:"text,json" default:"text" env:"CHKPIN_LOG_FORMAT" help:"How to write the log on stderr: text or json."`
	LogLevel  slog.Level              `default:"WARN" env:"CHKPIN_LOG_LEVEL" help:"DEBUG, INFO, WARN or ERROR."`
	Relocated []checkpoint.Relocation `sep:"none" placeholder:"FROM=TO" help:"Look for what checkpoints name below FROM below TO, both URIs. Repeatable."`

	storeFlags `group:"Reaching S3:"`
	azureFlags `group:"Reaching Azure:"`

	Pin   pinCommand   `cmd:"" group:"Pinning:" help:"Pin the job's newest checkpoint (one tick of a CronJob)."`
	Watch watchCommand `cmd:"" group:"Pinning:" help:"Pin again and again, with metrics: pin's tick in a loop."`
	Stop  stopCommand  `cmd:"" group:"Pinning:" help:"Stop the job with a savepoint and pin that."`

	Resolve  resolveCommand  `cmd:"" group:"Restoring:" help:"Prove the pin and print the arguments to start from it."`
	Exec     execCommand     `cmd:"" group:"Restoring:" help:"Prove the pin and start Flink from it, in the place of this process."`
	Rollback rollbackCommand `cmd:"" group:"Restoring:" help:"Publish an earlier generation and hold it; or end that hold."`

	List    listCommand    `cmd:"" group:"Looking:" help:"List checkpoints, savepoints and generations, and whether each restores."`
	Inspect inspectCommand `cmd:"" group:"Looking:" help:"Show what a checkpoint consists of."`
	Verify  verifyCommand  `cmd:"" group:"Looking:" help:"Check that everything a checkpoint names is there."`
	Diff    diffCommand    `cmd:"" group:"Looking:" help:"Compare the operators of two checkpoints: does a job start from that state?"`
	Copy    copyCommand    `cmd:"" group:"Keeping:" help:"Copy a checkpoint, a savepoint or a whole pin to another place."`
	GC      gcCommand      `cmd:"" group:"Keeping:" name:"gc" help:"Remove generations and state files that nobody needs."`
	Doctor  doctorCommand  `cmd:"" group:"Looking:" help:"Find what is wrong with the pin, the store, the JobManager and the manifest."`

	Deploy     deployCommand     `cmd:"" group:"Deploying:" help:"Decide for each job of a set what to start it from, and start it."`
	Transition transitionCommand `cmd:"" group:"Deploying:" help:"Wait until a deployment or job is in a state, then change another's: a scheduler's step."`

	Install installCommand `cmd:"" group:"Deploying:" help:"Copy this program into a folder that another container shares."`
	Version versionCommand `cmd:"" group:"About chkpin:" help:"Print the version."`

	Completion completionCommand `cmd:"" group:"About chkpin:" help:"Print what makes a shell complete chkpin's commands and flags."`
}

// command is what every kong command is here.
type command interface {
	Run(ctx context.Context, env *environment) error
}

// environment is what commands share: where to print, what to log to, and the
// stores.
type environment struct {
	stdout      io.Writer
	stderr      io.Writer
	json        bool
	log         *slog.Logger
	flinkConf   flinkconf.Conf // empty without --flink-conf
	store       blobstore.Store
	relocations checkpoint.Relocations
}

func newParser(c *cli, stdout, stderr io.Writer) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("chkpin"),
		kong.Description(description),
		kong.Writers(stdout, stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: 100}),
		kong.Help(helpWithExitCodes),
		kong.NamedMapper("path", kong.MapperFunc(pathOrNothing)),
		kong.Exit(os.Exit),
	)
}

// parse reads the command line. --help prints and exits, as kong does it.
func parse(args []string, stdout, stderr io.Writer) (command, *environment, error) {
	var c cli
	parser, err := newParser(&c, stdout, stderr)
	if err != nil {
		return nil, nil, err
	}
	kongcompletion.Register(parser) // answers a shell that asks, and exits
	args, program := cutCommand(args)
	parsed, err := parser.Parse(args)
	if err != nil && program == nil && slices.Contains(args, "exec") {
		return nil, nil, &hintedError{err, hintNoCommand}
	}
	if err != nil {
		return nil, nil, err
	}
	c.Exec.command, c.Deploy.command = program, program
	log := newLogger(stderr, c.LogFormat, c.LogLevel)
	conf, err := c.flinkConf()
	if err != nil {
		return nil, nil, err
	}
	env := &environment{
		stdout:      stdout,
		stderr:      stderr,
		json:        c.Output == "json",
		log:         log,
		flinkConf:   conf,
		store:       c.open(conf, log),
		relocations: c.Relocated,
	}
	return parsed.Selected().Target.Addr().Interface().(command), env, nil
}

// cutCommand cuts off what chkpin exec and deploy start: all that follows the
// first --.
func cutCommand(args []string) (own, command []string) {
	starts := func(word string) bool { return word == "exec" || word == "deploy" }
	if i := slices.Index(args, "--"); i > 0 && slices.ContainsFunc(args[:i], starts) {
		return args[:i], args[i+1:]
	}
	return args, nil
}

func newLogger(w io.Writer, format string, level slog.Level) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// pathOrNothing is kong's type path, but that nothing stays nothing: a variable
// that is set to "" names no file, where kong would take the working directory.
func pathOrNothing(ctx *kong.DecodeContext, target reflect.Value) error {
	var path string
	if err := ctx.Scan.PopValueInto("file", &path); err != nil {
		return err
	}
	if path != "" {
		path = kong.ExpandPath(path)
	}
	target.SetString(path)
	return nil
}

// folderURI is a folder that chkpin writes to. Its spelling goes into what Flink
// reads, so it has to be one that Flink opens: with a scheme in lower case
// (FileSystem.getUnguardedFileSystem), without a host of files (the same),
// without backslashes, which are slashes to Flink (Path.normalizePath), and in
// UTF-8. Seen in 1.20.5 and 2.3.0.
type folderURI struct{ blobstore.URI }

func (f *folderURI) UnmarshalText(text []byte) error {
	name := string(text)
	if strings.HasPrefix(name, "/") {
		return usagef("write file://"+name, "%q has no scheme", name)
	}
	if err := f.URI.UnmarshalText(text); err != nil {
		return err
	}
	scheme, rest, _ := strings.Cut(name, ":")
	switch {
	case scheme != f.Scheme():
		return usagef("write "+f.Scheme()+":"+rest, "%q has a scheme in capitals, which Flink does not know", name)
	case f.Family() == blobstore.FamilyFile && strings.HasPrefix(rest, "//localhost"):
		return usagef("write file://"+cmp.Or(f.Path(), "/"), "%q names a host, which Flink does not take", name)
	case strings.Contains(name, `\`):
		return usagef("choose a name without", "%q holds a backslash, which is a slash to Flink", name)
	case strings.ContainsRune(name, utf8.RuneError): // kong has put it there
		return usagef("choose a name in UTF-8", "%q is not the UTF-8 that Flink reads", name)
	}
	return nil
}

// appURI is the folder of an application. It is not a part of a pin: nothing was
// ever pinned in that, and what starts from it would start without state.
type appURI struct{ blobstore.URI }

func (a *appURI) UnmarshalText(text []byte) error {
	if err := (*folderURI)(a).UnmarshalText(text); err != nil {
		return err
	}
	lastState := checkpoint.LayoutOf(a.URI).Root.Base()
	for app := a.URI; app.Key() != ""; app = app.Dir() {
		if app.Base() == lastState {
			return usagef("write "+app.Dir().String(), "%q lies inside a pin; <app> is the folder that %s is in", string(text), lastState)
		}
	}
	return nil
}

// jobManager is the JobManager's URL and how to speak to it.
type jobManager struct {
	JobManager string `arg:"" optional:"" name:"jobmanager" placeholder:"URL" env:"CHKPIN_JOBMANAGER" help:"URL of the JobManager's REST API, such as http://app-jobmanager:8081; --flink-conf can tell it."`
	jobManagerAccess
}

// jobManagerAccess is how to speak to a JobManager.
type jobManagerAccess struct {
	JobmanagerTimeout      time.Duration `default:"15s" env:"CHKPIN_JOBMANAGER_TIMEOUT" help:"For one answer, with all retries."`
	JobmanagerCA           string        `name:"jobmanager-ca" type:"path" placeholder:"FILE" env:"CHKPIN_JOBMANAGER_CA" help:"PEM file of the authorities to trust."`
	JobmanagerCert         string        `type:"path" placeholder:"FILE" env:"CHKPIN_JOBMANAGER_CERT" help:"PEM file of a client certificate."`
	JobmanagerKey          string        `type:"path" placeholder:"FILE" env:"CHKPIN_JOBMANAGER_KEY" help:"PEM file of its key."`
	JobmanagerUser         string        `placeholder:"NAME" env:"CHKPIN_JOBMANAGER_USER" help:"For basic authentication."`
	JobmanagerPassword     string        `placeholder:"SECRET" env:"CHKPIN_JOBMANAGER_PASSWORD" help:"For basic authentication; better a file."`
	JobmanagerPasswordFile string        `type:"path" placeholder:"FILE" env:"CHKPIN_JOBMANAGER_PASSWORD_FILE" help:"Read anew for each call."`
	JobmanagerToken        string        `placeholder:"SECRET" env:"CHKPIN_JOBMANAGER_TOKEN" help:"Bearer token; better a file."`
	JobmanagerTokenFile    string        `type:"path" placeholder:"FILE" env:"CHKPIN_JOBMANAGER_TOKEN_FILE" help:"Read anew for each call."`
}

func (j jobManager) client(env *environment) (*flinkrest.Client, error) {
	url := cmp.Or(j.JobManager, env.flinkConf.JobManager())
	if url == "" {
		return nil, usagef("such as http://app-jobmanager:8081; --flink-conf with rest.address tells it, too", "no JobManager was named")
	}
	return j.connect(url, env)
}

func (j jobManagerAccess) connect(url string, env *environment) (*flinkrest.Client, error) {
	return flinkrest.New(flinkrest.Config{
		URL:          url,
		Timeout:      j.JobmanagerTimeout,
		CAFile:       j.JobmanagerCA,
		CertFile:     j.JobmanagerCert,
		KeyFile:      j.JobmanagerKey,
		Username:     j.JobmanagerUser,
		Password:     j.JobmanagerPassword,
		PasswordFile: j.JobmanagerPasswordFile,
		Token:        j.JobmanagerToken,
		TokenFile:    j.JobmanagerTokenFile,
		Logger:       env.log,
	})
}
