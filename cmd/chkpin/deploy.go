package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize/english"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/deploy"
	"github.com/chkpin/chkpin/flinkrest"
)

type deployCommand struct {
	Path          string `type:"path" xor:"jobs" required:"" placeholder:"DIR" env:"CHKPIN_DEPLOY_PATH" help:"Folder with a manifest (*.yaml) for each job; folders in it count, too, but hidden ones."`
	JobConfigPath string `type:"path" xor:"jobs" required:"" placeholder:"FILE" env:"CHKPIN_JOB_CONFIG_PATH" help:"The manifest of one job alone."`
	Template      string `type:"path" aliases:"template-file" placeholder:"FILE" env:"CHKPIN_TEMPLATE" help:"Manifest of defaults that each job's own is merged over; {job_name} in it is the job's name."`
	Manifests     appURI `required:"" placeholder:"URI" env:"CHKPIN_MANIFESTS" help:"Folder of the manifests that were deployed: compared, and replaced when the job runs."`
	State         appURI `placeholder:"URI" env:"CHKPIN_STATE" help:"Folder that checkpoints/<name>/<version> and savepoints/<name>/<version> are in; else flinkProperties must say where."`

	DryRun    bool `env:"CHKPIN_DRY_RUN" help:"Only say what would be done with each job, and why. Needs no command."`
	KeepGoing bool `env:"CHKPIN_KEEP_GOING" help:"Go on with the next job when one fails."`

	FlinkVersion    checkpoint.FlinkVersion `placeholder:"VERSION" env:"CHKPIN_FLINK_VERSION" help:"Flink that will start, such as 1.20: decides what {restore} becomes. By default the JobManager's."`
	SavepointFormat string                  `enum:"canonical,native" default:"canonical" env:"CHKPIN_SAVEPOINT_FORMAT" help:"canonical, which every state backend reads, or native, which is faster. Since Flink 1.15."`
	StopTimeout     time.Duration           `default:"10m" env:"CHKPIN_STOP_TIMEOUT" help:"For the savepoint of a job that is stopped."`
	StartTimeout    time.Duration           `default:"5m" env:"CHKPIN_START_TIMEOUT" help:"For the command, and until the job is RUNNING."`

	Settle time.Duration `default:"5s" env:"CHKPIN_SETTLE" help:"How long a job must be RUNNING to count as started: one that fails to restore is RUNNING, too, for a moment."`

	JobManager       string   `name:"jobmanager" placeholder:"URL" env:"CHKPIN_JOBMANAGER" help:"URL of the JobManager's REST API, such as http://session:8081; --flink-conf can tell it. In application mode each job has its own: {name} in it is the job's name."`
	Tolerate         []string `enum:"jobmanager-down" placeholder:"WHAT" env:"CHKPIN_DEPLOY_TOLERATE" help:"jobmanager-down: where no JobManager listens, no job runs. For application mode, where it ends with its job."`
	jobManagerAccess `group:"Reaching the JobManager:"`

	command []string // what follows --
}

// Help implements [kong.HelpProvider].
func (c *deployCommand) Help() string {
	return `A job that is new, or whose query changed, starts without state; any other goes on from its newest state that proves. The command follows --; it starts one job and returns. In it, {restore} becomes the arguments that restore the state, or nothing; {manifest} a file with the merged manifest; {properties} its flinkProperties as -D arguments. Scripts find the same and more in CHKPIN_DEPLOY_NAME, _MANIFEST, _RESTORE (a path, or empty), _RESTORE_ARGS, _SQL_SETTINGS (for the SQL client), _VERSION, _QUERY, _QUERY_ID, _TIMESTAMP, _TARGET_TABLE and _DESCRIPTION.

  $ chkpin deploy --path jobs/ --template job-template.yaml --manifests s3://bucket/flink/manifests --state s3://bucket/flink \
      --jobmanager http://session:8081 --dry-run

  $ chkpin deploy … -- flink run -d -t remote -m session:8081 {properties} {restore} job.jar {manifest}`
}

// deployResult is the JSON of deploy for one job, documented in docs/deploy.md.
type deployResult struct {
	Name     string   `json:"name"`
	Decision string   `json:"decision"`
	Reason   string   `json:"reason"`
	Restore  string   `json:"restore"`
	Version  int      `json:"version"`
	Result   string   `json:"result"` // done, planned, or the word of the exit code
	JobID    string   `json:"jobId"`
	Error    string   `json:"error"`
	Warnings []string `json:"warnings"`
}

