package lab

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
)

// A process is a running program whose output goes to a file.
type process struct {
	name   string // for errors: "JobManager"
	log    string // the file of its output
	handle *os.Process
	done   chan struct{} // closed when it has ended
	exit   int           // exit code once done is closed; -1 if a signal ended it
}

func startProcess(name, log string, cmd *exec.Cmd) (*process, error) {
	output, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	dieWithParent(cmd)

	p := &process{name: name, log: log, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel sends the signal of dieWithParent when the thread that forked ends, which may be long
		// before the process does. Locked to its goroutine, the thread lives as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		p.handle = cmd.Process
		started <- err
		if err != nil {
			return
		}
		// Its error repeats what ExitCode says: the output is a plain file, so there is no copying to fail.
		_ = cmd.Wait()
		p.exit = cmd.ProcessState.ExitCode()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting the %s: %w", name, err)
	}
	return p, nil
}

// kill ends the process, if it has not ended yet, and waits until it is gone.
func (p *process) kill() {
	// A process that has ended already is the only thing that can go wrong here.
	_ = p.handle.Kill()
	<-p.done
}
