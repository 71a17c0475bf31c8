package checkpoint

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/chkpin/chkpin/checkpoint/metadata"
)

// FlinkVersion is a release of Flink, as far as names and formats depend on it.
// The zero value is an unknown one.
type FlinkVersion struct{ Major, Minor int }

// ParseFlinkVersion reads 1.20, 1.20.5 or 2.0-SNAPSHOT.
func ParseFlinkVersion(text string) (FlinkVersion, error) {
	var v FlinkVersion
	if n, _ := fmt.Sscanf(text, "%d.%d", &v.Major, &v.Minor); n < 2 || v.Major < 1 || v.Minor < 0 {
		return FlinkVersion{}, fmt.Errorf("%q is not a release of Flink, such as 1.20", text)
	}
	return v, nil
}

// UnmarshalText is [ParseFlinkVersion].
func (v *FlinkVersion) UnmarshalText(text []byte) (err error) {
	*v, err = ParseFlinkVersion(string(text))
	return err
}

// IsZero reports whether the release is unknown.
func (v FlinkVersion) IsZero() bool { return v == FlinkVersion{} }

func (v FlinkVersion) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Compare is negative when v is older than w, 0 when they are the same.
func (v FlinkVersion) Compare(w FlinkVersion) int {
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor))
}

// The releases that gave the restore path other names.
var (
	restoreModes = FlinkVersion{1, 15} // there is a mode: RestoreMode, CLAIM, NO_CLAIM and LEGACY
	claimModes   = FlinkVersion{1, 20} // it is called claim mode, and the settings state-recovery
)

// Setting is a line of Flink's configuration.
type Setting struct{ Key, Value string }

// Args are the arguments for the entry point of application mode, the same in
// every release (StandaloneApplicationClusterEntryPoint, 1.13 to 2.3). It has
// no option for the claim mode, which is always NO_CLAIM there.
func (r Resolved) Args() []string { return []string{"--fromSavepoint", r.Path.String()} }

// RunArgs are the options of "flink run" (CliFrontendParser): -restoreMode from
// 1.15 on, which is called -claimMode since 1.20. Both are measured on 2.3.0, so
// what an unknown release gets suits 1.15 to 2.3; releases before refuse it.
func (r Resolved) RunArgs(flink FlinkVersion) []string {
	args := []string{"-s", r.Path.String()}
	switch {
	case flink.IsZero():
		return append(args, "-restoreMode", noClaim)
	case flink.Compare(restoreModes) < 0:
		return args
	case flink.Compare(claimModes) < 0:
		return append(args, "-restoreMode", noClaim)
	}
	return append(args, "-claimMode", noClaim)
}

// Settings are the configuration to start from it (SavepointConfigOptions up to
// 1.19, StateRecoveryOptions since 1.20). An unknown release gets the older
// names, which 2.3 still reads; a name that is newer than the release would be
// ignored without a word, and the job would start empty.
func (r Resolved) Settings(flink FlinkVersion) []Setting {
	path := r.Path.String()
	switch {
	case !flink.IsZero() && flink.Compare(restoreModes) < 0:
		return []Setting{{"execution.savepoint.path", path}}
	case flink.Compare(claimModes) < 0:
		return []Setting{{"execution.savepoint.path", path}, {"execution.savepoint-restore-mode", noClaim}}
	}
	return []Setting{{"execution.state-recovery.path", path}, {"execution.state-recovery.claim-mode", noClaim}}
}

// noClaim is the mode in which a job leaves alone what it restores from. In mode
// CLAIM it deletes the pin.
const noClaim = "NO_CLAIM"

// ReadableSince is the oldest release that can read the metadata file: by its
// format version, and by what releases added without a new version
// (MetadataSerializers, MetadataV2V3SerializerBase). Measured: 1.11.6 refuses
// in-flight data of 1.12.7, 1.13.6 finished subtasks of 1.14.6 and handles of
// 1.15.4, all of one format version.
func (s *Snapshot) ReadableSince() FlinkVersion {
	since := formatSince(s.Version)
	for _, other := range []FlinkVersion{tagSince(s.HighestTag, s.Dialect), s.version3Since()} {
		if other.Compare(since) > 0 {
			since = other
		}
	}
	return since
}

// ReadableUntil is the newest release that can read the metadata file, the zero
// value if every later one can. Two layouts were read by no release but the one
// that wrote them: in-flight data of 1.11 (1.12.7 and 2.3.0 refuse it) and the
// changelog of 1.14 (1.15.4 and 2.3.0 do).
func (s *Snapshot) ReadableUntil() FlinkVersion {
	switch s.Dialect {
	case metadata.Flink111:
		return FlinkVersion{1, 11}
	case metadata.Flink114:
		return FlinkVersion{1, 14}
	}
	return FlinkVersion{}
}

// version3Since is what came to version 3 without a tag.
func (s *Snapshot) version3Since() FlinkVersion {
	if s.Version != 3 {
		return FlinkVersion{}
	}
	for _, op := range s.Operators {
		finished := func(subtask metadata.Subtask) bool { return subtask.Finished }
		if op.Finished || slices.ContainsFunc(op.Subtasks, finished) {
			return FlinkVersion{1, 14}
		}
	}
	for h := range s.Handles() {
		if inFlight := h.Role == metadata.InputChannel || h.Role == metadata.OutputChannel; inFlight && s.Dialect != metadata.Flink111 {
			return FlinkVersion{1, 12} // with the index of the subtask
		}
	}
	return FlinkVersion{}
}

func formatSince(version int32) FlinkVersion {
	switch {
	case version <= 2:
		return FlinkVersion{1, 3}
	case version == 3:
		return FlinkVersion{1, 11}
	case version == 4:
		return FlinkVersion{1, 16}
	case version == 5:
		return FlinkVersion{2, 0}
	}
	return FlinkVersion{2, 1}
}

func tagSince(tag byte, dialect metadata.Dialect) FlinkVersion {
	switch {
	case tag >= 15: // merged files
		return FlinkVersion{1, 20}
	case tag >= 13: // changelog with a checkpoint id or a storage name
		return FlinkVersion{1, 16}
	case tag >= 8 && dialect == metadata.Flink114: // changelog, as only 1.14 reads it
		return FlinkVersion{1, 14}
	case tag >= 8: // changelog, and handles with an id
		return FlinkVersion{1, 15}
	case tag == 7: // canonical savepoints
		return FlinkVersion{1, 13}
	}
	return FlinkVersion{}
}
