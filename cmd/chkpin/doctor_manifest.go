package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/cmd/chkpin/manifest"
)

// The checks of how the job is started.

// argumentsReachFlink looks for options that stand after the first word that
// Flink does not know. It stops reading there and hands the rest to the job,
// without a word (measured on 1.20.5 and 2.3.0).
func argumentsReachFlink(p *patient) (found []finding) {
	if p.manifest == nil {
		return nil
	}
	if len(p.manifest.Starts) == 0 {
		return doubt("name the manifest of the JobManager: a container with standalone-job or flink run, or a FlinkDeployment", "nothing in the manifest starts a Flink job")
	}
	for _, s := range p.manifest.Starts {
		lost := s.Lost()
		if len(lost) == 0 {
			continue
		}
		if s.Action == "FlinkDeployment" {
			found = append(found, misconfigured("set spec.job.initialSavepointPath, and Flink's settings in spec.flinkConfiguration",
				"%s: all of spec.job.args goes to the job, with %s", s.Where, strings.Join(lost, ", "))...)
			continue
		}
		text := fmt.Sprintf("%s: Flink stops reading at %q, so that %s %s to the job and not to Flink",
			s.Where, nameOf(s.Stopped), strings.Join(lost, ", "), goOrGoes(len(lost)))
		fix := "put Flink's own options right after " + s.Action + ", before the first argument of the job"
		if slices.ContainsFunc(lost, startsEmpty) {
			found = append(found, misconfigured(fix, "%s: it starts without state", text)...)
		} else {
			found = append(found, doubt(fix, "%s", text)...)
		}
	}
	if len(found) == 0 {
		return fine("Flink reads all its options in %s", counted(len(p.manifest.Starts), "start"))
	}
	return found
}

func startsEmpty(word string) bool {
	return strings.Contains(word, "fromSavepoint") || word == "-s" || strings.Contains(word, "savepoint.path") || strings.Contains(word, "state-recovery.path")
}

func goOrGoes(n int) string {
	if n == 1 {
		return "goes"
	}
	return "go"
}

// nameOf is an option without its value, which may be a secret.
func nameOf(word string) string {
	name, _, _ := strings.Cut(word, "=")
	return name
}

// startsFromThePin compares what the job starts from with the constant path.
func startsFromThePin(p *patient) (found []finding) {
	if p.manifest == nil {
		return nil
	}
	pin, lost := p.layout, false
	configured, from := p.configuredPath()
	for _, c := range p.manifest.Calls {
		u, err := blobstore.Parse(c.App)
		if all := slices.Contains(c.Args, "--all") && p.app.Within(u); c.App != "" && err == nil && !u.Same(p.app) && !all {
			found = append(found, misconfigured("name one <app> everywhere", "%s: chkpin %s is given %s, not %s", c.Where, c.Command(), c.App, p.app)...)
		}
	}
	for _, s := range p.manifest.Starts {
		where := s.Where
		if s.RestorePath == "" && !s.ByChkpin && s.Unresolved == "" && s.Action != "FlinkDeployment" && configured != "" {
			s.RestorePath, where = configured, fmt.Sprintf("%s, by %s,", s.Where, from)
		}
		u, err := blobstore.Parse(s.RestorePath)
		switch {
		case s.RestorePath != "" && s.ByChkpin:
			found = append(found, misconfigured("leave it out: chkpin exec puts in the path that it proved", "%s: chkpin exec refuses a command that says already what to restore", s.Where)...)
		case s.RestorePath != "" && strings.Contains(s.RestorePath, "$"): // only the start can tell
		case s.RestorePath != "" && (err != nil || !pin.Holds(u)):
			found = append(found, misconfigured("start from "+pin.Metadata.String(), "%s starts from %s, which is not the pin of %s", where, s.RestorePath, p.app)...)
		case slices.ContainsFunc(s.Lost(), startsEmpty): // the check of arguments says it
			lost = true
		case s.UpgradeMode == "savepoint" || s.UpgradeMode == "last-state":
			found = append(found, notice("for a start from the pin, set spec.job.initialSavepointPath: "+pin.Metadata.String()+" and a new savepointRedeployNonce",
				"%s goes on from what the operator keeps (upgradeMode %s), not from the pin", s.Where, s.UpgradeMode)...)
		case s.RestorePath == "" && !s.ByChkpin && s.Unresolved == "":
			found = append(found, misconfigured(wayToRestore(s, pin.Metadata), "%s starts without state at every deployment: nothing there says what to restore", s.Where)...)
		}
	}
	if len(found) == 0 && len(p.manifest.Starts) > 0 && !lost {
		return fine("it starts from the pin, or from what chkpin resolves")
	}
	return found
}

// configuredPath is what a start restores that has no option for it (measured on
// 1.15.4, 1.20.5 and 2.2.1). What the JobManager shows is how it was started
// itself, with the options it had.
func (p *patient) configuredPath() (path, from string) {
	for _, s := range p.settings {
		if path := s.Get("execution.state-recovery.path", "execution.savepoint.path"); path != "" && s.from != fromJobManager {
			return path, s.from
		}
	}
	return "", ""
}

func wayToRestore(s manifest.Start, pin blobstore.URI) string {
	if s.Action == "FlinkDeployment" {
		return "set spec.job.initialSavepointPath: " + pin.String()
	}
	return "let chkpin exec start it, or add --fromSavepoint " + pin.String() + " right after " + s.Action
}

// pinIsNotClaimed looks for CLAIM in every place that says a mode.
func pinIsNotClaimed(p *patient) (found []finding) {
	const fix = "restore in NO_CLAIM, the default since 1.15; a job that must claim gets a copy of the pin of its own"
	claims := func(mode string) bool { return strings.EqualFold(mode, "CLAIM") }
	for _, s := range p.settings {
		switch {
		case !claims(claimMode(s)):
		case p.overridesClaim():
			found = append(found, doubt(fix, "%s says CLAIM; the standalone entry point overrides it with NO_CLAIM, flink run and native Kubernetes do not", s.from)...)
		default:
			found = append(found, misconfigured(fix, "%s says CLAIM: Flink then deletes the pin once a newer checkpoint completes", s.from)...)
		}
	}
	if p.manifest == nil {
		return found
	}
	for _, s := range p.manifest.Starts {
		if claims(s.ClaimMode) {
			found = append(found, misconfigured(fix, "%s restores in CLAIM mode: Flink then deletes the pin once a newer checkpoint completes", s.Where)...)
		}
	}
	return found
}

func claimMode(s settingsFrom) string {
	return s.Get("execution.state-recovery.claim-mode", "execution.savepoint-restore-mode")
}

// overridesClaim reports whether the job is started by the standalone entry point,
// which writes NO_CLAIM over whatever is configured: by the manifest, or by what
// the JobManager shows (StandaloneApplicationClusterEntryPoint, measured on
// 1.15.4, 1.20.5 and 2.2.1).
func (p *patient) overridesClaim() bool {
	for _, s := range p.settings {
		if s.from == fromJobManager && claimMode(s) != "" {
			return strings.EqualFold(claimMode(s), "NO_CLAIM")
		}
	}
	return p.manifest != nil && len(p.manifest.Starts) > 0 &&
		!slices.ContainsFunc(p.manifest.Starts, func(s manifest.Start) bool { return s.Action != "standalone-job" })
}
