package vvp_test

import (
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/vvp"
	"github.com/chkpin/chkpin/vvp/vvptest"
)

func connect(t *testing.T, handler http.Handler, config vvp.Config) *vvp.Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	config.URL = server.URL
	config.RetryWait = time.Millisecond
	client, err := vvp.New(config)
	require.NoError(t, err)
	return client
}

func TestDeploymentAndSetState(t *testing.T) {
	platform := &vvptest.Platform{Namespace: "default"}
	platform.Add("orders", "RUNNING")
	client := connect(t, platform, vvp.Config{})

	d, err := client.Deployment(t.Context(), "default", "orders")
	require.NoError(t, err)
	assert.Equal(t, vvp.Deployment{Name: "orders", Desired: vvp.Running, State: vvp.Running}, d)

	require.NoError(t, client.SetState(t.Context(), "default", "orders", vvp.Suspended))
	for _, want := range []vvp.State{vvp.Transitioning, vvp.Suspended, vvp.Suspended} {
		d, err = client.Deployment(t.Context(), "default", "orders")
		require.NoError(t, err)
		assert.Equal(t, vvp.Deployment{Name: "orders", Desired: vvp.Suspended, State: want}, d)
	}
	assert.Equal(t, []string{"orders SUSPENDED"}, platform.Patched())
}

// A platform that spells CANCELED is in the state that it was asked for.
func TestTheOtherSpelling(t *testing.T) {
	client := connect(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"spec":{"state":"CANCELED"},"status":{"state":"CANCELED"}}`)
	}), vvp.Config{})
	d, err := client.Deployment(t.Context(), "default", "orders")
	require.NoError(t, err)
	assert.Equal(t, vvp.Deployment{Name: "orders", Desired: vvp.Cancelled, State: vvp.Cancelled}, d)
	assert.NoError(t, client.SetState(t.Context(), "default", "orders", vvp.Cancelled))
}

func TestNoSuchDeployment(t *testing.T) {
	client := connect(t, &vvptest.Platform{Namespace: "default"}, vvp.Config{})
	_, err := client.Deployment(t.Context(), "default", "orders")
	require.ErrorIs(t, err, vvp.ErrNotFound)
	require.NotErrorIs(t, err, vvp.ErrUnavailable)
	assert.ErrorContains(t, err, `/api/v1/namespaces/default/deployments/orders: 404 Not Found: Could not find deployment "orders"`)
	require.ErrorIs(t, client.SetState(t.Context(), "default", "orders", vvp.Running), vvp.ErrNotFound)
}

// The token is sent, is read anew from its file, and stands in no error.
func TestToken(t *testing.T) {
	platform := &vvptest.Platform{Namespace: "default", Token: "s3cret"}
	platform.Add("orders", "RUNNING")
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("0ld\n"), 0o600))
	client := connect(t, platform, vvp.Config{TokenFile: file})

	_, err := client.Deployment(t.Context(), "default", "orders")
	require.ErrorIs(t, err, vvp.ErrUnavailable)
	assert.ErrorContains(t, err, "401 Unauthorized")
	assert.NotContains(t, err.Error(), "0ld")

	require.NoError(t, os.WriteFile(file, []byte("s3cret\n"), 0o600))
	_, err = client.Deployment(t.Context(), "default", "orders")
	require.NoError(t, err)

	require.NoError(t, os.Remove(file))
	_, err = client.Deployment(t.Context(), "default", "orders")
	require.ErrorIs(t, err, vvp.ErrConfig)
}

// Both calls may be repeated: reading, and asking for a state.
func TestRetries(t *testing.T) {
	platform := &vvptest.Platform{Namespace: "default"}
	platform.Add("orders", "RUNNING")
	var calls atomic.Int32
	flaky := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1)%3 != 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		platform.ServeHTTP(w, r)
	})
	client := connect(t, flaky, vvp.Config{})
	require.NoError(t, client.SetState(t.Context(), "default", "orders", vvp.Suspended))
	_, err := client.Deployment(t.Context(), "default", "orders")
	require.NoError(t, err)
	assert.EqualValues(t, 6, calls.Load())
	assert.Equal(t, []string{"orders SUSPENDED"}, platform.Patched())

	never := connect(t, flaky, vvp.Config{Retries: -1})
	require.ErrorIs(t, never.SetState(t.Context(), "default", "orders", vvp.Running), vvp.ErrUnavailable)
	assert.EqualValues(t, 7, calls.Load())
}

// Only what may pass is asked again.
func TestWhichStatusesAreRepeated(t *testing.T) {
	for status, want := range map[int]int32{401: 1, 404: 1, 429: 2, 500: 2, 501: 1, 503: 2} {
		var calls atomic.Int32
		client := connect(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			calls.Add(1)
			w.WriteHeader(status)
		}), vvp.Config{Retries: 1})
		_, err := client.Deployment(t.Context(), "default", "orders")
		require.Error(t, err)
		assert.Equal(t, want, calls.Load(), status)
	}
}

// A retry that could not come in time is not waited for.
func TestTimeout(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	client, err := vvp.New(vvp.Config{URL: server.URL, RetryWait: time.Minute})
	require.NoError(t, err)
	_, err = client.Deployment(t.Context(), "default", "orders")
	require.ErrorIs(t, err, vvp.ErrUnavailable)
	assert.ErrorContains(t, err, "/deployments/orders: 503 Service Unavailable")
}

// Nothing but a platform's answer counts, whatever its status.
func TestAnswersOfOthers(t *testing.T) {
	for name, c := range map[string]struct {
		status     int
		body, says string
	}{
		"login page":         {200, "<html>Sign in</html>", "not a Ververica Platform's"},
		"other JSON":         {200, `{"kind":"Status"}`, "no status.state"},
		"empty":              {200, "", "no status.state"},
		"redirect":           {302, "", "302 Found: it redirects"},
		"forbidden":          {403, `{"message":"viewer may not\nedit"}`, "403 Forbidden: viewer may not"},
		"refused, no reason": {400, "<html>", "400 Bad Request"},
	} {
		t.Run(name, func(t *testing.T) {
			client := connect(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/login")
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			}), vvp.Config{})
			_, err := client.Deployment(t.Context(), "default", "orders")
			require.ErrorIs(t, err, vvp.ErrUnavailable)
			assert.ErrorContains(t, err, c.says)
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

// A platform that takes the change and keeps what it had did not change.
func TestSetStateThatIsIgnored(t *testing.T) {
	kept := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"spec":{"state":"RUNNING"},"status":{"state":"RUNNING"}}`)
	})
	err := connect(t, kept, vvp.Config{}).SetState(t.Context(), "default", "orders", vvp.Suspended)
	require.ErrorIs(t, err, vvp.ErrUnavailable)
	assert.ErrorContains(t, err, "kept the desired state RUNNING")

	silent := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	require.NoError(t, connect(t, silent, vvp.Config{}).SetState(t.Context(), "default", "orders", vvp.Suspended))
}

