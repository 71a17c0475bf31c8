package lab

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
)

// A Distribution is the Java libraries of one Flink release.
type Distribution struct {
	Release string // such as "1.20.5"
	Lib     string // the folder of Flink's own jars, what a Flink image has in lib/
}

// classpath names every jar of d and the given ones.
func (d Distribution) classpath(jars ...string) string {
	classpath := filepath.Join(d.Lib, "*")
	for _, jar := range jars {
		classpath += string(os.PathListSeparator) + jar
	}
	return classpath
}

// Distribution returns a release of Flink from the cache, and downloads it first where necessary: about 300 MB,
// as the Python package apache-flink-libraries, which carries the jars of the binary release (flink-dist with
// RocksDB and ForSt, log4j) and is found by pip in whatever index the machine is set up for. It holds neither
// shell scripts nor the S3 and Azure plugins, for which there is [Lab.Plugin].
func (l Lab) Distribution(ctx context.Context, release string) (Distribution, error) {
	dir := filepath.Join(l.Cache, "flink-"+release)
	err := once(dir, func(unfinished string) error { return l.download(ctx, release, unfinished) })
	if err != nil {
		return Distribution{}, fmt.Errorf("lab: getting Flink %s: %w", release, err)
	}
	return Distribution{Release: release, Lib: filepath.Join(dir, "lib")}, nil
}

// download puts the jars of a release into dir/lib.
func (l Lab) download(ctx context.Context, release, dir string) error {
	work, err := os.MkdirTemp("", "chkpin-lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)

	venv := filepath.Join(work, "venv")
	pip := filepath.Join(venv, "bin", "pip")
	if err := run(ctx, l.Python, "-m", "venv", venv); err != nil {
		return fmt.Errorf("%w\n%s", err, installPython)
	}
	// pip insists on reading the package's metadata, for which it needs these two. Without build isolation
	// it does so in seconds, with it in a minute.
	if err := run(ctx, pip, "install", "wheel", "setuptools"); err != nil {
		return err
	}
	archives := filepath.Join(work, "archives")
	if err := run(ctx, pip, "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation",
		"--dest", archives, "apache-flink-libraries=="+release); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(archives, "*.tar.gz"))
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("pip left %d archives, want 1: %q", len(found), found)
	}
	return unpackJars(found[0], filepath.Join(dir, "lib"))
}

// unpackJars writes the jars that the archive holds as <package>/deps/lib/*.jar into lib.
func unpackJars(archive, lib string) error {
	if err := os.Mkdir(lib, 0o755); err != nil {
		return err
	}
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return fmt.Errorf("reading %s: %w", archive, err)
	}

	jars := 0
	entries := tar.NewReader(unzipped)
	for {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", archive, err)
		}
		if matched, err := path.Match("*/deps/lib/*.jar", entry.Name); err != nil || !matched {
			continue
		}
		if err := writeFile(filepath.Join(lib, path.Base(entry.Name)), entries); err != nil {
			return fmt.Errorf("unpacking %s: %w", entry.Name, err)
		}
		jars++
	}
	if jars == 0 {
		return fmt.Errorf("%s holds no deps/lib/*.jar", archive)
	}
	return nil
}

func writeFile(name string, content io.Reader) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}
