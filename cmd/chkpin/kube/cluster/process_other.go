//go:build !linux

package cluster

import "syscall"

// endWithParent is for Linux alone, as the cluster is.
func endWithParent() *syscall.SysProcAttr { return nil }
