package main

import (
	"net"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/chkpin/chkpin/vvp/vvptest"
)

// platformDoes is what happens at a Ververica Platform:
//
//	platform start [TOKEN]          it runs at $PLATFORM, which is $PLATFORM_HOST and $PLATFORM_PORT; it wants the token
//	platform has NAME STATE…        a deployment that is in a state, and comes to the others in turn
//	platform runs NAME STATE…       the states that the deployment takes when it is to be RUNNING
//	platform fails STATUS [TEXT]    it answers everything so; with 0 no longer
//	platform was asked [CHANGE…]    exactly these changes of desired states came so far, each "NAME STATE"
func platformDoes(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	least := map[string]int{"start": 1, "has": 3, "runs": 3, "fails": 2, "was": 2}
	usage(ts, !neg && len(args) > 0 && least[args[0]] > 0 && len(args) >= least[args[0]], "platform start|has|runs|fails|was asked …")
	switch args[0] {
	case "start":
		s.platform = &vvptest.Platform{Namespace: "default", Runs: map[string][]string{}}
		if len(args) > 1 {
			s.platform.Token = args[1]
		}
		server := httptest.NewServer(s.platform)
		ts.Defer(server.Close)
		u, err := url.Parse(server.URL)
		ts.Check(err)
		host, port, err := net.SplitHostPort(u.Host)
		ts.Check(err)
		ts.Setenv("PLATFORM", server.URL)
		ts.Setenv("PLATFORM_HOST", host)
		ts.Setenv("PLATFORM_PORT", port)
	case "has":
		s.platform.Add(args[1], args[2:]...)
	case "runs":
		s.platform.Runs[args[1]] = args[2:]
	case "fails":
		status, err := strconv.Atoi(args[1])
		ts.Check(err)
		s.platform.Fail(status, slices.Concat(args, []string{""})[2])
	case "was":
		if got := s.platform.Patched(); !slices.Equal(got, args[2:]) {
			ts.Fatalf("it was asked for %q", got)
		}
	}
}
