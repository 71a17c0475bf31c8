package cluster

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// process is a part of the cluster. It ends with this program.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
}

// begin starts a part with its log in the folder of logs.
func (c *Cluster) begin(program string, args ...string) error {
	name := filepath.Base(program)
	log, err := os.Create(filepath.Join(c.logs, name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	p := &process{name: name, log: log.Name(), cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = c.dir, log, log
	p.cmd.SysProcAttr = endWithParent()
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // why it ended stands in its log
		close(p.done)
	}()
	c.processes = append(c.processes, p)
	return nil
}

// stop asks the part to end, and ends it after a while.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// tail is the end of the part's log.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-3000):])
}

// wait polls until a condition holds, for at most a time, and as long as all
// parts of the cluster are alive.
func (c *Cluster) wait(ctx context.Context, what string, most time.Duration, holds func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for {
		err := holds(ctx)
		if err == nil {
			return nil
		}
		for _, p := range c.processes {
			select {
			case <-p.done:
				return fmt.Errorf("%s: %s ended:\n%s", what, p.name, p.tail())
			default:
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %v: %w", what, most, err)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// Run runs a program to its end and returns what it printed. Both outputs are in
// the error, if there is one.
func Run(ctx context.Context, stdin string, program string, args ...string) (string, error) {
	stdout, _, err := run(ctx, stdin, program, args...)
	return stdout, err
}

func run(ctx context.Context, stdin string, program string, args ...string) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(program), strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), errs.String(), err
}

// freePort is a port of the loopback that nobody listens on now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func freePorts(n int) (ports []int, err error) {
	for range n {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}
