package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"
	"github.com/rogpeppe/go-internal/lockedfile"
)

// Azure is a running server of the protocol of Azure Blob Storage, in which
// accounts are folders. It has two of them, which know nothing of each other.
type Azure struct {
	URL string

	Account, Key           string // the emulator's, which are the same everywhere
	OtherAccount, OtherKey string
}

// azuriteVersion is the release that "make tools" installs; keep them equal.
const azuriteVersion = "3.35.0"

// Azurite starts Azurite at a free port, with empty containers of these names in
// both accounts. It checks keys, signatures and the conditions of Puts, keeps
// everything in memory, and never lets a copy pend.
func Azurite(t testing.TB, containers ...string) Azure {
	t.Helper()
	a, stop, err := StartAzurite(t.TempDir(), containers...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return a
}

// StartAzurite is Azurite for callers without a test. Its log goes to dir.
func StartAzurite(dir string, containers ...string) (a Azure, stop func(), err error) {
	_, stop, err = startAtFreePort(func(address string) (stop func(), err error) {
		a, stop, err = startAzurite(dir, address, containers)
		return stop, err
	})
	return a, stop, err
}

// emulatorAddress is the one at which Flink's filesystem for Azure looks for
// wasb://container@storageemulator/.
const emulatorAddress = "127.0.0.1:10000"

// AzureEmulator is Azurite at the address that Flink knows. The tests of a machine
// that want it take turns.
func AzureEmulator(t testing.TB, containers ...string) Azure {
	t.Helper()
	unlock, err := lockedfile.MutexAt(filepath.Join(os.TempDir(), "chkpin-azure-emulator.lock")).Lock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unlock)
	l, err := net.Listen("tcp", emulatorAddress)
	if err != nil {
		t.Fatalf("Flink looks for the emulator of Azure at %s and nowhere else, and something else is there: %v", emulatorAddress, err)
	}
	l.Close()
	a, stop, err := startAzurite(t.TempDir(), emulatorAddress, containers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return a
}

func startAzurite(dir, address string, containers []string) (a Azure, stop func(), err error) {
	script, err := tool("Azurite "+azuriteVersion, "azurite-"+azuriteVersion, "node_modules", "azurite", "dist", "src", "blob", "main.js")
	if err != nil {
		return a, nil, err
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return a, nil, fmt.Errorf("Azurite runs on Node.js: %w", err)
	}
	a = Azure{
		URL:          "http://" + address,
		Account:      "devstoreaccount1",
		Key:          "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
		OtherAccount: "otheraccount",
		OtherKey:     "b3RoZXIga2V5LCBmb3IgdGVzdHMgb25seQ==",
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return a, nil, err
	}
	// Flink's client and the SDK speak versions of the protocol, and send headers,
	// that Azurite does not know.
	cmd := exec.Command(node, script, "--blobHost", host, "--blobPort", port, "--inMemoryPersistence",
		"--skipApiVersionCheck", "--loose", "--silent", "--disableTelemetry")
	cmd.Env = append(cmd.Environ(), fmt.Sprintf("AZURITE_ACCOUNTS=%s:%s;%s:%s", a.Account, a.Key, a.OtherAccount, a.OtherKey))
	cmd.Dir = dir
	stop, err = start(cmd, address, filepath.Join(dir, "azurite.log"))
	if err != nil {
		return a, nil, err
	}
	for _, name := range containers {
		err := errors.Join(a.createContainer(a.Account, a.Key, name), a.createContainer(a.OtherAccount, a.OtherKey, name))
		if err != nil {
			stop()
			return a, nil, err
		}
	}
	return a, stop, nil
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
