package cluster

import "syscall"

// endWithParent has a process killed when this program ends, and keeps a Ctrl-C
// from it: the cluster is stopped in order.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