// Run deploys the jobs one after the other.
func (c *deployCommand) Run(ctx context.Context, env *environment) error {
	launch, err := c.launcher(env)
	if err != nil {
		return err
	}
	jobs, err := c.read(env)
	if err != nil {
		return err
	}
	d, err := c.deployer(ctx, env, jobs[0].Name)
	if err != nil {
		return err
	}
	run := d.Plan
	if !c.DryRun {
		run = d.Deploy
		d.Start = launch.start
		launch.flink = d.Flink
	}
	var results []deployResult
	var failures []error
	for _, job := range jobs {
		if d.JobManager, err = c.cluster(env, job.Name); err != nil {
			return err
		}
		outcome, err := run(ctx, job)
		result := c.result(ctx, job, outcome, err)
		results = append(results, result)
		if err != nil {
			failures = append(failures, fmt.Errorf("job %s: %w", job.Name, err))
		}
		if err := c.tell(env, result, outcome); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && !c.KeepGoing && !c.DryRun {
			break
		}
	}
	if !env.json {
		c.summarize(env.stdout, results, len(jobs))
	}
	return worst(ctx, failures)
}

// looks is how often a job is looked at while it settles.
const looks = 5

func (c *deployCommand) deployer(ctx context.Context, env *environment, first string) (*deploy.Deployer, error) {
	cluster, err := c.cluster(env, first)
	if err != nil {
		return nil, err
	}
	if _, err := cluster.Jobs(ctx); err != nil {
		return nil, err
	}
	d := &deploy.Deployer{
		Store: env.store, Manifests: c.Manifests.URI, StartTimeout: c.StartTimeout,
		Flink: c.FlinkVersion, Relocations: env.relocations, Note: env.note,
		Looks: looks, Interval: max(c.Settle/looks, time.Millisecond),
	}
	if !d.Flink.IsZero() {
		return d, nil
	}
	version, err := cluster.client.Version(ctx)
	if err == nil {
		d.Flink, err = checkpoint.ParseFlinkVersion(version.Flink)
	}
	if err != nil { // then {restore} is what 1.15 to 2.3 understand
		env.log.Warn("the JobManager does not tell its release; --flink-version does", "err", err)
	}
	return d, nil
}

// cluster is the one that a job runs on.
func (c *deployCommand) cluster(env *environment, job string) (*deployCluster, error) {
	url := strings.ReplaceAll(c.JobManager, "{name}", job)
	client, err := jobManager{url, c.jobManagerAccess}.client(env)
	return &deployCluster{
		client: client, env: env, mayBeDown: slices.Contains(c.Tolerate, "jobmanager-down"),
		stopping: savepointFlags{Format: c.SavepointFormat, StopTimeout: c.StopTimeout},
	}, err
}

// read reads all manifests before anything is done with one, in the order of
// their names.
func (c *deployCommand) read(env *environment) ([]deploy.Manifest, error) {
	files, err := c.files()
	if err != nil {
		return nil, err
	}
	var template []byte
	if c.Template != "" {
		if template, err = os.ReadFile(c.Template); err != nil {
			return nil, usagef("--template takes the file of defaults", "%v", err)
		}
	}
	var jobs []deploy.Manifest
	var failures []error
	from := map[string]string{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, usagef("can the user that chkpin runs as read it?", "%v", err)
		}
		job, err := deploy.Parse(file, data, c.Template, template)
		if err == nil {
			err = job.Place(c.State.URI)
		}
		if first, twice := from[job.Name]; err == nil && twice {
			err = &deploy.ManifestError{File: file, Text: fmt.Sprintf("the name %q is also that of the job in %s", job.Name, first)}
		}
		if err != nil {
			failures = append(failures, err)
			continue
		}
		from[job.Name] = file
		jobs = append(jobs, job)
	}
	if len(failures) > 0 {
		return nil, worst(context.Background(), failures)
	}
	slices.SortFunc(jobs, func(a, b deploy.Manifest) int { return strings.Compare(a.Name, b.Name) })
	return jobs, nil
}

const hintDeployPath = "--path takes the folder of the manifests"

func (c *deployCommand) files() ([]string, error) {
	if c.JobConfigPath != "" {
		return []string{c.JobConfigPath}, nil
	}
	if _, err := os.Stat(c.Path); err != nil {
		return nil, usagef(hintDeployPath, "%v", err)
	}
	var files []string
	root := c.Path + string(filepath.Separator) // follows a link
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), ".") {
			return fs.SkipDir // such as ..2026_11_28, what the links in a mounted ConfigMap lead to
		}
		isYAML := strings.HasSuffix(path, ".yaml") || strings.HasSuffix(path, ".yml")
		if err == nil && !entry.IsDir() && isYAML && path != c.Template {
			files = append(files, path)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, usagef(hintDeployPath, "%v", err)
	case len(files) == 0:
		return nil, usagef("--path takes a folder with a file for each job", "no *.yaml is in %s", c.Path)
	}
	return files, nil
}

