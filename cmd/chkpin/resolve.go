package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/flinkjob"
	"github.com/chkpin/chkpin/flinkrest"
)

// restoreChoice says what may be started from.
type restoreChoice struct {
	AllowFirstStart bool                    `env:"CHKPIN_ALLOW_FIRST_START" help:"Start without state when nothing was ever pinned: print nothing and exit 0."`
	Strict          bool                    `env:"CHKPIN_STRICT" help:"Refuse a damaged pin instead of falling back to an older generation, and to start a job that --jobmanager says is running."`
	MaxAge          time.Duration           `placeholder:"DURATION" env:"CHKPIN_MAX_AGE" help:"Refuse a checkpoint that was triggered longer ago."`
	Timeout         time.Duration           `default:"2m" env:"CHKPIN_TIMEOUT" help:"For each application; storage that takes longer counts as not reachable."`
	Checkpoints     []blobstore.URI         `sep:"none" placeholder:"URI" env:"CHKPIN_CHECKPOINTS" help:"Folder of the jobs' checkpoint folders: start from the newest checkpoint there if it continues what is pinned and restores. Repeatable."`
	Savepoints      []blobstore.URI         `sep:"none" placeholder:"URI" env:"CHKPIN_SAVEPOINTS" help:"The same for a folder of savepoints. Repeatable."`
	AnyLineage      bool                    `env:"CHKPIN_ANY_LINEAGE" help:"Below --checkpoints and --savepoints, take what was written last, whatever job wrote it."`
	FlinkVersion    checkpoint.FlinkVersion `placeholder:"VERSION" env:"CHKPIN_FLINK_VERSION" help:"Flink that will start, such as 1.20: decides what its options are called. Without it they are those that 1.15 to 2.3 understand."`

	JobManager       string `name:"jobmanager" placeholder:"URL" env:"CHKPIN_JOBMANAGER" help:"Ask this JobManager whether the job runs already."`
	jobManagerAccess `group:"Reaching the JobManager:"`
}

// Validate refuses what would otherwise silently do nothing.
func (c restoreChoice) Validate() error {
	switch {
	case c.AnyLineage && len(c.Checkpoints)+len(c.Savepoints) == 0:
		return errors.New("--any-lineage needs --checkpoints or --savepoints")
	case c.Timeout <= 0:
		return errTimeout
	case c.MaxAge < 0:
		return errors.New("--max-age must not be negative")
	}
	return nil
}

func (c restoreChoice) options(env *environment) checkpoint.ResolveOptions {
	return checkpoint.ResolveOptions{
		Strict: c.Strict, MaxAge: c.MaxAge, Timeout: c.Timeout,
		Checkpoints: c.Checkpoints, Savepoints: c.Savepoints, AnyLineage: c.AnyLineage,
		Flink: c.FlinkVersion, Relocations: env.relocations,
	}
}

// appChoice is one application, or several in the order of preference.
type appChoice struct {
	Apps []appURI `arg:"" name:"app" placeholder:"URI" env:"CHKPIN_APP" help:"The application's folder; more of them, such as replicas, are tried in this order."`
}

func (a appChoice) uris() []blobstore.URI {
	var uris []blobstore.URI
	for _, app := range a.Apps {
		uris = append(uris, app.URI)
	}
	return uris
}

type resolveCommand struct {
	appChoice
	Format     string `enum:"args,path,json,conf,flink-run" default:"args" env:"CHKPIN_FORMAT" help:"What to print: args (for Flink's entry point), path, json, conf (lines of Flink's configuration) or flink-run (options of flink run)."`
	OutputFile string `type:"path" placeholder:"FILE" env:"CHKPIN_OUTPUT_FILE" help:"Write to this file instead of stdout; on a first start it is empty."`
	restoreChoice
}

