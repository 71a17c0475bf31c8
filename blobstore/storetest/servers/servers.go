// Package servers starts object stores on loopback for tests, each until its
// test ends.
package servers

import (
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// S3 is a running server of the S3 protocol.
type S3 struct {
	URL       string
	AccessKey string
	SecretKey string
	Dir       string // versitygw: the folder whose folders are the buckets
}

// FakeS3 starts gofakes3 in this process, with the buckets. It checks neither
// signatures nor most conditions: fit for plain calls only.
func FakeS3(t testing.TB, buckets ...string) S3 {
	t.Helper()
	backend := s3mem.New()
	for _, b := range buckets {
		if err := backend.CreateBucket(b); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	return S3{URL: server.URL, AccessKey: "fake", SecretKey: "fake"}
}

// VersityVersion is the release that "make tools" installs; keep them equal.
const VersityVersion = "v1.8.0"

// VersityGW starts versitygw on a temporary folder, with the buckets. It keeps
// to S3's semantics, signatures and conditions of Puts included. More arguments
// go in front of its "posix" command.
func VersityGW(t testing.TB, buckets []string, args ...string) S3 {
	t.Helper()
	s, stop, err := StartVersityGW(t.TempDir(), buckets, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return s
}

// StartVersityGW is VersityGW for callers without a test: dir holds the
// buckets and must exist.
func StartVersityGW(dir string, buckets []string, args ...string) (s S3, stop func(), err error) {
	binary, err := versityBinary()
	if err != nil {
		return s, nil, err
	}
	for _, b := range buckets {
		if err := os.MkdirAll(filepath.Join(dir, b), 0o755); err != nil {
			return s, nil, err
		}
	}
	s = S3{AccessKey: "chkpin-test", SecretKey: "chkpin-test-secret", Dir: dir}
	address, stop, err := startAtFreePort(func(address string) (func(), error) {
		args := append([]string{"--port", address, "--access", s.AccessKey, "--secret", s.SecretKey, "--quiet"}, args...)
		return start(exec.Command(binary, append(args, "posix", dir)...), address, filepath.Join(filepath.Dir(dir), "versitygw.log"))
	})
	s.URL = "http://" + address
	return s, stop, err
}

// start starts a server and waits until it listens. stop kills it.
func start(cmd *exec.Cmd, address, logFile string) (stop func(), err error) {
	log, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = endWithParent()
	started, exited := make(chan error), make(chan struct{})
	go func() {
		// The kernel sends the signal of endWithParent when the thread that forked
		// ends. Locked to its goroutine, it lives as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait() //nolint:errcheck // it is killed
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		log.Close()
		return nil, err
	}
	stop = func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		<-exited
		log.Close()
	}
	if err := waitListening(address, exited); err != nil {
		stop()
		return nil, fmt.Errorf("%s, see %s: %w", filepath.Base(cmd.Path), logFile, err)
	}
	return stop, nil
}

// versityBinary finds what "make tools" installed.
func versityBinary() (string, error) {
	return tool("versitygw "+VersityVersion, "bin", "versitygw-"+VersityVersion)
}

// tool is the path of a file that "make tools" installed.
func tool(what string, elem ...string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	if dir := os.Getenv("CHKPIN_LAB_CACHE"); dir != "" {
		cache = dir
	} else {
		cache = filepath.Join(cache, "chkpin-lab")
	}
	path := filepath.Join(append([]string{cache}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not installed: run \"make tools\" (%w)", what, err)
	}
	return path, nil
}

// startAtFreePort starts a server that is told the address to listen on. stop kills
// it.
func startAtFreePort(start func(address string) (stop func(), err error)) (address string, stop func(), err error) {
	port, release, err := HoldPort(0)
	if err != nil {
		return "", nil, err
	}
	address = fmt.Sprintf("127.0.0.1:%d", port)
	kill, err := start(address)
	if err != nil {
		release()
		return "", nil, err
	}
	return address, func() { kill(); release() }, nil
}

func waitListening(address string, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return nil
		}
		select {
		case <-tick.C:
		case <-exited:
			return fmt.Errorf("it ended before it listened on %s", address)
		case <-ctx.Done():
			return fmt.Errorf("it does not listen on %s after a minute", address)
		}
	}
}
