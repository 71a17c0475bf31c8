//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/azstore"
	"github.com/chkpin/chkpin/blobstore/s3store"
	"github.com/chkpin/chkpin/blobstore/storetest/servers"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/lab"
)

// A storage is a kind of place for checkpoints and pins.
type storage struct {
	name      string
	plugin    string // Flink's filesystem for S3 or Azure; empty: a volume
	missing   string // how Flink's log calls a state file that is not there
	entropy   bool   // state files get random folders (s3.entropy.key)
	flinkConf bool   // chkpin reads Flink's configuration, instead of flags and AWS_ variables
}

var (
	volume    = storage{name: "file", missing: "FileNotFoundException"}
	s3Hadoop  = storage{name: "s3-hadoop", plugin: "flink-s3-fs-hadoop", missing: "FileNotFoundException"}
	s3Presto  = storage{name: "s3-presto", plugin: "flink-s3-fs-presto", missing: "NoSuchKey", flinkConf: true}
	s3Entropy = storage{name: "s3-entropy", plugin: "flink-s3-fs-hadoop", missing: "FileNotFoundException",
		entropy: true, flinkConf: true}
	azure = storage{name: "wasb", plugin: "flink-azure-fs-hadoop", missing: "FileNotFoundException"}
)

// entropyMark is what Flink puts random letters for when it names a state file, and leaves out of all other names.
const entropyMark = "_entropy_"

// A place is where one story plays. Its store does on S3 what people do with other tools; it goes through the
// server's API because objects put into the server's folder would have no ETag, and Flink refuses those.
type place struct {
	storage
	store       blobstore.Store
	root        blobstore.URI     // all that Flink writes in this story
	app         blobstore.URI     // <app>: job folders and last-state/
	checkpoints string            // Flink's execution.checkpointing.dir
	conf        map[string]string // Flink's configuration of the filesystem
	server      servers.S3
}

// newPlace makes an empty place below dir.
func newPlace(t *testing.T, kind storage, dir string) place {
	t.Helper()
	p := place{storage: kind}
	if kind.plugin == "" {
		p.store = blobstore.NewFile()
		volume := filepath.Join(dir, "state")
		require.NoError(t, os.MkdirAll(volume, 0o755), "it is mounted, also when Flink writes nothing to it")
		p.root = blobstore.MustParse("file://" + volume)
		p.app = p.root.Join("app")
		p.checkpoints = p.app.String()
		return p
	}
	if kind == azure {
		servers.AzureEmulator(t, "flink")
		p.store = azstore.New(azstore.Config{})
		p.root = blobstore.MustParse("wasb://flink@storageemulator")
		p.app = p.root.Join("a%20b+c?d", "app") // literally, which is how Flink takes it
		p.checkpoints = p.app.String()
		return p
	}

	const bucket = "flink"
	p.server = servers.VersityGW(t, []string{bucket})
	p.store = s3store.New(s3store.Config{
		Endpoint: p.server.URL, PathStyle: true, AccessKey: p.server.AccessKey, SecretKey: p.server.SecretKey,
	})
	p.root = blobstore.MustParse("s3://" + bucket)
	p.app = p.root.Join("state", "app")
	p.checkpoints = p.app.String()
	p.conf = map[string]string{
		"s3.endpoint":          p.server.URL,
		"s3.path.style.access": "true",
		"s3.access-key":        p.server.AccessKey,
		"s3.secret-key":        p.server.SecretKey,
		// Otherwise the Hadoop filesystem deletes the "directory" above what it writes, which is no empty one
		// to a server that keeps objects in folders, and tries that for ever.
		"s3.directory.marker.retention": "keep",
	}
	if kind.entropy {
		p.checkpoints = p.root.Join(entropyMark, p.app.Key()).String()
		p.conf["s3.entropy.key"] = entropyMark
		p.conf["s3.entropy.length"] = "4"
	}
	return p
}

