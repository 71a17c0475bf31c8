package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
)

// A setting for one of the two folders that a job writes its state to, by its
// name up to 1.19 and since 1.20, which still reads the old one
// (CheckpointingOptions). The new name wins where both are set.
type folderSetting struct{ old, new, below string }

var (
	checkpointsSetting = folderSetting{"state.checkpoints.dir", "execution.checkpointing.dir", "checkpoints"}
	savepointsSetting  = folderSetting{"state.savepoints.dir", "execution.checkpointing.savepoint-dir", "savepoints"}
)

// of returns the folder of all versions that a manifest sets, and the name of
// the setting.
func (f folderSetting) of(m Manifest) (key string, folder blobstore.URI, err error) {
	key = f.old
	if _, set := m.Properties[f.new]; set {
		key = f.new
	}
	text, set := m.Properties[key]
	if !set {
		return key, folder, nil
	}
	folder, err = blobstore.Parse(text)
	if err != nil {
		err = fmt.Errorf("job %s: %s: %w", m.Name, key, err)
	}
	return key, folder, err
}

// Place settles where a job keeps its state: in checkpoints/<name> and
// savepoints/<name> below state, or, when state is zero, where its settings say.
// Each version of the query has a folder in there, see [Manifest.Versioned].
func (m *Manifest) Place(state blobstore.URI) error {
	for _, f := range []folderSetting{checkpointsSetting, savepointsSetting} {
		key, folder, err := f.of(*m)
		if err != nil {
			return err
		}
		if !state.IsZero() {
			derived := state.Join(f.below, m.Name)
			if !folder.IsZero() && !folder.Same(derived) {
				return &ManifestError{File: "job " + m.Name, Text: fmt.Sprintf("%s is %s, but below the folder for state it is %s", key, folder, derived)}
			}
			folder = cmp.Or(folder, derived)
		}
		if folder.IsZero() {
			return &ManifestError{File: "job " + m.Name, Text: fmt.Sprintf("nothing says where its %s are: neither a folder for state nor %s", f.below, key)}
		}
		m.Properties[key] = folder.String()
	}
	return nil
}

// Versioned is the manifest that the job is started with: its folders are those
// of its version, under the old name and the new one, so that a name in the
// cluster's own configuration never wins. Stored manifests name the folders of all
// versions, once, as flink-sql-runner's do.
func (m Manifest) Versioned() Manifest {
	properties := make(map[string]string, len(m.Properties))
	for key, value := range m.Properties {
		properties[key] = value
	}
	m.Properties = properties
	for _, f := range []folderSetting{checkpointsSetting, savepointsSetting} {
		if _, folder, err := f.of(m); err == nil && !folder.IsZero() {
			version := folder.Join(strconv.Itoa(m.Meta.Version)).String()
			m.Properties[f.old], m.Properties[f.new] = version, version
		}
	}
	return m
}

// stateFolders are the folders of all versions that manifests of one job name,
// each once.
type stateFolders struct{ checkpoints, savepoints []blobstore.URI }

func foldersOf(manifests ...*Manifest) (stateFolders, error) {
	var all stateFolders
	for _, m := range manifests {
		if m == nil {
			continue
		}
		for _, f := range []struct {
			setting folderSetting
			folders *[]blobstore.URI
		}{{checkpointsSetting, &all.checkpoints}, {savepointsSetting, &all.savepoints}} {
			_, folder, err := f.setting.of(*m)
			if err != nil {
				return all, err
			}
			known := folder.IsZero()
			for _, k := range *f.folders {
				known = known || k.Same(folder)
			}
			if !known {
				*f.folders = append(*f.folders, folder)
			}
		}
	}
	return all, nil
}

// newestVersion is the highest version that has a folder, 0 when none has.
func (d *Deployer) newestVersion(ctx context.Context, folders stateFolders) (int, error) {
	newest := 0
	for _, folder := range append(folders.checkpoints, folders.savepoints...) {
		for o, err := range d.Store.List(ctx, d.Relocations.Apply(folder), blobstore.ListOptions{Shallow: true}) {
			if err != nil {
				return 0, err
			}
			if version, err := strconv.Atoi(o.URI.Base()); err == nil && o.Dir {
				newest = max(newest, version)
			}
		}
	}
	return newest, nil
}

// State is what a job can be started from.
type State struct {
	Path   blobstore.URI // the metadata file; zero when nothing proves
	Passed []string      // newer ones that do not prove, with the reason
	found  checkpoint.Resolved
}

// newestState finds the newest checkpoint or savepoint of one version that
// proves. Of states of one query the newest is what the store took in last.
func (d *Deployer) newestState(ctx context.Context, folders stateFolders, version int) (State, error) {
	opts := checkpoint.ResolveOptions{AnyLineage: true, Flink: d.Flink, Relocations: d.Relocations}
	var err error
	if opts.Checkpoints, err = d.filled(ctx, folders.checkpoints, version); err != nil {
		return State{}, err
	}
	if opts.Savepoints, err = d.filled(ctx, folders.savepoints, version); err != nil {
		return State{}, err
	}
	places := append(opts.Checkpoints, opts.Savepoints...)
	if len(places) == 0 {
		return State{}, nil
	}
	found, err := checkpoint.Resolve(ctx, d.Store, places[0], opts) // where there is no pin
	s := State{Path: found.Path, found: found}
	for _, c := range found.Candidates {
		if c.Preferred {
			s.Passed = append(s.Passed, fmt.Sprintf("%s: %s", c.URI, c.Why))
		}
	}
	if errors.Is(err, checkpoint.ErrNoPin) {
		return s, nil
	}
	return s, err
}

// filled are the folders of one version that hold anything.
func (d *Deployer) filled(ctx context.Context, folders []blobstore.URI, version int) ([]blobstore.URI, error) {
	var filled []blobstore.URI
	for _, folder := range folders {
		folder = folder.Join(strconv.Itoa(version))
		for _, err := range d.Store.List(ctx, d.Relocations.Apply(folder), blobstore.ListOptions{Shallow: true}) {
			if err != nil {
				return nil, err
			}
			filled = append(filled, folder)
			break
		}
	}
	return filled, nil
}

// prove checks one state and tells how to start from it.
func (d *Deployer) prove(ctx context.Context, path blobstore.URI) (State, error) {
	snap, err := checkpoint.Load(ctx, d.Store, path, checkpoint.LoadOptions{Relocations: d.Relocations})
	if err != nil {
		return State{}, err
	}
	report, err := checkpoint.Verify(ctx, d.Store, snap)
	if err == nil {
		err = report.Err(snap.URI)
	}
	return State{Path: snap.URI, found: checkpoint.Resolved{Path: snap.URI}}, err
}

// describe names a state by what tells it apart below its version's folder.
func (s State) describe() string {
	parts := strings.Split(s.Path.Dir().Path(), "/")
	return strings.Join(parts[max(0, len(parts)-2):], "/")
}
