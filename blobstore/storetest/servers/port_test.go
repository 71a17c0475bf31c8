package servers_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore/storetest/servers"
)

// Nobody listens on a port that is held until a server is told to.
func TestHoldPort(t *testing.T) {
	port, release, err := servers.HoldPort(0)
	require.NoError(t, err)
	defer release()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	_, err = net.Dial("tcp", address)
	require.ErrorContains(t, err, "connection refused")

	for range 2 { // also where a server was before
		l, err := net.Listen("tcp", address)
		require.NoError(t, err)
		client, err := net.Dial("tcp", address)
		require.NoError(t, err)
		server, err := l.Accept()
		require.NoError(t, err)
		server.Close() // first, so that the port is not free at once
		client.Close()
		require.NoError(t, l.Close())
		again, releaseAgain, err := servers.HoldPort(port)
		require.NoError(t, err)
		assert.Equal(t, port, again)
		releaseAgain()
	}
}