// access is how chkpin is told to reach the place, given the configuration folder of a cluster that does.
func (p place) access(confDir string) (flags, env []string) {
	switch {
	case p.plugin == "", p.storage == azure: // the emulator's address and key are known
		return nil, nil
	case p.flinkConf:
		return []string{"--flink-conf", confDir}, nil
	}
	return []string{"--s3-endpoint", p.server.URL, "--s3-path-style", "--s3-region", "us-east-1"},
		[]string{"AWS_ACCESS_KEY_ID=" + p.server.AccessKey, "AWS_SECRET_ACCESS_KEY=" + p.server.SecretKey}
}

// files lists what lies in a folder or below it.
func (s *story) files(ctx context.Context, folder blobstore.URI) []blobstore.URI {
	s.Helper()
	var files []blobstore.URI
	for file, err := range s.store.List(ctx, folder, blobstore.ListOptions{}) {
		require.NoError(s, err)
		files = append(files, file.URI)
	}
	return files
}

// filesOf lists the files of a job, or those of a folder in its job folder. With entropy they are scattered over the
// bucket, each below the same folders.
func (s *story) filesOf(ctx context.Context, jobID string, folder ...string) []blobstore.URI {
	s.Helper()
	within := "/" + path.Join(append([]string{jobID}, folder...)...) + "/"
	var files []blobstore.URI
	for _, file := range s.files(ctx, s.root) {
		if strings.Contains(file.Path(), within) {
			files = append(files, file)
		}
	}
	return files
}

// scattered reports whether files of a job lie outside of its job folder.
func (s *story) scattered(ctx context.Context, jobID string) bool {
	s.Helper()
	folder := s.app.Join(jobID)
	return slices.ContainsFunc(s.filesOf(ctx, jobID), func(file blobstore.URI) bool { return !file.Within(folder) })
}

func (s *story) delete(ctx context.Context, files []blobstore.URI) {
	s.Helper()
	require.NotEmpty(s, files, "files to delete")
	for _, file := range files {
		require.NoError(s, s.store.Delete(ctx, file))
	}
}

var completed = regexp.MustCompile(`/chk-(\d+)/_metadata$`)

// keptCheckpoint finds the checkpoint that a cancelled job has kept.
func (s *story) keptCheckpoint(ctx context.Context, jobID string) lab.Checkpoint {
	s.Helper()
	var kept []lab.Checkpoint
	for _, file := range s.filesOf(ctx, jobID) {
		if found := completed.FindStringSubmatch(file.Path()); found != nil {
			checkpoint := lab.Checkpoint{Path: file.Dir().String()}
			_, err := fmt.Sscan(found[1], &checkpoint.ID)
			require.NoError(s, err)
			kept = append(kept, checkpoint)
		}
	}
	require.Len(s, kept, 1, "completed checkpoints of job %s", jobID)
	return kept[0]
}

// lastState returns a digest of each file of the pin, by path.
func (s *story) lastState(ctx context.Context) map[string]string {
	s.Helper()
	digests := map[string]string{}
	pin := s.app.Join("last-state")
	for _, file := range s.files(ctx, pin) {
		content, _, err := blobstore.ReadAll(ctx, s.store, file, 0)
		require.NoError(s, err)
		name, _ := file.Rel(pin)
		digests[name] = fmt.Sprintf("%x", sha256.Sum256(content))
	}
	return digests
}

// deleteAll deletes all that Flink and chkpin wrote in a place.
func (s *story) deleteAll(ctx context.Context, p place) {
	s.Helper()
	here := s.place
	defer func() { s.place = here }()
	s.place = p
	s.delete(ctx, s.files(ctx, s.root))
}

// write makes a file in the place.
func (s *story) write(ctx context.Context, file blobstore.URI, content []byte) {
	s.Helper()
	_, err := s.store.Put(ctx, file, bytes.NewReader(content), blobstore.PutOptions{})
	require.NoError(s, err)
}
