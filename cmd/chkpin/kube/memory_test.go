//go:build kube

package kube

import (
	"bytes"
	"context"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/s3store"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/cmd/chkpin/kube/cluster"
	"github.com/chkpin/chkpin/cmd/chkpin/sample"
)

// holdsMemory has a pod with the chart's own limit pin a checkpoint of many
// files. No Flink of this machine makes that many: the JobManager is recorded.
func holdsMemory(k *kube, ctx context.Context) string {
	const files, limit = 20_000, 128 << 20
	store := k.store()
	jm := manyFiles(k, ctx, store, files)

	k.install(ctx, "many", k.values("many", jm, settings{"timeout": "15m"})) // on a busy machine
	job := k.start(ctx, "many")
	memory := k.memoryOf(ctx, job, 1)[0]
	k.ended(ctx, job)
	tick := k.result(ctx, job)
	require.Zero(k, tick.exit, tick.log)
	require.Contains(k, tick.log, fmt.Sprintf("%d files copied", files))
	require.EqualValues(k, limit, memory.Limit, "the limit of the chart holds for the container")
	require.LessOrEqual(k, memory.Peak, memory.Limit)

	pinned, err := checkpoint.Load(ctx, store, blobstore.MustParse("s3://"+bucket+"/many/last-state"), checkpoint.LoadOptions{})
	require.NoError(k, err)
	report, err := checkpoint.Verify(ctx, store, pinned)
	require.NoError(k, err)
	require.True(k, report.OK())
	require.Equal(k, files, report.Files, "the pin is whole")

	k.uninstall(ctx, "many")
	return fmt.Sprintf("%d files copied, all there; peak %.0f of %d MiB, met %d times, not killed",
		files, float64(memory.Peak)/(1<<20), limit>>20, memory.Hits)
}

// manyFiles makes a checkpoint and a JobManager that tells of it, whose URL for
// pods it returns.
func manyFiles(k *kube, ctx context.Context, store blobstore.Store, n int) string {
	k.Helper()
	recorded, err := sample.Unpack(filepath.Join(k.dir, "sample"))
	require.NoError(k, err)
	jm, err := recorded.JobManager()
	require.NoError(k, err)
	server := httptest.NewServer(jm)
	k.Cleanup(server.Close)

	folder := blobstore.MustParse("s3://" + bucket + "/many-checkpoints").Join(jm.JobID())
	content := bytes.Repeat([]byte("state..."), 128)
	names := make([]string, n)
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range names {
		u := folder.Join("shared").Join(fmt.Sprintf("%08x-4a1b-4c2d-8e3f-%012x", i, i))
		names[i] = u.String()
		group.Go(func() error {
			_, err := store.Put(limited, u, bytes.NewReader(content), blobstore.PutOptions{})
			return err
		})
	}
	require.NoError(k, group.Wait())
	const id = 100
	newest := folder.Join(fmt.Sprintf("chk-%d", id))
	metadata := sample.Incremental(id, names, int64(len(content)))
	_, err = store.Put(ctx, newest.Join(checkpoint.MetadataName), bytes.NewReader(metadata), blobstore.PutOptions{})
	require.NoError(k, err)
	require.NoError(k, jm.Complete(id, newest.String()))
	return k.forward(server.URL)
}

// store reaches the S3 of all scenarios from here.
func (k *kube) store() blobstore.Store {
	return s3store.New(s3store.Config{
		Endpoint: k.s3.URL, PathStyle: true, Region: "us-east-1", AccessKey: k.s3.AccessKey, SecretKey: k.s3.SecretKey,
	})
}

// memoryOf waits until the containers of a Job's pods run, and follows them to
// their end.
func (k *kube) memoryOf(ctx context.Context, job string, pods int) []cluster.Memory {
	k.Helper()
	var ids []string
	k.wait(ctx, 2*time.Minute, func() bool {
		ids = nil
		for line := range strings.Lines(k.kubectl(ctx, "get", "pods", "--namespace", namespace, "--selector", "job-name="+job,
			"--output", `jsonpath={range .items[*].status.containerStatuses[*]}{.containerID} {.state.running.startedAt}{"\n"}{end}`)) {
			if id, running, _ := strings.Cut(strings.TrimSpace(line), " "); running != "" {
				ids = append(ids, id)
			}
		}
		return len(ids) == pods
	})
	of := make([]cluster.Memory, pods)
	group, limited := errgroup.WithContext(ctx)
	for i, id := range ids {
		group.Go(func() (err error) {
			of[i], err = k.WatchMemory(limited, strings.TrimPrefix(id, "containerd://"))
			return err
		})
	}
	require.NoError(k, group.Wait())
	return of
}
