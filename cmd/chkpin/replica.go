package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/chkpin/chkpin/checkpoint"
)

// replicaResult is what pin's JSON says of a replica.
type replicaResult struct {
	App        string `json:"app"`
	Result     string `json:"result"`
	Generation string `json:"generation"`
	Error      string `json:"error"`
}

func replicaResults(replicas []checkpoint.Replica) (results []replicaResult) {
	for _, r := range replicas {
		result := replicaResult{App: r.App.String(), Result: r.Result, Generation: r.Generation}
		if r.Err != nil {
			result.Result, result.Error = verdictOf(context.Background(), r.Err).result, r.Err.Error()
		}
		results = append(results, result)
	}
	return results
}

func (r replicaResult) describe(w io.Writer) {
	switch r.Result {
	case checkpoint.ResultPinned:
		fmt.Fprintf(w, "replica %s has %s now\n", r.App, r.Generation)
	case checkpoint.ResultUnchanged:
		fmt.Fprintf(w, "replica %s has %s\n", r.App, r.Generation)
	}
}

// behind is the error of a tick that went well while a replica did not, like
// that of the worst. A tick that failed says more itself.
func behind(ctx context.Context, replicas []checkpoint.Replica) error {
	var failures []error
	for _, r := range replicas {
		if r.Err != nil {
			failures = append(failures, r.Err)
		}
	}
	err := worst(ctx, failures)
	if err == nil {
		return nil
	}
	hint := hintFor(err, verdictOf(ctx, err))
	if errors.Is(err, checkpoint.ErrReplicaTime) { // whatever call it was that had no time left
		hint = "is the replica's storage reachable? If it is, the next tick goes on where this one stopped, and chkpin copy <app> <replica> has no limit of time"
	}
	return &hintedError{err, "the pin itself is up to date; " + hint}
}

// both is the error of a tick and of its replicas. The tick's decides.
func both(err, late error) error {
	if err == nil || late == nil {
		return cmp.Or(err, late)
	}
	return &allError{[]error{err, late}, err}
}
