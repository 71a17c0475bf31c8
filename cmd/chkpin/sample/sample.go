// Package sample is one real checkpoint of Flink 2.3.0 with the answers its JobManager gave, for demonstrations and
// tests of the command. The binary chkpin does not contain it.
//
// [Unpack] writes the checkpoint to a folder; [Sample.JobManager] then answers like the JobManager whose job took it
// there; [Sample.Complete] lets the job go on to its next checkpoint.
package sample

import (
	"embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing/fstest"

	"github.com/chkpin/chkpin/checkpoint/metadata"
	"github.com/chkpin/chkpin/flinkrest/replay"
)

//go:embed all:recorded
var recorded embed.FS

// What the recording says, see README.md.
const (
	recordedDir        = "/tmp/flink-pin/ckpt/2.3.0-rocksdb-incremental"
	recordedJobID      = "1624fd774f99507e464787c646439a53"
	recordedCheckpoint = 6
)

// Sample is the unpacked checkpoint of one run of the job.
type Sample struct {
	// Dir is the folder of all jobs' checkpoints, execution.checkpointing.dir in Flink's configuration.
	Dir string

	JobID string

	// Checkpoint is the number of the newest checkpoint, and the only one: the job retains one, Flink's default.
	Checkpoint int64
}

// Unpack writes the folder of the recorded job below dir, an absolute path, which it makes. The state handles in
// _metadata name what is below dir, as if the job had been configured so.
func Unpack(dir string) (Sample, error) { return UnpackAs(dir, recordedJobID) }

// UnpackAs is [Unpack] as another run of the job would have left it, one with this job id.
func UnpackAs(dir, jobID string) (Sample, error) {
	s := Sample{Dir: dir, JobID: jobID, Checkpoint: recordedCheckpoint}
	if !filepath.IsAbs(dir) {
		return s, fmt.Errorf("unpack sample: %s is not an absolute path", dir)
	}
	if err := s.unpack(); err != nil {
		return s, fmt.Errorf("unpack sample: %w", err)
	}
	return s, nil
}

func (s Sample) unpack() error {
	const root = "recorded/checkpoints/" + recordedJobID
	return fs.WalkDir(recorded, root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := recorded.ReadFile(name)
		if err != nil {
			return err
		}
		if entry.Name() == "_metadata" {
			data, err = edit(data, recordedCheckpoint, func(h metadata.Handle, path string) string { return s.place(path) })
			if err != nil {
				return err
			}
		}
		target := filepath.Join(s.folder(), filepath.FromSlash(strings.TrimPrefix(name, root)))
		if err := os.MkdirAll(filepath.Dir(target), 0o777); err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o666)
	})
}

// place moves recorded texts to where this sample is.
func (s Sample) place(text string) string {
	return strings.NewReplacer(recordedDir, s.Dir, recordedJobID, s.JobID).Replace(text)
}

// folder is the job's own folder.
func (s Sample) folder() string { return filepath.Join(s.Dir, s.JobID) }

func (s Sample) checkpointFolder() string {
	return filepath.Join(s.folder(), fmt.Sprintf("chk-%d", s.Checkpoint))
}

// Path is the newest checkpoint's folder as Flink spells it in external_path: file:/….
func (s Sample) Path() string { return "file:" + filepath.ToSlash(s.checkpointFolder()) }

// JobManager answers as the recorded one did, about this run and its checkpoint.
func (s Sample) JobManager() (*replay.JobManager, error) {
	answers := fstest.MapFS{}
	entries, err := recorded.ReadDir("recorded/rest")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		body, err := recorded.ReadFile("recorded/rest/" + entry.Name())
		if err != nil {
			return nil, err
		}
		answers[entry.Name()] = &fstest.MapFile{Data: []byte(s.inJSON().place(string(body)))}
	}
	jm, err := replay.New(answers)
	if err != nil {
		return nil, err
	}
	return jm, jm.Complete(s.Checkpoint, s.Path()) // the recording is one checkpoint older
}

// inJSON is s with its texts as they stand inside a JSON string.
func (s Sample) inJSON() Sample {
	quoted, _ := json.Marshal(s.Dir) // strings always marshal
	s.Dir = strings.Trim(string(quoted), `"`)
	return s
}

// Complete writes the job's next checkpoint and deletes the one before, as Flink does: SST files in shared/ stay and
// are named again; everything else is new. The state in it is the recorded one. A [replay.JobManager] is told with
//
//	jm.Complete(s.Checkpoint, s.Path())
func (s *Sample) Complete() error {
	before := s.checkpointFolder()
	s.Checkpoint++
	if err := s.advance(before); err != nil {
		return fmt.Errorf("complete checkpoint %d of the sample: %w", s.Checkpoint, err)
	}
	return nil
}

func (s *Sample) advance(before string) error {
	data, err := os.ReadFile(filepath.Join(before, "_metadata"))
	if err != nil {
		return err
	}
	replaced := map[string]string{} // files, by what they replace
	data, err = edit(data, s.Checkpoint, func(h metadata.Handle, path string) string {
		if h.Role != metadata.IncrementalPrivate {
			return path
		}
		next := fmt.Sprintf("%s%012d", path[:len(path)-12], s.Checkpoint) // a UUID's last group
		replaced[strings.TrimPrefix(path, "file:")] = strings.TrimPrefix(next, "file:")
		return next
	})
	if err != nil {
		return err
	}
	if err := os.CopyFS(s.checkpointFolder(), os.DirFS(before)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.checkpointFolder(), "_metadata"), data, 0o666); err != nil {
		return err
	}
	for old, next := range replaced {
		content, err := os.ReadFile(old)
		if err != nil {
			return err
		}
		if err := os.WriteFile(next, content, 0o666); err != nil {
			return err
		}
		if err := os.Remove(old); err != nil {
			return err
		}
	}
	return os.RemoveAll(before)
}

// edit changes the number and the absolute paths in a _metadata.
func edit(data []byte, checkpoint int64, change func(h metadata.Handle, path string) string) ([]byte, error) {
	file, err := metadata.Parse(data)
	if err != nil {
		return nil, err
	}
	data, err = file.Rewrite(func(h metadata.Handle) (metadata.Path, error) {
		path, err := h.Path()
		if h.Kind == metadata.RelativeFile {
			return metadata.Path{Text: path, Relative: true}, err
		}
		return metadata.Path{Text: change(h, path)}, err
	})
	if err != nil {
		return nil, err
	}
	// The number follows the magic number and the version (Checkpoints.storeCheckpointMetadata, 2.3.0).
	binary.BigEndian.PutUint64(data[8:], uint64(checkpoint))
	return data, nil
}
