package faults_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore/storetest/faults"
)

func TestSteps(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush() // the client has its answer before the proxy is through with it
	}))
	defer server.Close()
	proxy := faults.Start(t, server.URL)
	get := func(ctx context.Context) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, proxy.URL, nil)
		require.NoError(t, err)
		if resp, err := http.DefaultClient.Do(r); err == nil {
			resp.Body.Close()
		}
	}
	steps := func() (s []int) {
		for _, r := range proxy.Requests() {
			s = append(s, r.Step)
		}
		return s
	}

	for range 100 {
		get(t.Context())
		get(t.Context())
		get(t.Context())
		require.Equal(t, []int{1, 2, 3}, steps(), "one after the other")
	}

	t.Run("at once", func(t *testing.T) {
		proxy.Together(3)
		done := make(chan struct{})
		for range 3 {
			go func() { get(t.Context()); done <- struct{}{} }()
		}
		for range 3 {
			<-done
		}
		get(t.Context())
		assert.Equal(t, []int{1, 1, 1, 2}, steps())
	})

	t.Run("given up", func(t *testing.T) {
		for range 9 {
			get(t.Context())
		}
		proxy.Together(2)
		ctx, giveUp := context.WithCancel(t.Context())
		proxy.Inject(1, func(*http.Request) bool { giveUp(); return true }, faults.Reset)
		get(ctx)
		require.Len(t, steps(), 10)
		get(t.Context()) // for which the other one has waited
		get(t.Context())
		assert.Equal(t, []int{1, 2}, steps(), "a request from before does not count")
	})
}
