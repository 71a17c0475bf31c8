//go:build !linux

package servers

import (
	"fmt"
	"net"
)

// HoldPort finds a free port for 0; it cannot keep others from it.
func HoldPort(port int) (held int, release func(), err error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return 0, nil, err
	}
	return l.Addr().(*net.TCPAddr).Port, func() {}, l.Close()
}
