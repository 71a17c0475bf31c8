//go:build e2e

package e2e

import (
	"context"
	"os"
	"path/filepath"

	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/cmd/chkpin/e2e/lab"
)

// startSQL is the script of docs/deploy.md.
const startSQL = `{
  echo "$CHKPIN_DEPLOY_SQL_SETTINGS"
  cat "$2"
  echo "INSERT INTO $CHKPIN_DEPLOY_TARGET_TABLE $CHKPIN_DEPLOY_QUERY;"
} > "$3"
"$1" -f "$3"
`

const sqlTables = `
CREATE TABLE numbers (n INT) WITH ('connector' = 'datagen', 'rows-per-second' = '100', 'fields.n.min' = '1', 'fields.n.max' = '50');
CREATE TABLE counts (n INT, occurrences BIGINT) WITH ('connector' = 'blackhole');
`

// requireRestored lets the job complete checkpoints, and requires that the JobManager names the state that deploy chose.
func (d *deployment) requireRestored(ctx context.Context, result deployed) {
	d.Helper()
	_, err := d.cluster.WaitCheckpoints(ctx, 2)
	require.NoError(d, err)
	restored, err := d.cluster.Restored(ctx)
	require.NoError(d, err)
	if result.Restore == "" {
		require.Nil(d, restored, "the job is to begin without state")
		return
	}
	require.NotNil(d, restored, "the job is to begin with the state of %s", result.Restore)
	chosen, named := folderOf(d, result.Restore), folderOf(d, restored.Path)
	require.True(d, named.Same(chosen), "restored from %s, not from %s", named, chosen)
}

// deployOfSQL: a query with state in the SQL client, which hears of settings and state in SET statements alone.
func deployOfSQL(s *story) {
	d := &deployment{story: s, query: "SELECT n, COUNT(*) FROM numbers GROUP BY n"}
	deploys := func(ctx context.Context, decision string, version int) deployed {
		result := d.deploy(ctx, exitDone)
		require.Equal(s, decision, result.Decision, result.Reason)
		require.Equal(s, version, result.Version)
		return result
	}
	s.step("SQL: new job, then the same", func(ctx context.Context) string {
		client, err := s.lab.SQLClient(ctx, s.cell.sqlClientVersion())
		require.NoError(s, err)
		d.cluster = s.startAs(func(o *lab.Options) { o.Job, o.SQLClient = lab.Job{}, client })
		require.NoError(s, d.cluster.WaitReady(ctx))
		script, tables := filepath.Join(s.dir, "start-sql.sh"), filepath.Join(s.dir, "tables.sql")
		require.NoError(s, os.WriteFile(script, []byte(startSQL), 0o666))
		require.NoError(s, os.WriteFile(tables, []byte(sqlTables), 0o666))
		d.launch = []string{"sh", script, d.cluster.SQLClient, tables, filepath.Join(s.dir, "job.sql")}

		d.requireRestored(ctx, deploys(ctx, "clean", 1))
		deploys(ctx, "nothing", 1)
		return "clean, nothing"
	})
	s.step("SQL: running, settings changed", func(ctx context.Context) string {
		d.setting++
		result := deploys(ctx, "savepoint-restore", 1)
		require.Contains(s, result.Restore, "/savepoints/pinned-state/1/savepoint-")
		d.requireRestored(ctx, result)
		return "savepoint-restore"
	})
	s.step("SQL: not running, unchanged", func(ctx context.Context) string {
		require.NoError(s, d.cluster.Cancel(ctx))
		result := deploys(ctx, "restore", 1)
		require.Contains(s, result.Restore, "/checkpoints/pinned-state/1/")
		d.requireRestored(ctx, result)
		return "restore"
	})
	s.step("SQL: running, query changed", func(ctx context.Context) string {
		d.query = "SELECT n, COUNT(*) FROM numbers WHERE n > 10 GROUP BY n"
		d.requireRestored(ctx, deploys(ctx, "savepoint-clean", 2))
		return "savepoint-clean"
	})
}

// folderOf is the folder of a checkpoint or savepoint that is named by its folder or its metadata.
func folderOf(d *deployment, text string) blobstore.URI {
	d.Helper()
	uri, err := blobstore.Parse(text)
	require.NoError(d, err)
	if uri.Base() == "_metadata" {
		uri = uri.Dir()
	}
	return uri
}
