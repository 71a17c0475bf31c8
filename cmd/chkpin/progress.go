package main

import (
	"io"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/chkpin/chkpin/checkpoint"
)

// progressEvery is how often lines tell how far a copy is where there is no
// terminal.
const progressEvery = 10 * time.Second

// progress tells people on stderr how far a copy is: with a bar on a terminal,
// otherwise with a line now and then.
type progress struct {
	env  *environment
	bar  *progressbar.ProgressBar // nil without a terminal
	last time.Time                // of a line
}

func (e *environment) progress() *progress { return &progress{env: e, last: time.Now()} }

// tell is checkpoint.CopyOptions.Progress.
func (p *progress) tell(c checkpoint.CopyProgress) {
	switch {
	case p.env.json || c.TotalFiles == 0:
	case p.bar == nil && c.Files == 0 && isTerminal(p.env.stderr):
		p.bar = progressbar.NewOptions64(c.TotalBytes,
			progressbar.OptionSetWriter(p.env.stderr), progressbar.OptionSetDescription("copying"),
			progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true), progressbar.OptionShowTotalBytes(true),
			progressbar.OptionFullWidth(), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	case p.bar != nil:
		p.bar.Set64(c.Bytes) //nolint:errcheck // a bar that cannot be drawn stops nothing
	case time.Since(p.last) >= progressEvery:
		p.last = time.Now()
		p.env.note("copied %d of %d files, %s of %s", c.Files, c.TotalFiles, humanize.IBytes(uint64(c.Bytes)), humanize.IBytes(uint64(c.TotalBytes)))
	}
}

// end leaves the line of the bar to what comes next.
func (p *progress) end() {
	if p.bar != nil {
		p.bar.Clear() //nolint:errcheck // as above
	}
}

func isTerminal(w io.Writer) bool {
	if p, ok := w.(*printed); ok {
		w = p.Writer
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
