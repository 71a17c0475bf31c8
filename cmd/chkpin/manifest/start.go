package manifest

import (
	"path"
	"strings"
)

// kinds of options: what follows them.
const (
	flag   = iota // nothing
	value         // one word
	values        // all words up to the next option
)

// Options that Flink knows, by their short and long names; those of all releases
// from 1.13 to 2.3 together.
var (
	// StandaloneApplicationClusterEntryPoint, getOptions of 1.13.6 to 2.3.0; the
	// last two only in 1.x, jars since 1.20.
	entryPoint = options{
		"c": value, "configDir": value, "j": value, "job-classname": value, "jid": value, "job-id": value,
		"D": value, "s": value, "fromSavepoint": value, "n": flag, "allowNonRestoredState": flag, "jars": values,
		"r": value, "webui-port": value, "h": value, "host": value,
	}

	// CliFrontendParser, the options of run, with those of GenericCLI.
	frontend = options{
		"c": value, "class": value, "C": value, "classpath": value, "p": value, "parallelism": value,
		"s": value, "fromSavepoint": value, "n": flag, "allowNonRestoredState": flag,
		"rm": value, "restoreMode": value, "cm": value, "claimMode": value,
		"D": value, "t": value, "target": value, "e": value, "executor": value, "m": value, "jobmanager": value,
		"z": value, "zookeeperNamespace": value, "d": flag, "detached": flag, "sae": flag, "shutdownOnAttachedExit": flag,
		"q": flag, "sysoutLogging": flag, "py": value, "python": value, "pym": value, "pyModule": value,
		"pyfs": value, "pyFiles": value, "pyreq": value, "pyRequirements": value, "pyarch": value, "pyArchives": value,
		"pyexec": value, "pyExecutable": value, "pyclientexec": value, "pyClientExecutable": value,
	}
)

type options map[string]int

// find takes a word apart as commons-cli's DefaultParser does: --name, --name=value,
// an unambiguous beginning of a long name, -n, and -nvalue. attached is the value
// within the word, if any.
func (o options) find(word string) (name, attached string, ok bool) {
	long, isLong := strings.CutPrefix(word, "--")
	if isLong {
		long, attached, _ = strings.Cut(long, "=")
		if _, ok := o[long]; ok && len(long) > 1 {
			return long, attached, true
		}
		var matching []string
		for known := range o {
			if len(known) > 1 && strings.HasPrefix(known, long) && long != "" {
				matching = append(matching, known)
			}
		}
		if len(matching) == 1 {
			return matching[0], attached, true
		}
		return "", "", false
	}
	short, isShort := strings.CutPrefix(word, "-")
	if !isShort || short == "" {
		return "", "", false
	}
	short, attached, _ = strings.Cut(short, "=")
	if _, ok := o[short]; ok {
		return short, attached, true
	}
	if kind, ok := o[word[1:2]]; ok && kind != flag { // "-claimMode" is "-c laimMode"
		return word[1:2], word[2:], true
	}
	return "", "", false
}

// next takes the first option off words, with its argument.
func (o options) next(words []string) (name, argument string, rest []string, ok bool) {
	name, argument, ok = o.find(words[0])
	rest = words[1:]
	switch {
	case !ok || argument != "":
	case o[name] == value && len(rest) > 0:
		argument, rest = rest[0], rest[1:]
	case o[name] == values:
		for len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
			rest = rest[1:]
		}
	}
	return name, argument, rest, ok
}

// Options is what stands behind an action (run, or else standalone-job).
type Options struct {
	Restore   string   // the option that says what to restore, "" when none does
	ClaimMode string   // as given, "" when it is not
	Own       []string // the job's own words, which begin with the first that Flink does not know
}