// sayFirstStart leaves a trace of a wrong URI or an empty volume. What is mounted
// at "/" in a container is no volume.
func (e *environment) sayFirstStart(ctx context.Context, app blobstore.URI) {
	attrs := []any{"app", app.String()}
	if mounts, ok := e.store.(blobstore.Mounter); ok {
		if point, err := mounts.Mount(ctx, e.relocations.Apply(app)); err == nil && point != "" {
			attrs = append(attrs, "mount", point)
		}
	}
	e.log.Warn("first start: nothing was ever pinned, so nothing is restored", attrs...)
}

// Help implements [kong.HelpProvider].
func (c *resolveCommand) Help() string {
	return `Everything the pin names is looked for before anything is printed. What is printed is empty only on a first start, and only with --allow-first-start.

  $ chkpin resolve s3://bucket/orders
  --fromSavepoint s3://bucket/orders/last-state/_metadata

  $ flink run $(chkpin resolve --format flink-run --flink-version 1.20 s3://bucket/orders) -d orders.jar

After a planned stop, the newest savepoint of the job if there is one after the pin:

  $ chkpin resolve s3://bucket/orders --savepoints s3://bucket/savepoints

If the first place cannot be had, its replica:

  $ chkpin resolve s3://bucket/orders s3://elsewhere/orders`
}

// resolveResult is the JSON of resolve, documented in docs/json.md.
type resolveResult struct {
	Path         string             `json:"path"`
	Generation   string             `json:"generation"`
	JobID        string             `json:"jobId"`
	CheckpointID int64              `json:"checkpointId"`
	Triggered    time.Time          `json:"triggered,omitzero"`
	Args         []string           `json:"args"`
	Warnings     []string           `json:"warnings"`
	FirstStart   bool               `json:"firstStart"`
	App          string             `json:"app"`
	RunArgs      []string           `json:"runArgs"`
	Conf         map[string]string  `json:"conf"`
	Candidates   []resolveCandidate `json:"candidates"`
}

type resolveCandidate struct {
	URI string `json:"uri"`
	Why string `json:"why"`
}

// restored says what to start from, after telling the log what speaks against it
// and what was refused. A first start that is allowed is a zero Path and no
// error.
func (c restoreChoice) restored(ctx context.Context, env *environment, apps []blobstore.URI) (checkpoint.Resolved, error) {
	r, err := checkpoint.ResolveFirst(ctx, env.store, apps, c.options(env))
	for _, refused := range r.Candidates {
		log := env.log.Info
		if refused.Preferred {
			log = env.log.Warn
		}
		log("refused", "uri", refused.URI.String(), "why", refused.Why)
	}
	known := len(r.Warnings)
	for _, text := range r.Warnings {
		env.log.Warn(text)
	}
	if errors.Is(err, checkpoint.ErrNoPin) {
		if err := env.checkApps(ctx, apps); err != nil {
			return r, err
		}
	}
	switch {
	case errors.Is(err, checkpoint.ErrNoPin) && c.AllowFirstStart:
		for _, app := range apps {
			env.sayFirstStart(ctx, app)
		}
		return r, nil
	case err != nil:
		return r, c.explain(err, apps)
	}
	r.Warnings = append(r.Warnings, env.restoreWarnings()...)
	running, err := c.running(ctx, env, r)
	if err != nil {
		return r, err
	}
	r.Warnings = append(r.Warnings, running...)
	for _, text := range r.Warnings[known:] {
		env.log.Warn(text)
	}
	return r, nil
}

// checkApps refuses the folder of a checkpoint: who names it wants to start from
// that, and nothing was ever pinned there. Whether it is one may not be known: the
// rights to read a pin (manifests/iam/resolve.json) do not cover it.
func (e *environment) checkApps(ctx context.Context, apps []blobstore.URI) error {
	for _, app := range apps {
		metadata := app
		if app.Base() != checkpoint.MetadataName {
			metadata = app.Join(checkpoint.MetadataName)
		}
		if _, err := e.store.Stat(ctx, e.relocations.Apply(metadata)); err == nil {
			return usagef("<app> is a folder of its own, where chkpin pin keeps state; to start from this checkpoint, give Flink its path",
				"%s is a checkpoint or savepoint, not an <app>", app)
		}
	}
	return nil
}