func (c *deployCommand) result(ctx context.Context, job deploy.Manifest, o deploy.Outcome, err error) deployResult {
	r := deployResult{
		Name: job.Name, Decision: string(o.Kind), Reason: o.Reason, Restore: o.Restore.String(),
		Version: o.Version, Result: done.result, JobID: o.JobID, Warnings: o.Warnings,
	}
	switch {
	case err != nil:
		r.Result, r.Error = verdictOf(ctx, err).result, err.Error()
	case c.DryRun:
		r.Result = "planned"
	}
	return r
}

// tell prints what became of one job. A plan for people is a table, which comes
// at the end.
func (c *deployCommand) tell(env *environment, r deployResult, o deploy.Outcome) error {
	for _, text := range r.Warnings {
		env.log.Warn(text, "job", r.Name)
	}
	if !env.json && c.DryRun {
		return nil
	}
	return env.print(r, func(w io.Writer) {
		switch {
		case r.Error != "":
			fmt.Fprintf(w, "%s: %s failed\n", r.Name, r.Decision)
		case o.Kind == deploy.Nothing:
			fmt.Fprintf(w, "%s: nothing to do (%s)\n", r.Name, r.Reason)
		case r.Restore == "":
			fmt.Fprintf(w, "%s: %s (%s), job %s started as version %d without state\n", r.Name, r.Decision, r.Reason, r.JobID, r.Version)
		default:
			fmt.Fprintf(w, "%s: %s (%s), job %s started as version %d from %s\n", r.Name, r.Decision, r.Reason, r.JobID, r.Version, r.Restore)
		}
	})
}

func (c *deployCommand) summarize(w io.Writer, results []deployResult, all int) {
	started, unchanged, failures := 0, 0, 0
	for _, r := range results {
		switch {
		case r.Error != "":
			failures++
		case r.Decision == string(deploy.Nothing):
			unchanged++
		default:
			started++
		}
	}
	word := "started"
	if c.DryRun {
		word = "to start"
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "JOB\tDECISION\tVERSION\tREASON")
		for _, r := range results {
			fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", r.Name, r.Decision, r.Version, r.Reason)
		}
		table.Flush()
	}
	fmt.Fprintf(w, "%s: %d %s, %d left alone, %d failed", english.Plural(all, "job", ""), started, word, unchanged, failures)
	if rest := all - len(results); rest > 0 {
		fmt.Fprintf(w, ", %d not reached (--keep-going)", rest)
	}
	fmt.Fprintln(w)
}

// deployCluster joins deploy to a JobManager's REST API.
type deployCluster struct {
	client    *flinkrest.Client
	stopping  savepointFlags
	mayBeDown bool
	env       *environment
}

// Jobs implements [deploy.JobManager].
func (c *deployCluster) Jobs(ctx context.Context) ([]deploy.Job, error) {
	answer, err := c.client.Jobs(ctx)
	switch {
	case c.mayBeDown && isGone(err):
		c.env.log.Info("tolerated: there is no JobManager, so no job runs", "err", err)
		return nil, nil
	case errors.Is(err, flinkrest.ErrUnavailable):
		err = &hintedError{err, "is the URL right and the JobManager up? Without it nothing is decided"}
	}
	var jobs []deploy.Job
	for _, j := range answer {
		jobs = append(jobs, deploy.Job{ID: j.ID, Name: j.Name, State: string(j.State), Live: j.State.Live(), Start: j.Start})
	}
	return jobs, err
}

// isGone reports whether nobody listens there. Any other error may be that of a
// JobManager whose job runs.
func isGone(err error) bool {
	unknown, ok := errors.AsType[*net.DNSError](err)
	return errors.Is(err, syscall.ECONNREFUSED) || ok && unknown.IsNotFound
}

// savepointProgress is how often people are told that a savepoint takes its time.
const savepointProgress = 15 * time.Second

// Stop implements [deploy.JobManager].
func (c *deployCluster) Stop(ctx context.Context, jobID string, folder blobstore.URI) (string, error) {
	flags := c.stopping
	flags.Target = folder
	began := time.Now()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		ticker := time.NewTicker(savepointProgress)
		defer ticker.Stop()
		for {
			select {
			case <-ended:
				return
			case <-ticker.C:
				c.env.note("job %s: no savepoint after %s of %s", jobID, time.Since(began).Round(time.Second), flags.StopTimeout)
			}
		}
	}()
	location, err := flags.stop(ctx, c.client, jobID)
	if err == nil {
		return location, nil
	}
	return "", &hintedError{err, "the job runs on, unless its tasks failed to write; what is stored was left alone. Run deploy again: if the job did stop, its savepoint is found"}
}
