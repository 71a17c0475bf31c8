package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// copyGoal copies one artifact of a Maven repository to a folder, without what it depends on: the jars that the lab needs
// are complete. Its version is fixed so that the option names stay as they are.
const copyGoal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"

// Plugin returns a folder for [Options].Plugins that holds one of Flink's filesystems, such as flink-s3-fs-hadoop or
// flink-s3-fs-presto. It comes from the cache, or is downloaded first: 20 to 100 MB, with Maven, from whatever
// repository the machine is set up for. Where that lacks the version of a Flink release, a neighbour of the same
// minor release works as well. Without Maven the error is a *[MissingProgramError].
func (l Lab) Plugin(ctx context.Context, artifact, version string) (dir string, err error) {
	dir = filepath.Join(l.Cache, artifact+"-"+version)
	err = once(dir, func(unfinished string) error {
		// Flink loads each folder in its plugins folder with a class loader of its own.
		alone := filepath.Join(unfinished, artifact)
		if err := os.Mkdir(alone, 0o755); err != nil {
			return err
		}
		return l.copyArtifact(ctx, artifact, version, alone)
	})
	if err != nil {
		return "", fmt.Errorf("lab: getting the plugin %s %s: %w", artifact, version, err)
	}
	return dir, nil
}

// SQLClient returns a folder for [Options].SQLClient: the jars of Flink's SQL client that a binary release has in opt/.
// They come from the cache or, as those of [Lab.Plugin], from Maven (45 MB, nearly all of it flink-python, without which the
// client does not start: its CliOptionsParser looks for a class of that).
func (l Lab) SQLClient(ctx context.Context, version string) (dir string, err error) {
	dir = filepath.Join(l.Cache, "flink-sql-client-"+version)
	err = once(dir, func(unfinished string) error {
		for _, artifact := range []string{"flink-sql-client", "flink-sql-gateway", "flink-python"} {
			if err := l.copyArtifact(ctx, artifact, version, unfinished); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("lab: getting the SQL client %s: %w", version, err)
	}
	return dir, nil
}

// copyArtifact puts the jar of one artifact of Flink into dir.
func (l Lab) copyArtifact(ctx context.Context, artifact, version, dir string) error {
	if l.Maven == "" {
		return &MissingProgramError{Program: "mvn", Install: installMaven}
	}
	return run(ctx, l.Maven, "--batch-mode", "--quiet", copyGoal,
		"-Dartifact=org.apache.flink:"+artifact+":"+version, "-DoutputDirectory="+dir)
}
