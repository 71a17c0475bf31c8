package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// version is set by the linker for releases.
var version = "development"

type versionCommand struct{}

// versionResult is the JSON of version.
type versionResult struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
}

func (c *versionCommand) Run(_ context.Context, env *environment) error {
	r := versionResult{Version: version, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				r.Revision = s.Value
			}
		}
	}
	return env.print(r, func(w io.Writer) { fmt.Fprintf(w, "chkpin %s %s (%s)\n", r.Version, orDash(r.Revision), r.Go) })
}
