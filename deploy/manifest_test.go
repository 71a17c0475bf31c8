package deploy_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/deploy"
)

// A job's manifest is merged over the template: fields win, settings do one by one.
func TestMerge(t *testing.T) {
	template := `
target-table: sink
flinkProperties:
  execution.checkpointing.interval: 60s
  pipeline.object-reuse: True
  state.checkpoints.dir: "s3://b/checkpoints/{job_name}/"
  state.savepoints.dir: "s3://b/savepoints/{job_name}/"`
	manifest := `
name: orders
sql: >-
  SELECT a
  FROM t
flinkProperties:
  execution.checkpointing.interval: 10s`
	m, err := deploy.Parse("orders.yaml", []byte(manifest), "template.yaml", []byte(template))
	require.NoError(t, err)
	require.NoError(t, m.Place(blobstore.URI{}))
	assert.Equal(t, deploy.Manifest{
		Name: "orders", TargetTable: "sink", SQL: "SELECT a FROM t",
		Properties: map[string]string{
			"execution.checkpointing.interval": "10s",
			"pipeline.object-reuse":            "true",
			"pipeline.name":                    "orders",
			"state.checkpoints.dir":            "s3://b/checkpoints/orders",
			"state.savepoints.dir":             "s3://b/savepoints/orders",
		},
	}, m)

	m.Meta.Version = 2
	assert.Equal(t, "s3://b/checkpoints/orders/2", m.Versioned().Properties["state.checkpoints.dir"], "it is started with the folders of its version")
	assert.Equal(t, "s3://b/checkpoints/orders/2", m.Versioned().Properties["execution.checkpointing.dir"], "or the cluster's own setting of that name would win")
	assert.NotContains(t, m.Properties, "execution.checkpointing.dir")
	assert.Equal(t, "s3://b/checkpoints/orders", m.Properties["state.checkpoints.dir"])
}

// Without folders in the settings, they are below the folder for state; both must not contradict each other.
func TestPlace(t *testing.T) {
	parse := func(properties string) deploy.Manifest {
		m, err := deploy.Parse("orders.yaml", []byte("name: orders\nsql: SELECT 1\nflinkProperties: {"+properties+"}"), "", nil)
		require.NoError(t, err)
		return m
	}
	state := blobstore.MustParse("s3://b/flink")

	m := parse("")
	require.NoError(t, m.Place(state))
	assert.Equal(t, "s3://b/flink/savepoints/orders", m.Properties["state.savepoints.dir"])

	m = parse("execution.checkpointing.dir: s3a://b/flink/checkpoints/orders/")
	require.NoError(t, m.Place(state), "another spelling of the same")
	assert.Equal(t, "s3a://b/flink/checkpoints/orders", m.Properties["execution.checkpointing.dir"], "the name that Flink 1.20 prefers")
	assert.NotContains(t, m.Properties, "state.checkpoints.dir")

	m = parse("state.checkpoints.dir: s3://other/orders")
	assert.EqualError(t, m.Place(state), "job orders: state.checkpoints.dir is s3://other/orders, but below the folder for state it is s3://b/flink/checkpoints/orders")

	m = parse("")
	assert.EqualError(t, m.Place(blobstore.URI{}), "job orders: nothing says where its checkpoints are: neither a folder for state nor state.checkpoints.dir")
}

// A setting is what flink-sql-runner would have made of it, and Flink reads: it knows no yes. Quoted it is text.
func TestSettings(t *testing.T) {
	m, err := deploy.Parse("orders.yaml", []byte(`
name: orders
sql: SELECT 1
flinkProperties: {a: yes, b: Off, c: TRUE, d: "yes", e: 1.0, f: 2020-01-01, g: 1e3, h: y}`), "", nil)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{
		"a": "true", "b": "false", "c": "true", "d": "yes", "e": "1.0", "f": "2020-01-01", "g": "1e3", "h": "y", "pipeline.name": "orders",
	}, m.Properties)
}

// A name that is written elsewhere is the job's in the template, too.
func TestNameIsAnAlias(t *testing.T) {
	m, err := deploy.Parse("orders.yaml", []byte("description: &job orders\nname: *job\nsql: SELECT 1"), "t.yaml", []byte("target-table: sink-of-{job_name}"))
	require.NoError(t, err)
	assert.Equal(t, "orders", m.Name)
	assert.Equal(t, "sink-of-orders", m.TargetTable)
}

