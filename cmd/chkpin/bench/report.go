package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
)

// report is the table that the benchmark prints.
type report struct{ rows []row }

// row is one figure of chkpin's beside its yardstick's. Without a target it is
// for information.
type row struct {
	what, chkpin, beside, ratio, target string
	met                                 bool
}

// ratio adds a row whose target is a share of the yardstick's figure.
func (r *report) ratio(what string, chkpin, beside fmt.Stringer, ratio, atMost float64, target string) {
	r.rows = append(r.rows, row{what, chkpin.String(), beside.String(), fmt.Sprintf("%.2f", ratio), target, ratio <= atMost})
}

func (r *report) times(what string, chkpin, beside time.Duration, atMost float64, target string) {
	r.ratio(what, milliseconds(chkpin), milliseconds(beside), float64(chkpin)/float64(beside), atMost, target)
}

// memory adds a row whose target is chkpin's alone.
func (r *report) memory(what string, chkpin, beside, atMost int64) {
	r.rows = append(r.rows, row{what, size(chkpin).String(), size(beside).String(),
		fmt.Sprintf("%.2f", float64(chkpin)/float64(beside)), "at most " + size(atMost).String(), chkpin <= atMost})
}

// fact adds a row that is met or not, with no ratio.
func (r *report) fact(what, chkpin, beside, target string, met bool) {
	r.rows = append(r.rows, row{what, chkpin, beside, "", target, met})
}

// print prints the table, and how many targets were missed.
func (r *report) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tchkpin\tbeside it\tratio\ttarget\t")
	met, targets := 0, 0
	for _, row := range r.rows {
		mark := ""
		if row.target != "" {
			targets++
			mark = "MISSED"
		}
		if row.target != "" && row.met {
			met++
			mark = "met"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", row.what, row.chkpin, row.beside, row.ratio, row.target, mark)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d of %d targets met\n", met, targets)
	return err
}

// milliseconds prints a time so that figures compare at a glance.
type milliseconds time.Duration

func (m milliseconds) String() string {
	return fmt.Sprintf("%.1f ms", float64(m)/float64(time.Millisecond))
}

type size int64

func (s size) String() string { return humanize.IBytes(uint64(s)) }
