package servers

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"
)

// Azure is a running server of the protocol of Azure Blob Storage, in which
// accounts are folders. It has two of them, which know nothing of each other.
type Azure struct {
	URL     string
	Address string // host and port of URL

	Account, Key           string // the emulator's well-known ones
	OtherAccount, OtherKey string
}

// azuriteVersion is the release that "make tools" installs; keep them equal.
const azuriteVersion = "3.35.0"

// Azurite starts Azurite at a free port with empty containers of that name in
// both accounts. It checks keys, signatures and the conditions of Puts. It keeps
// everything in memory, and never lets a copy pend.
func Azurite(t testing.TB, containers ...string) Azure {
	t.Helper()
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return azurite(t, address, containers)
}

// emulatorAddress is where Hadoop's filesystem looks for the emulator.
const emulatorAddress = "127.0.0.1:10000"

// Emulator is Azurite at the one address at which Flink looks for
// wasb://container@storageemulator/. Only one can run on a machine.
func Emulator(t testing.TB, containers ...string) Azure {
	t.Helper()
	l, err := net.Listen("tcp", emulatorAddress)
	if err != nil {
		t.Fatalf("Flink knows one address for the Azure emulator, %s, and it is taken; is another test of this machine at it? %v", emulatorAddress, err)
	}
	l.Close()
	return azurite(t, emulatorAddress, containers)
}

func azurite(t testing.TB, address string, containers []string) Azure {
	t.Helper()
	a := Azure{
		URL: "http://" + address, Address: address,
		Account:      "devstoreaccount1",
		Key:          "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
		OtherAccount: "otheraccount",
		OtherKey:     "b3RoZXIga2V5LCBmb3IgdGVzdHMgb25seQ==",
	}
	stop, err := startAzurite(a, filepath.Join(t.TempDir(), "azurite.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	for account, key := range map[string]string{a.Account: a.Key, a.OtherAccount: a.OtherKey} {
		for _, name := range containers {
			if err := a.createContainer(account, key, name); err != nil {
				t.Fatal(err)
			}
		}
	}
	return a
}

func startAzurite(a Azure, logFile string) (stop func(), err error) {
	script, err := tool("Azurite "+azuriteVersion, "azurite-"+azuriteVersion, "node_modules", "azurite", "dist", "src", "blob", "main.js")
	if err != nil {
		return nil, err
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf("Azurite needs Node.js: %w", err)
	}
	host, port, err := net.SplitHostPort(a.Address)
	if err != nil {
		return nil, err
	}
	// Flink's client speaks an older version of the protocol than Azurite wants, and
	// headers that it does not know.
	cmd := exec.Command(node, script, "--blobHost", host, "--blobPort", port, "--inMemoryPersistence",
		"--skipApiVersionCheck", "--loose", "--silent", "--disableTelemetry")
	cmd.Env = append(cmd.Environ(), fmt.Sprintf("AZURITE_ACCOUNTS=%s:%s;%s:%s", a.Account, a.Key, a.OtherAccount, a.OtherKey))
	cmd.Dir = filepath.Dir(logFile)
	return start(cmd, a.Address, logFile)
}

func (a Azure) createContainer(account, key, name string) error {
	credential, err := service.NewSharedKeyCredential(account, key)
	if err != nil {
		return err
	}
	client, err := service.NewClientWithSharedKeyCredential(a.URL+"/"+account, credential, nil)
	if err != nil {
		return err
	}
	_, err = client.CreateContainer(context.Background(), name, nil)
	return err
}