// ReadOptions reads the words behind an action as Flink does.
func ReadOptions(words []string, run bool) (o Options) {
	known := entryPoint
	if run {
		known = frontend
	}
	for len(words) > 0 {
		name, argument, rest, ok := known.next(words)
		key, _, _ := strings.Cut(argument, "=")
		switch {
		case !ok:
			o.Own = words
			return o
		case name == "s" || name == "fromSavepoint":
			o.Restore = words[0]
		case name == "D" && isRestoreSetting(key):
			o.Restore = argument
		case isClaimMode(name):
			o.ClaimMode = argument
		}
		words = rest
	}
	return o
}

// isClaimMode reports whether an option says how to restore.
func isClaimMode(name string) bool {
	return name == "rm" || name == "restoreMode" || name == "cm" || name == "claimMode"
}

// isRestoreSetting reports whether a setting says what to restore.
func isRestoreSetting(key string) bool {
	return key == "execution.savepoint.path" || key == "execution.state-recovery.path"
}

// parseStart finds what starts a Flink job in a command line, and reads its
// options up to the first word that Flink does not know: from there on all
// belongs to the job (CommandLineParser stops at non-options; measured on 1.20.5
// and 2.3.0).
func parseStart(words []string) (start Start, settings map[string]string, ok bool) {
	at, action := actionIn(words)
	if at < 0 {
		return start, nil, false
	}
	start.Action = action
	known := entryPoint
	if action != "standalone-job" {
		known = frontend
	}
	settings = map[string]string{}
	rest := words[at+1:]
	if action == "standalone-job" && len(rest) > 0 && (rest[0] == "start" || rest[0] == "start-foreground") {
		rest = rest[1:] // the script's own word
	}
	for len(rest) > 0 {
		word := rest[0]
		if strings.HasPrefix(word, unresolved) {
			start.Unresolved, rest = strings.TrimPrefix(word, unresolved), rest[1:]
			continue
		}
		name, argument, left, found := known.next(rest)
		if !found {
			break
		}
		rest = left
		start.take(name, strings.TrimPrefix(argument, unresolved), settings)
	}
	if len(rest) > 0 {
		start.Stopped, start.Rest = rest[0], rest[1:]
	}
	return start, settings, true
}

func (s *Start) take(name, argument string, settings map[string]string) {
	switch {
	case name == "s" || name == "fromSavepoint":
		s.RestorePath = argument
	case name == "jid" || name == "job-id":
		s.JobID = argument
	case isClaimMode(name):
		s.ClaimMode = argument
	case name == "D":
		key, value, _ := strings.Cut(argument, "=")
		settings[key] = value
		if isRestoreSetting(key) {
			s.RestorePath = value
		}
	}
}

// The classes that the scripts of Flink end in.
const (
	EntryPointClass = "org.apache.flink.container.entrypoint.StandaloneApplicationClusterEntryPoint"
	FrontendClass   = "org.apache.flink.client.cli.CliFrontend"
)

// actionIn finds the word after which Flink's options stand.
func actionIn(words []string) (at int, action string) {
	flink := false
	for i, word := range words {
		switch base := path.Base(word); {
		case base == "standalone-job" || base == "standalone-job.sh" || word == EntryPointClass:
			return i, "standalone-job"
		case flink && (word == "run" || word == "run-application"):
			return i, word
		case base == "flink" || word == FrontendClass:
			flink = true
		}
	}
	return -1, ""
}

// Lost are the words among the job's own arguments that look like options for
// Flink: Flink never sees them.
func (s Start) Lost() (lost []string) {
	for i, word := range append([]string{s.Stopped}, s.Rest...) {
		name, _, _ := strings.Cut(word, "=")
		switch {
		case name == "--fromSavepoint" || name == "-fromSavepoint":
			lost = append(lost, word)
		case word == "-s" && i < len(s.Rest) && strings.Contains(s.Rest[i], "://"):
			lost = append(lost, word)
		case name == "--allowNonRestoredState", name == "--claimMode", name == "--restoreMode", name == "--job-classname", name == "--job-id":
			lost = append(lost, name)
		case strings.HasPrefix(word, "-D") && strings.Contains(word, "="):
			lost = append(lost, name) // without the value, which may be a secret
		}
	}
	return lost
}
