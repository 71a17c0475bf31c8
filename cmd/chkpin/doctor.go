package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

type doctorCommand struct {
	App        appURI `arg:"" placeholder:"URI" env:"CHKPIN_APP" help:"The application's folder."`
	jobManager `group:"Reaching the JobManager:"`
	jobChoice

	All      bool     `xor:"job" env:"CHKPIN_ALL" help:"Look at every live job of a session cluster and its pin at <app>/<job name>, as pin --all keeps them."`
	Replica  []appURI `placeholder:"URI" env:"CHKPIN_REPLICA" help:"A folder that pin keeps a copy of the pin in, as its own --replica says. Repeatable."`
	Manifest string   `type:"path" placeholder:"FILE" env:"CHKPIN_MANIFEST" help:"Kubernetes manifest, of one or more documents, that starts the job: are its arguments what Flink reads?"`
}

// Help is what chkpin doctor --help says first.
func (*doctorCommand) Help() string {
	return `Looks at the store, the JobManager and the manifest, and says what is wrong, worst first, each with what to do.
It changes nothing: one probe below <app>/last-state, and below that of each --replica, is written, read and deleted,
to try the rights.

  chkpin doctor s3://bucket/orders http://orders-jobmanager:8081 --manifest orders.yaml

For a session cluster, --all prints such a page for each live job. Without a JobManager, only what the store and the manifest tell. The exit code is that of the first finding if it is an
error, and 0 otherwise.`
}

// severity is how bad a finding is, worst first.
type severity string

const (
	severe   severity = "error"   // a promise is broken, or will be at the next start
	doubtful severity = "warning" // it works until something else happens
	noted    severity = "info"    // good to know
	healthy  severity = "ok"
)

var severities = []severity{severe, doubtful, noted, healthy}

// finding is what a check found, documented in docs/json.md.
type finding struct {
	Check    string   `json:"check"`
	Severity severity `json:"severity"`
	Evidence string   `json:"evidence"`
	Fix      string   `json:"fix"`

	err error // of one that is severe: it decides the exit code
}

func fine(format string, args ...any) []finding {
	return []finding{{Severity: healthy, Evidence: fmt.Sprintf(format, args...)}}
}

func notice(fix, format string, args ...any) []finding {
	return []finding{{Severity: noted, Evidence: fmt.Sprintf(format, args...), Fix: fix}}
}

func doubt(fix, format string, args ...any) []finding {
	return []finding{{Severity: doubtful, Evidence: fmt.Sprintf(format, args...), Fix: fix}}
}

// fault is a severe finding that ends the command as err does elsewhere.
func fault(err error, fix string) []finding {
	return []finding{{Severity: severe, Evidence: err.Error(), Fix: cmp.Or(fix, hintFor(err, verdictOf(context.Background(), err))), err: err}}
}

// misconfigured is a severe finding about the configuration of Flink, of its
// deployment or of the store.
func misconfigured(fix, format string, args ...any) []finding {
	return fault(&usageError{fmt.Sprintf(format, args...)}, fix)
}

// doctorResult is the JSON of doctor, documented in docs/json.md.
type doctorResult struct {
	App      string    `json:"app"`
	Worst    severity  `json:"worst"`
	Findings []finding `json:"findings"`
}

// Run prints all that was found, whatever it is.
func (c *doctorCommand) Run(ctx context.Context, env *environment) error {
	if c.All {
		return c.runAll(ctx, env)
	}
	return c.run(ctx, env)
}

// runAll looks at one job after the other. Where none can be named, there is one
// page, which says why.
func (c *doctorCommand) runAll(ctx context.Context, env *environment) error {
	if c.Manifest != "" {
		return usagef("name the <app> of the job that it starts", "--all can't be used together with --manifest")
	}
	client, err := c.client(env)
	if err != nil {
		return err
	}
	jobs, err := client.Jobs(ctx)
	live := liveByName(jobs)
	if err != nil || len(live) == 0 {
		return c.run(ctx, env)
	}
	var failures []error
	for i, job := range live {
		one := *c
		one.App.URI, one.JobID, one.Replica = c.App.Join(job.Name), job.ID, nil
		for _, app := range c.Replica {
			one.Replica = append(one.Replica, appURI{app.Join(job.Name)})
		}
		if !env.json {
			fmt.Fprintf(env.stdout, "%sjob %q:\n", strings.Repeat("\n", min(i, 1)), job.Name)
		}
		if err = pinnable(client.URL(), job, live); err != nil {
			one.App = c.App // it has no folder
			err = one.report(env, label("job", fault(err, "")))
		} else {
			err = one.run(ctx, env)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("job %q: %w", job.Name, err))
		}
	}
	return worst(ctx, failures)
}

func (c *doctorCommand) run(ctx context.Context, env *environment) error {
	p, err := c.examine(ctx, env)
	if err != nil {
		return err
	}
	return c.report(env, diagnose(p))
}

// report prints the page.
func (c *doctorCommand) report(env *environment, findings []finding) error {
	result := doctorResult{App: c.App.String(), Worst: healthy, Findings: findings}
	if len(result.Findings) > 0 {
		result.Worst = result.Findings[0].Severity
	}
	if err := env.print(result, result.describe); err != nil {
		return err
	}
	return verdictOn(result.Findings)
}

// diagnose runs every check, and puts the worst first.
func diagnose(p *patient) (all []finding) {
	for _, c := range checks {
		all = append(all, label(c.name, c.look(p))...)
	}
	slices.SortStableFunc(all, func(a, b finding) int {
		return cmp.Compare(slices.Index(severities, a.Severity), slices.Index(severities, b.Severity))
	})
	return all
}

// label says which check it was.
func label(check string, findings []finding) []finding {
	for i := range findings {
		findings[i].Check = check
	}
	return findings
}

// verdictOn is the error of the first finding, if that is severe.
func verdictOn(findings []finding) error {
	n := 0
	for _, f := range findings {
		if f.Severity == severe {
			n++
		}
	}
	switch n {
	case 0:
		return nil
	case 1:
		return &hintedError{fmt.Errorf("%s: %w", findings[0].Check, findings[0].err), findings[0].Fix}
	}
	return &hintedError{fmt.Errorf("%d errors, the first is %s: %w", n, findings[0].Check, findings[0].err), findings[0].Fix}
}

// pageWidth is up to where the text of a finding goes; the columns before it take
// less than 30.
const pageWidth = 90

var severityColours = map[severity]colour{severe: red, doubtful: yellow}

func (r doctorResult) describe(w io.Writer) {
	var page strings.Builder
	t := tabwriter.NewWriter(&page, 0, 0, 2, ' ', 0)
	for _, f := range r.Findings {
		first := fmt.Sprintf("%s\t%s", f.Severity, f.Check)
		for _, line := range wrapText(f.Evidence, pageWidth) {
			fmt.Fprintf(t, "%s\t%s\n", first, line)
			first = "\t"
		}
		if f.Fix == "" {
			continue
		}
		for _, line := range wrapText("fix: "+f.Fix, pageWidth) {
			fmt.Fprintf(t, "\t\t%s\n", line)
		}
	}
	t.Flush()
	for line := range strings.Lines(page.String()) { // once the columns are aligned
		word, rest, _ := strings.Cut(line, " ")
		fmt.Fprint(w, severityColours[severity(word)].paint(w, word), " ", rest)
	}
}

// wrapText breaks a text between words. A word longer than width stands alone: it is
// a URI, to be copied.
func wrapText(text string, width int) (lines []string) {
	var line string
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}
