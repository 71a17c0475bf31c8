package lab

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// Compile returns the jar of a job that is one Java source file, a class of the unnamed package, compiled
// against a release of Flink. The cache keeps it under a digest of the source.
func (l Lab) Compile(ctx context.Context, flink Distribution, class string, source []byte) (jar string, err error) {
	digest := sha256.Sum256(source)
	name := fmt.Sprintf("%s-%s-%s", class, flink.Release, hex.EncodeToString(digest[:6]))
	dir := filepath.Join(l.Cache, name)
	err = once(dir, func(unfinished string) error { return l.compile(ctx, flink, class, source, unfinished) })
	if err != nil {
		return "", fmt.Errorf("lab: compiling %s for Flink %s: %w", class, flink.Release, err)
	}
	return filepath.Join(dir, "job.jar"), nil
}

func (l Lab) compile(ctx context.Context, flink Distribution, class string, source []byte, dir string) error {
	java := filepath.Join(dir, class+".java")
	if err := os.WriteFile(java, source, 0o644); err != nil {
		return err
	}
	classes, err := os.MkdirTemp("", "chkpin-lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(classes)
	// Java 11 byte code runs on every JDK the releases run on, so the cache outlives a change of JDK.
	if err := run(ctx, l.Javac, "--release", "11", "-nowarn", "-d", classes, "-cp", flink.classpath(), java); err != nil {
		return err
	}

	file, err := os.Create(filepath.Join(dir, "job.jar"))
	if err != nil {
		return err
	}
	defer file.Close()
	jar := zip.NewWriter(file)
	if err := jar.AddFS(os.DirFS(classes)); err != nil {
		return err
	}
	return jar.Close()
}