func TestTLS(t *testing.T) {
	platform := &vvptest.Platform{Namespace: "default"}
	platform.Add("orders", "RUNNING")
	server := httptest.NewTLSServer(platform)
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	require.NoError(t, os.WriteFile(ca, certificate, 0o600))

	client, err := vvp.New(vvp.Config{URL: server.URL, CAFile: ca})
	require.NoError(t, err)
	_, err = client.Deployment(t.Context(), "default", "orders")
	require.NoError(t, err)

	stranger, err := vvp.New(vvp.Config{URL: server.URL})
	require.NoError(t, err)
	_, err = stranger.Deployment(t.Context(), "default", "orders")
	require.ErrorIs(t, err, vvp.ErrUnavailable)
	assert.ErrorContains(t, err, "certificate")
}

func TestConfig(t *testing.T) {
	for name, config := range map[string]vvp.Config{
		"no URL":           {},
		"no scheme":        {URL: "platform"},
		"credentials":      {URL: "http://bob:hush@platform"},
		"two tokens":       {URL: "http://platform", Token: "a", TokenFile: "b"},
		"no token file":    {URL: "http://platform", TokenFile: "nowhere"},
		"no CA file":       {URL: "http://platform", CAFile: "nowhere"},
		"negative timeout": {URL: "http://platform", Timeout: -1},
	} {
		_, err := vvp.New(config)
		require.ErrorIs(t, err, vvp.ErrConfig, name)
		assert.NotContains(t, err.Error(), "hush", name)
	}
	client, err := vvp.New(vvp.Config{URL: "http://platform"})
	require.NoError(t, err)
	_, err = client.Deployment(t.Context(), "default", "../secrets")
	require.ErrorIs(t, err, vvp.ErrConfig)
}

func TestStates(t *testing.T) {
	state, err := vvp.ParseState("canceled")
	require.NoError(t, err)
	assert.Equal(t, vvp.Cancelled, state)
	_, err = vvp.ParseState("STOPPED")
	require.ErrorIs(t, err, vvp.ErrConfig)
	_, err = vvp.ParseDesired("FINISHED")
	require.ErrorIs(t, err, vvp.ErrConfig)

	assert.True(t, vvp.Deployment{Desired: vvp.Running, State: vvp.Finished}.Stuck())
	assert.True(t, vvp.Deployment{Desired: vvp.Suspended, State: vvp.Failed}.Stuck())
	assert.False(t, vvp.Deployment{Desired: vvp.Cancelled, State: vvp.Finished}.Stuck())
	assert.False(t, vvp.Deployment{Desired: vvp.Running, State: vvp.Transitioning}.Stuck())
}
