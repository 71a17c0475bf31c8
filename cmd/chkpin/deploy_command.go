package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/cmd/chkpin/manifest"
	"github.com/chkpin/chkpin/deploy"
)

// The words of a command that deploy replaces.
const (
	restoreWord    = "{restore}"
	propertiesWord = "{properties}"
	manifestWord   = "{manifest}"
)

// launcher starts jobs with the user's command.
type launcher struct {
	env     *environment
	program string
	command []string
	place   place // where Flink reads options
	flink   checkpoint.FlinkVersion
}

const hintDeployCommand = "the command that starts a job follows --: chkpin deploy … -- flink run -d {properties} {restore} job.jar {manifest}"

// launcher checks the command before anything is done.
func (c *deployCommand) launcher(env *environment) (*launcher, error) {
	if c.DryRun {
		return nil, nil
	}
	if len(c.command) == 0 {
		return nil, usagef(hintDeployCommand, "no command to start jobs with")
	}
	program, err := exec.LookPath(c.command[0])
	if err != nil {
		return nil, usagef("is it in the image, and on PATH?", "%v", err)
	}
	probe, err := writeManifest(deploy.Manifest{Name: "probe"})
	_ = os.Remove(probe)
	if err != nil {
		return nil, usagef("the merged manifest is written there: is the folder there, and may it be written to? TMPDIR names another", "%v", err)
	}
	l := &launcher{env: env, program: program, command: c.command}
	for _, word := range c.command {
		for _, whole := range []string{restoreWord, propertiesWord} {
			if strings.Contains(word, whole) && word != whole {
				return nil, usagef("it becomes several words, or none", "%s must be a word of its own, not part of %q", whole, word)
			}
		}
	}
	var known bool
	if l.place, known = placeIn(c.command); !known {
		l.place.run = true // a script, which is free to use other variables
		return l, nil
	}
	options := manifest.ReadOptions(withoutOurs(c.command[l.place.at:]), l.place.run)
	if options.Restore != "" {
		return nil, usagef("write "+restoreWord+" in its place", "the command says already what to restore, with %s", options.Restore)
	}
	if err := refuseClaim(options); err != nil {
		return nil, err
	}
	behind := "put it right behind " + c.command[l.place.at-1]
	at := slices.Index(c.command, restoreWord)
	switch {
	case at < 0:
		return nil, usagef(behind, "the command has no %s, so the job would always start without state", restoreWord)
	case at < l.place.at:
		return nil, usagef(behind, "%s stands where Flink reads no options", restoreWord)
	}
	if own := manifest.ReadOptions(withoutOurs(c.command[l.place.at:at]), l.place.run).Own; len(own) > 0 {
		return nil, usagef(behind, "%s stands behind %s, where Flink reads no options", restoreWord, own[0])
	}
	return l, nil
}

// withoutOurs are the words that are not replaced by options.
func withoutOurs(words []string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == restoreWord || w == propertiesWord })
}

// start runs the command for one job. What it prints goes to stderr: stdout is
// for results.
func (l *launcher) start(ctx context.Context, s deploy.Start) error {
	file, err := writeManifest(s.Manifest)
	if err != nil {
		return err
	}
	defer os.Remove(file)
	cmd := exec.CommandContext(ctx, l.program, l.words(s, file)...)
	cmd.Args[0] = l.command[0]
	cmd.Env = append(os.Environ(), l.environ(s, file)...)
	cmd.Stdout, cmd.Stderr = l.env.stderr, l.env.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a script's children end with it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	l.env.log.Info("starting", "job", s.Manifest.Name, "command", cmd.Args)
	err = cmd.Run()
	if cmd.Process != nil && ctx.Err() != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what did not heed the first signal
	}
	switch exit, ok := errors.AsType[*exec.ExitError](err); {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &hintedError{fmt.Errorf("%s did not return in time", l.command[0]), "does it wait for the job to end? flink run needs -d; --start-timeout gives it more time"}
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case ok:
		return &hintedError{fmt.Errorf("%s: %w", l.command[0], exit), "what it printed stands above; what is stored was left alone, so the next deploy decides as this one did"}
	}
	return err
}

func writeManifest(m deploy.Manifest) (string, error) {
	f, err := os.CreateTemp("", "chkpin-"+m.Name+"-*.yaml")
	if err != nil {
		return "", err
	}
	_, err = f.Write(m.Encode())
	return f.Name(), errors.Join(err, f.Close())
}

// restoreArgs are those of flink run, or of the entry point if the command is one.
func (l *launcher) restoreArgs(s deploy.Start) []string {
	switch {
	case s.Restore.Path.IsZero():
		return nil
	case l.place.run:
		return s.Restore.RunArgs(l.flink)
	}
	return s.Restore.Args()
}

// words are the arguments of the command for one job.
func (l *launcher) words(s deploy.Start, file string) []string {
	var words []string
	for _, word := range l.command[1:] {
		switch word {
		case restoreWord:
			words = append(words, l.restoreArgs(s)...)
		case propertiesWord:
			for _, key := range slices.Sorted(maps.Keys(s.Manifest.Properties)) {
				words = append(words, "-D"+key+"="+s.Manifest.Properties[key])
			}
		default:
			words = append(words, strings.ReplaceAll(word, manifestWord, file))
		}
	}
	return words
}

// longestVariable is Linux' MAX_ARG_STRLEN, of 32 pages, with its last byte.
const longestVariable = 32 * 4096

func (l *launcher) environ(s deploy.Start, file string) []string {
	var environ []string
	for name, value := range map[string]string{
		"NAME":         s.Manifest.Name,
		"MANIFEST":     file,
		"RESTORE":      s.Restore.Path.String(),
		"RESTORE_ARGS": strings.Join(l.restoreArgs(s), " "),
		"VERSION":      strconv.Itoa(s.Manifest.Meta.Version),
		"QUERY":        s.Manifest.SQL + s.Manifest.Code,
		"QUERY_ID":     s.Manifest.Meta.QueryID,
		"TIMESTAMP":    s.Manifest.Meta.CreateTimestamp,
		"TARGET_TABLE": s.Manifest.TargetTable,
		"DESCRIPTION":  s.Manifest.Description,
		"SQL_SETTINGS": l.sqlSettings(s),
	} {
		variable := "CHKPIN_DEPLOY_" + name + "=" + value
		if len(variable) >= longestVariable { // no program could be started with it
			l.env.log.Warn("too long for a variable: it is not set, and only in the manifest", "job", s.Manifest.Name, "variable", "CHKPIN_DEPLOY_"+name)
			continue
		}
		environ = append(environ, variable)
	}
	return environ
}

// sqlSettings are statements for Flink's SQL client: the settings, and what to
// restore.
func (l *launcher) sqlSettings(s deploy.Start) string {
	var settings []checkpoint.Setting
	for _, key := range slices.Sorted(maps.Keys(s.Manifest.Properties)) {
		settings = append(settings, checkpoint.Setting{Key: key, Value: s.Manifest.Properties[key]})
	}
	if !s.Restore.Path.IsZero() {
		settings = append(settings, s.Restore.Settings(l.flink)...)
	}
	var lines []string
	quoted := strings.NewReplacer("'", "''")
	for _, setting := range settings {
		lines = append(lines, fmt.Sprintf("SET '%s' = '%s';", quoted.Replace(setting.Key), quoted.Replace(setting.Value)))
	}
	return strings.Join(lines, "\n")
}
