// Package servers starts object stores on loopback for tests, each until its
// test ends.
package servers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
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
	address, err := freeAddress()
	if err != nil {
		return s, nil, err
	}
	s = S3{URL: "http://" + address, AccessKey: "chkpin-test", SecretKey: "chkpin-test-secret", Dir: dir}
	args = append([]string{"--port", address, "--access", s.AccessKey, "--secret", s.SecretKey, "--quiet"}, args...)
	stop, err = start(exec.Command(binary, append(args, "posix", dir)...), address, filepath.Join(filepath.Dir(dir), "versitygw.log"))
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
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }() //nolint:errcheck // it is killed
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

// freeAddress is a loopback address that nobody listens on now. It lies below
// the ports that systems give to outgoing connections and to listeners on port
// 0, so that none of those takes it before the server listens, and is random, so
// that servers that start at once do not meet.
func freeAddress() (string, error) {
	const first, last, tries = 15_000, 30_000, 100
	var err error
	for range tries {
		address := fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first))
		var l net.Listener
		if l, err = net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", err
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