// clusterWarnings says what of the cluster's configuration keeps a pin from being
// used.
func (e *environment) clusterWarnings() []string {
	if e.flinkConf.HighAvailability() {
		// DefaultExecutionGraphFactory, 2.2.0.
		return []string{"high availability is on: while its store holds a checkpoint of the job, Flink restores that and ignores the restore path"}
	}
	return nil
}

// restoreWarnings adds what of the cluster's configuration harms a pin when a job
// is started from it.
func (e *environment) restoreWarnings() []string {
	warnings := e.clusterWarnings()
	if e.flinkConf.ClaimMode() == "CLAIM" {
		// StandaloneApplicationClusterEntryPoint writes NO_CLAIM over the configuration (measured on
		// 1.15.4, 1.20.5 and 2.2.1); a session cluster deletes what it claims.
		warnings = append(warnings, "claim mode CLAIM is configured: except in application mode, where it has no effect, a job started without NO_CLAIM deletes the pin it restored from")
	}
	if e.flinkConf.Changelog() {
		// Measured on 1.20.5 and 2.3.0: "does not support enforcing a full snapshot".
		warnings = append(warnings, "the changelog state backend is configured: in mode NO_CLAIM, as in application mode, a job with it fails at its first checkpoint after a restore")
	}
	return warnings
}

// runningError: --strict, and a job would be started twice.
type runningError struct{ text string }

func (e *runningError) Error() string { return e.text }

// running warns of live jobs of the lineage, and refuses them when strict. A
// JobManager that does not answer runs no job that anybody could see.
func (c restoreChoice) running(ctx context.Context, env *environment, r checkpoint.Resolved) ([]string, error) {
	if c.JobManager == "" {
		return nil, nil
	}
	client, err := c.connect(c.JobManager, env)
	if err != nil {
		return nil, err
	}
	jobs, err := client.Jobs(ctx)
	if errors.Is(err, flinkrest.ErrUnavailable) {
		return []string{fmt.Sprintf("no telling whether the job runs already: %v", err)}, nil
	}
	if err != nil {
		return nil, err
	}
	jobs = slices.DeleteFunc(jobs, func(j flinkrest.Job) bool {
		ofLineage := func(run checkpoint.Run) bool { return run.JobID == j.ID || run.JobName == j.Name }
		return !j.State.Live() || !slices.ContainsFunc(r.Lineage, ofLineage)
	})
	if len(jobs) == 0 {
		return nil, nil
	}
	text := fmt.Sprintf("started now, the job would run twice: it is live at %s%s", client.URL(), flinkjob.Describe(":", jobs))
	if c.Strict {
		return nil, &runningError{text}
	}
	return []string{text}, nil
}

// Run prints what to start from. Warnings go to the log, because stdout ends up
// in a command line.
func (c *resolveCommand) Run(ctx context.Context, env *environment) error {
	env.json = env.json || c.Format == "json"
	if c.OutputFile == "" {
		return c.resolve(ctx, env)
	}
	var out bytes.Buffer
	aside := *env
	aside.stdout = &out
	if err := c.resolve(ctx, &aside); err != nil {
		return err
	}
	if err := writeOutput(c.OutputFile, out.Bytes()); err != nil {
		// Not what it is elsewhere that a file is not there: exit 3 is that of no pin.
		return usagef("--output-file needs a folder that is there and that this user may write to", "%v", err)
	}
	return nil
}

// writeOutput writes a file whole or not at all. A pipe or a device is written
// to, and a link followed: a file in the place of /dev/stdout or of a pipe that
// somebody reads from would be no answer.
func writeOutput(name string, content []byte) error {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return os.WriteFile(name, content, 0)
	}
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	return writeFile(name, 0o644, func(w io.Writer) error { _, err := w.Write(content); return err })
}

