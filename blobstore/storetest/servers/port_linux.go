package servers

import (
	"fmt"
	"net"
	"syscall"
)

// HoldPort keeps a port of 127.0.0.1, or any free one for 0, from all who ask the
// system for some port, until release. Nobody listens on it; a server that is told
// to, and shares addresses as servers do (SO_REUSEADDR), can at any time.
func HoldPort(port int) (held int, release func(), err error) {
	// Bound and not listening: connections are refused, and no other socket is
	// given the port.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("holding a port: %w", err)
	}
	if held, err = bind(fd, port); err != nil {
		syscall.Close(fd)
		return 0, nil, fmt.Errorf("holding port %d: %w", port, err)
	}
	return held, func() { syscall.Close(fd) }, nil
}

// bind makes sure that servers can listen on what it binds.
func bind(fd, port int) (bound int, err error) {
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	bound = name.(*syscall.SockaddrInet4).Port
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", bound))
	if err != nil {
		return 0, err
	}
	return bound, l.Close()
}
