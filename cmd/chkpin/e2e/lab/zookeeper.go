package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/chkpin/chkpin/blobstore/storetest/servers"
)

// zooKeeperClass is the server that flink-dist brings along (flink-shaded-zookeeper-3, in 1.20 and 2.3).
const zooKeeperClass = "org.apache.flink.shaded.zookeeper3.org.apache.zookeeper.server.ZooKeeperServerMain"

// A ZooKeeper is one server, for high availability.
type ZooKeeper struct {
	Address string // host:port, for high-availability.zookeeper.quorum

	server  *process
	release func() // the port
}

// StartZooKeeper starts the ZooKeeper of a distribution with its data in dir, which it makes, and returns when it
// listens. The caller must call Stop.
func (l Lab) StartZooKeeper(ctx context.Context, flink Distribution, dir string) (*ZooKeeper, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	port, release, err := servers.HoldPort(0)
	if err != nil {
		return nil, err
	}
	z, err := l.startZooKeeperAt(ctx, flink, dir, port)
	if err != nil {
		release()
		return nil, err
	}
	z.release = sync.OnceFunc(release)
	return z, nil
}

func (l Lab) startZooKeeperAt(ctx context.Context, flink Distribution, dir string, port int) (*ZooKeeper, error) {
	conf := filepath.Join(dir, "zoo.cfg")
	text := fmt.Sprintf("dataDir=%s\nclientPort=%d\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n", dir, port)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command(l.Java, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx64m", "-cp", flink.classpath(), zooKeeperClass, conf)
	cmd.Dir = dir
	server, err := startProcess("ZooKeeper", filepath.Join(dir, "zookeeper.log"), cmd)
	if err != nil {
		return nil, err
	}
	z := &ZooKeeper{Address: fmt.Sprintf("127.0.0.1:%d", port), server: server}
	if err := z.waitListening(ctx); err != nil {
		server.kill()
		return nil, err
	}
	return z, nil
}

// Stop kills the server and waits until it is gone.
func (z *ZooKeeper) Stop() {
	z.server.kill()
	z.release()
}

func (z *ZooKeeper) waitListening(ctx context.Context) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		conn, err := net.Dial("tcp", z.Address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-z.server.done:
			return fmt.Errorf("lab: the ZooKeeper ended with exit code %d, see %s", z.server.exit, z.server.log)
		case <-ctx.Done():
			return fmt.Errorf("lab: waiting for the ZooKeeper at %s: %w", z.Address, errors.Join(ctx.Err(), err))
		case <-ticker.C:
		}
	}
}
