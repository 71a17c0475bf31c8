package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// copyGoal copies one artifact of a Maven repository to a folder, without what it depends on: the jars of Flink's
// plugins are complete. Its version is fixed so that the option names stay as they are.
const copyGoal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"

// Plugin returns a folder for [Options].Plugins that holds one of Flink's filesystems, such as flink-s3-fs-hadoop or
// flink-s3-fs-presto. It comes from the cache, or is downloaded first: 20 to 100 MB, with Maven, from whatever
// repository the machine is set up for. Where that lacks the version of a Flink release, a neighbour of the same
// minor release works as well. Without Maven the error is a *[MissingProgramError].
func (l Lab) Plugin(ctx context.Context, artifact, version string) (dir string, err error) {
	dir = filepath.Join(l.Cache, artifact+"-"+version)
	err = once(dir, func(unfinished string) error {
		if l.Maven == "" {
			return &MissingProgramError{Program: "mvn", Install: installMaven}
		}
		// Flink loads each folder in its plugins folder with a class loader of its own.
		alone := filepath.Join(unfinished, artifact)
		if err := os.Mkdir(alone, 0o755); err != nil {
			return err
		}
		return run(ctx, l.Maven, "--batch-mode", "--quiet", copyGoal,
			"-Dartifact=org.apache.flink:"+artifact+":"+version, "-DoutputDirectory="+alone)
	})
	if err != nil {
		return "", fmt.Errorf("lab: getting the plugin %s %s: %w", artifact, version, err)
	}
	return dir, nil
}
