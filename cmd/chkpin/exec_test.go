package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Where Flink still takes a word for an option of its own: P marks the place.
func TestPlaceInCommand(t *testing.T) {
	for _, marked := range []string{
		"/docker-entrypoint.sh standalone-job P --job-classname Orders --from north",
		"tini -g -- /docker-entrypoint.sh standalone-job P",
		"/opt/flink/bin/standalone-job.sh start-foreground P --job-classname Orders",
		"standalone-job.sh start P",
		"bash -e bin/standalone-job.sh start-foreground P -j Orders",
		"java -cp lib/* org.apache.flink.container.entrypoint.StandaloneApplicationClusterEntryPoint P --configDir conf",
		"flink run P -d orders.jar run",
		"/opt/flink/bin/flink run-application P -t kubernetes-application local:///orders.jar",
		"java -cp lib/* org.apache.flink.client.cli.CliFrontend run P -d orders.jar",
		"conda run -n orders flink run P -d -py orders.py",
		"poetry run /docker-entrypoint.sh standalone-job P --job-classname Orders",
	} {
		words := strings.Fields(marked)
		var command []string
		want := 0
		for i, w := range words {
			if w == "P" {
				want = i
				continue
			}
			command = append(command, w)
		}
		p, ok := placeIn(command)
		require.True(t, ok, marked)
		require.Equal(t, want, p.at, marked)
		require.Equal(t, strings.Contains(marked, "flink run") || strings.Contains(marked, "Frontend run"), p.run, marked)
	}
	for _, unknown := range []string{"my-entrypoint Orders", "run", "standalone-job", "standalone-job.sh stop", "/docker-entrypoint.sh jobmanager", "flink list"} {
		_, ok := placeIn(strings.Fields(unknown))
		require.False(t, ok, unknown)
	}
}

// The command of exec is its own, whatever its words mean to chkpin.
func TestCutCommand(t *testing.T) {
	for _, c := range []struct{ args, own, command string }{
		{"exec s3://b/k -- flink run", "exec s3://b/k", "flink run"},
		{"--log-level INFO exec s3://b/k --strict -- tini -- run --strict", "--log-level INFO exec s3://b/k --strict", "tini -- run --strict"},
		{"exec s3://b/k --", "exec s3://b/k", ""},
		{"exec s3://b/k", "exec s3://b/k", ""},
		{"verify -- s3://b/k", "verify -- s3://b/k", ""},
	} {
		own, command := cutCommand(strings.Fields(c.args))
		require.Equal(t, c.own, strings.Join(own, " "))
		require.Equal(t, c.command, strings.Join(command, " "))
	}
}