// Whatever cannot be used is told with its place.
func TestManifestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "j.yaml: it is empty",
		"just text":                  "j.yaml: line 1, column 1: it is not a mapping with the fields of a job",
		"name: a\n  sql: x":          "j.yaml: line 2, column 3: not YAML: mapping values are not allowed in this context",
		"name: a\nname: b":           `j.yaml: line 2, column 1: not YAML: mapping key "name" already defined at line 1`,
		"name: a\nsql: b\nmode: c":   `j.yaml: line 3, column 7: unknown field "mode"; a job has name, description, target-table, sql or code, and flinkProperties`,
		"name: a\nsql: [b]":          "j.yaml: line 2, column 6: sql is not a single value",
		"name: a\nsql:":              "j.yaml: line 2, column 5: sql has no value",
		"name: a":                    "j.yaml: neither sql nor code says what to run",
		"name: a\nsql: b\ncode: c":   "j.yaml: both sql and code say what to run",
		"sql: b":                     "j.yaml: the job has no name",
		"name: a/b\nsql: b":          `j.yaml: the name "a/b" cannot be a folder's: letters, digits, '.', '_' and '-' can`,
		"name: a\nsql: b\nmeta: {}":  "j.yaml: line 3, column 7: meta is written by deploy, not by hand",
		"name: a\nsql: b\n---\nx: y": "j.yaml: line 3, column 1: a second document; write one job a file",
		"name: a\nsql: b\nflinkProperties:\n  x: [1]":                 "j.yaml: line 4, column 6: flinkProperties.x is not a single value",
		"name: a\nsql: b\nflinkProperties: []":                        "j.yaml: line 3, column 18: flinkProperties is not a mapping of settings",
		"name: a\nsql: b\nflinkProperties:\n  pipeline.name: another": `j.yaml: pipeline.name is "another"; a running job is found by its name, so it must be "a", or be left out`,
	} {
		_, err := deploy.Parse("j.yaml", []byte(text), "", nil)
		assert.EqualError(t, err, want, "%s", text)
	}
	_, err := deploy.Parse("j.yaml", []byte("name: a\nsql: b"), "t.yaml", []byte("flinkProperties:\n\tx: y"))
	assert.ErrorContains(t, err, "t.yaml: line 2, column 2: not YAML: found character that cannot start any token")
}

// What flink-sql-runner stored is read as it is; what is stored here reads the same.
func TestStored(t *testing.T) {
	m, err := deploy.ParseStored("s3://b/manifests/query-unique-name.yaml", []byte(`
description: "Some description."
flinkProperties:
  pipeline.object-reuse: 'true'
  state.checkpoints.dir: s3://b/checkpoints/query-unique-name/
  state.savepoints.dir: s3://b/savepoints/query-unique-name/
meta:
  query-create-timestamp: '2022-12-07 08:57:42'
  query-id: 35d3d720-760d-11ed-bfeb-02e547cf7baa
  query-version: 2
name: query-unique-name
sql: SELECT  a  FROM  t
target-table: "`+"`kafka`.`some-flink-table-name`"+`"
another-field: of the original's template
`))
	require.NoError(t, err)
	assert.Equal(t, deploy.Meta{QueryID: "35d3d720-760d-11ed-bfeb-02e547cf7baa", Version: 2, CreateTimestamp: "2022-12-07 08:57:42"}, m.Meta)

	again, err := deploy.ParseStored("again", m.Encode())
	require.NoError(t, err)
	assert.Equal(t, m, again)

	_, err = deploy.ParseStored("stored", []byte("name: a\nsql: b\nmeta: {query-version: 1, layout: 2}"))
	assert.EqualError(t, err, "stored: line 3, column 7: written by a newer chkpin (layout 2); this one knows layout 1")
	_, err = deploy.ParseStored("stored", []byte("name: a\nsql: b"))
	assert.EqualError(t, err, "stored: it has no meta.query-version, so it is no manifest of a deployed job")
}

// Whitespace means nothing in SQL, but in literals, names and comments; in code only at the ends of lines.
func TestSameQuery(t *testing.T) {
	differ := func(a, b deploy.Manifest) bool { return deploy.QueryDiff(a, b) != "" }
	sql := func(text string) deploy.Manifest { return deploy.Manifest{SQL: text} }
	code := func(text string) deploy.Manifest { return deploy.Manifest{Code: text} }

	assert.False(t, differ(sql("SELECT  a\r\n\tFROM t\n"), sql("SELECT a FROM t")))
	assert.False(t, differ(sql("SELECT 'x\ny'"), sql("SELECT 'x y'")), "as flink-sql-runner stores it")
	assert.False(t, differ(sql("SELECT 'it''s'  ,  `a  b`"), sql("SELECT 'it''s' , `a  b`")))
	assert.False(t, differ(sql("SELECT 'grün',  'à'"), sql("SELECT 'grün', 'à'")))
	assert.False(t, differ(sql("SELECT a -- why  \n, b"), sql("SELECT a -- why\n  , b")))
	assert.True(t, differ(sql("SELECT 'x  y'"), sql("SELECT 'x y'")))
	assert.True(t, differ(sql("SELECT `a  b`"), sql("SELECT `a b`")))
	assert.True(t, differ(sql("SELECT a -- why\n, b"), sql("SELECT a -- why , b")))
	assert.True(t, differ(sql("SELECT a"), sql("select a")))
	for _, comment := range []string{"/* don't */", "/* a -- b */", "/* ` */", "// it's\n", "/*+ OPTIONS('a'='b') */"} {
		assert.True(t, differ(sql(comment+" SELECT 'x  y'"), sql(comment+" SELECT 'x y'")), comment)
		assert.False(t, differ(sql(comment+" SELECT a,  b"), sql(comment+" SELECT a, b")), comment)
	}
	assert.False(t, differ(sql("/* one\n   two */ SELECT 1"), sql("/* one two */ SELECT 1")))
	assert.True(t, differ(sql("/*+ OPTIONS('a'='b  c') */"), sql("/*+ OPTIONS('a'='b c') */")))
	assert.True(t, differ(sql("x"), code("x")))

	assert.False(t, differ(code("if x:  \r\n  y()\n\n"), code("if x:\n  y()")))
	assert.True(t, differ(code("if x:\n  y()"), code("if x:\n    y()")))
	assert.Equal(t, "--- deployed\n+++ wanted\n@@ -1,2 +1,2 @@\n SELECT a\n-FROM t\n+FROM u\n", deploy.QueryDiff(sql("SELECT a\nFROM t"), sql("SELECT a\nFROM u")))
}
