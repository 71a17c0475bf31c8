package deploy_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/deploy"
)

// The whole graph: what is deployed, what is wanted, what runs, and which state there is.
func TestDecide(t *testing.T) {
	wanted := job(nil)
	deployed := job(func(m *deploy.Manifest) { m.Meta = deploy.Meta{QueryID: "an id", Version: 3} })
	otherSettings := job(func(m *deploy.Manifest) { m.Properties = map[string]string{"parallelism.default": "2"} })
	otherQuery := job(func(m *deploy.Manifest) { m.SQL = "SELECT b FROM t" })
	otherTable := job(func(m *deploy.Manifest) { m.TargetTable = "elsewhere" })
	asCode := job(func(m *deploy.Manifest) { m.SQL, m.Code = "", m.SQL })
	reformatted := job(func(m *deploy.Manifest) { m.SQL = "SELECT a\n  FROM\tt  " })
	live := func(states ...string) (jobs []deploy.Job) {
		for _, state := range states {
			jobs = append(jobs, deploy.Job{ID: "1a", Name: "orders", State: state, Live: true})
		}
		return jobs
	}
	state := deploy.State{Path: blobstore.MustParse("s3://b/checkpoints/orders/3/1a/chk-7/_metadata")}
	damaged := deploy.State{Passed: []string{"s3://b/…/chk-7: 1 file missing"}}

	for _, c := range []struct {
		name    string
		facts   deploy.Facts
		kind    deploy.Kind
		version int
		reason  string
	}{
		{"new", deploy.Facts{Wanted: wanted}, deploy.Clean, 1, "new job"},
		{"new, where an earlier one left state", deploy.Facts{Wanted: wanted, Highest: 4}, deploy.Clean, 5, "new job"},

		{"running, unchanged", deploy.Facts{Wanted: wanted, Deployed: &deployed, Live: live("RUNNING")}, deploy.Nothing, 3, "running, unchanged"},
		{"restarting, unchanged", deploy.Facts{Wanted: wanted, Deployed: &deployed, Live: live("RESTARTING")}, deploy.Nothing, 3, "restarting, unchanged"},
		{"running, reformatted", deploy.Facts{Wanted: reformatted, Deployed: &deployed, Live: live("RUNNING")}, deploy.Nothing, 3, "running, unchanged"},
		{"running, not yet stored", deploy.Facts{Wanted: wanted, Deployed: &deployed, Live: live("RUNNING"), Unconfirmed: true},
			deploy.Nothing, 3, "running, started by a deploy that ended before it was seen"},
		{"running, other settings", deploy.Facts{Wanted: otherSettings, Deployed: &deployed, Live: live("RUNNING")},
			deploy.SavepointRestore, 3, "running, changed: parallelism.default"},
		{"running, other table", deploy.Facts{Wanted: otherTable, Deployed: &deployed, Live: live("RUNNING")},
			deploy.SavepointRestore, 3, "running, changed: target-table"},
		{"running, other query", deploy.Facts{Wanted: otherQuery, Deployed: &deployed, Live: live("RUNNING")},
			deploy.SavepointClean, 4, "running, the query changed"},
		{"running, the query as code", deploy.Facts{Wanted: asCode, Deployed: &deployed, Live: live("RUNNING")},
			deploy.SavepointClean, 4, "running, the query changed"},
		{"running, other query, a failed start left state", deploy.Facts{Wanted: otherQuery, Deployed: &deployed, Live: live("RUNNING"), Highest: 4},
			deploy.SavepointClean, 5, "running, the query changed"},

		{"not running, unchanged", deploy.Facts{Wanted: wanted, Deployed: &deployed, State: state, Highest: 3},
			deploy.Restore, 3, "not running, unchanged; newest is 1a/chk-7"},
		{"not running, unchanged, no state", deploy.Facts{Wanted: wanted, Deployed: &deployed},
			deploy.Error, 3, "not running, and there is no checkpoint or savepoint of version 3"},
		{"not running, unchanged, no state that proves", deploy.Facts{Wanted: wanted, Deployed: &deployed, State: damaged},
			deploy.Error, 3, "not running, and no checkpoint or savepoint of version 3 restores: s3://b/…/chk-7: 1 file missing"},
		{"not running, other settings", deploy.Facts{Wanted: otherSettings, Deployed: &deployed, State: state},
			deploy.Restore, 3, "not running, changed: parallelism.default; newest is 1a/chk-7"},
		{"not running, other settings, no state", deploy.Facts{Wanted: otherSettings, Deployed: &deployed},
			deploy.Error, 3, "not running, and there is no checkpoint or savepoint of version 3"},
		{"not running, other query", deploy.Facts{Wanted: otherQuery, Deployed: &deployed, Highest: 3},
			deploy.Clean, 4, "not running, the query changed"},

		{"several", deploy.Facts{Wanted: wanted, Deployed: &deployed, Live: live("RUNNING", "CREATED")},
			deploy.Error, 3, `2 jobs are named "orders": 1a (RUNNING), 1a (CREATED)`},
		{"on its way out", deploy.Facts{Wanted: wanted, Deployed: &deployed, Live: live("CANCELLING")}, deploy.Error, 3, "job 1a is CANCELLING"},
		{"new, but one of its name runs", deploy.Facts{Wanted: wanted, Live: live("RUNNING")},
			deploy.Error, 0, "no manifest of it is stored, but job 1a (RUNNING) runs under its name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := deploy.Decide(c.facts)
			assert.Equal(t, c.kind, d.Kind)
			assert.Equal(t, c.version, d.Version)
			assert.Equal(t, c.reason, d.Reason)
			if c.kind == deploy.Error {
				assert.EqualError(t, d.Err, c.reason)
			} else {
				assert.NoError(t, d.Err)
			}
		})
	}
}

func job(change func(*deploy.Manifest)) deploy.Manifest {
	m := deploy.Manifest{Name: "orders", SQL: "SELECT a FROM t", TargetTable: "sink"}
	if change != nil {
		change(&m)
	}
	return m
}