func (c *resolveCommand) resolve(ctx context.Context, env *environment) error {
	r, err := c.restored(ctx, env, c.uris())
	result := resolveResult{FirstStart: err == nil && r.Path.IsZero(), Warnings: r.Warnings, Conf: map[string]string{}}
	for _, refused := range r.Candidates {
		result.Candidates = append(result.Candidates, resolveCandidate{refused.URI.String(), refused.Why})
	}
	switch {
	case err != nil && env.json:
		return errors.Join(err, env.print(result, nil))
	case err != nil || result.FirstStart:
		return errors.Join(err, env.print(result, func(io.Writer) {}))
	}
	result.App, result.Path, result.Generation = r.App.String(), r.Path.String(), r.Generation
	result.JobID, result.CheckpointID, result.Triggered = r.JobID, r.CheckpointID, r.Triggered
	result.Args, result.RunArgs = r.Args(), r.RunArgs(c.FlinkVersion)
	settings := r.Settings(c.FlinkVersion)
	for _, s := range settings {
		result.Conf[s.Key] = s.Value
	}
	return env.print(result, func(w io.Writer) {
		switch c.Format {
		case "path":
			fmt.Fprintln(w, result.Path)
		case "conf":
			for _, s := range settings {
				fmt.Fprintf(w, "%s: %s\n", s.Key, s.Value)
			}
		case "flink-run":
			fmt.Fprintln(w, strings.Join(result.RunArgs, " "))
		default:
			fmt.Fprintln(w, strings.Join(result.Args, " "))
		}
	})
}

// explain adds the way out. What is damaged here has no generation left that
// restores, or --strict keeps from looking for one.
func (c restoreChoice) explain(err error, apps []blobstore.URI) error {
	lost := errors.Is(err, checkpoint.ErrPinGone) || as[*checkpoint.DamagedError](err)
	further := len(c.Checkpoints)+len(c.Savepoints) > 0
	from := movedFrom(err, apps)
	switch {
	case from != "":
		return &hintedError{err, fmt.Sprintf("the pin was made at %s and names its state there: is the volume mounted at another path? To look at it where it is, say --relocated", from)}
	case errors.Is(err, checkpoint.ErrNoPin) && further && !c.AnyLineage:
		return &hintedError{err, "is the URI right? If state below --checkpoints or --savepoints is this application's, --any-lineage takes the newest; --allow-first-start starts without state"}
	case errors.Is(err, checkpoint.ErrNoPin):
		return &hintedError{err, "is the URI right, and the volume mounted? If this is the very first start, --allow-first-start prints nothing and exits 0"}
	case lost && c.Strict:
		return &hintedError{err, "without --strict, resolve falls back to the newest generation that restores"}
	case lost && c.AnyLineage:
		return &hintedError{err, "no generation restores, and nothing below --checkpoints and --savepoints does; do not start without state by accident"}
	case lost && !further:
		return &hintedError{err, "no generation restores; --checkpoints and --savepoints look for state of the job elsewhere, chkpin verify proves any you find; do not start without state by accident"}
	case lost:
		return &hintedError{err, "no generation restores, and nothing of the lineage was found; --any-lineage takes the newest state whatever job wrote it; do not start without state by accident"}
	}
	return err
}

// movedFrom returns where a pin was made whose missing state is named below
// another application's folder, "" if that is not what is wrong.
func movedFrom(err error, apps []blobstore.URI) string {
	damaged, ok := errors.AsType[*checkpoint.DamagedError](err)
	if !ok || len(damaged.Missing) == 0 {
		return ""
	}
	missing, err := blobstore.Parse(damaged.Missing[0])
	if err != nil {
		return ""
	}
	state := missing.Dir()
	made := state.Dir().Dir()
	if !checkpoint.LayoutOf(made).State.Same(state) || slices.ContainsFunc(apps, made.Same) {
		return ""
	}
	return made.String()
}
