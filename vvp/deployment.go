package vvp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// State is what a deployment is, or should be, spelled as the platform does (Application Manager 2.1.0,
// DeploymentStatus and DeploymentSpec).
type State string

// The states. A deployment can be asked to become one of the first three; the platform reports all of them.
const (
	Running       State = "RUNNING"
	Suspended     State = "SUSPENDED" // stopped with a savepoint
	Cancelled     State = "CANCELLED"
	Finished      State = "FINISHED" // the job came to its own end
	Failed        State = "FAILED"
	Transitioning State = "TRANSITIONING"
)

var (
	desirable = []State{Running, Suspended, Cancelled}
	states    = append(slices.Clone(desirable), Finished, Failed, Transitioning)
)

// ParseState reads a state in any case. The platform's pages also spell CANCELED, which is CANCELLED. Errors are
// [ErrConfig].
func ParseState(text string) (State, error) {
	state := spelled(strings.ToUpper(text))
	if !slices.Contains(states, state) {
		return "", configError("state %q is none of %s", text, list(states))
	}
	return state, nil
}

func spelled(text string) State {
	if text == "CANCELED" {
		return Cancelled
	}
	return State(text)
}

// UnmarshalText takes any state that a platform tells, in either spelling.
func (s *State) UnmarshalText(text []byte) error {
	*s = spelled(string(text))
	return nil
}

// ParseDesired is [ParseState] for a state that a deployment can be asked to become.
func ParseDesired(text string) (State, error) {
	state, err := ParseState(text)
	if err == nil && !slices.Contains(desirable, state) {
		return "", configError("a deployment cannot be set to %s, only to %s", state, list(desirable))
	}
	return state, err
}

func list(states []State) string { return strings.Trim(fmt.Sprint(states), "[]") }

// Deployment is what the platform tells about one.
type Deployment struct {
	Name    string
	Desired State // spec.state: what it was asked to become
	State   State // status.state: what it is
}

// Stuck says that asking for the desired state again has no effect: the platform acts when the desired state changes
// ("Deployment Lifecycle"), and a deployment that finished, or failed, still desires what it desired before.
func (d Deployment) Stuck() bool {
	return d.State == Failed || d.State == Finished && d.Desired == Running
}

type deploymentAnswer struct {
	Spec struct {
		State State `json:"state"`
	} `json:"spec"`
	Status struct {
		State State `json:"state"`
	} `json:"status"`
}

// Deployment reads one deployment (GET /api/v1/namespaces/{namespace}/deployments/{name}).
func (c *Client) Deployment(ctx context.Context, namespace, name string) (Deployment, error) {
	at, err := c.deploymentURL(namespace, name)
	if err != nil {
		return Deployment{}, err
	}
	var answer deploymentAnswer
	if err := c.rest.Call(ctx, http.MethodGet, at, nil, &answer); err != nil {
		return Deployment{}, err
	}
	if answer.Status.State == "" {
		return Deployment{}, &CallError{http.MethodGet, at, errors.New("answer is not a Ververica Platform's: no status.state in it")}
	}
	return Deployment{Name: name, Desired: answer.Spec.State, State: answer.Status.State}, nil
}

// SetState asks for a state (PATCH of spec.state). The platform brings the deployment there in its own time; read it
// until it is. An answer that shows another desired state is an error.
func (c *Client) SetState(ctx context.Context, namespace, name string, state State) error {
	at, err := c.deploymentURL(namespace, name)
	if err != nil {
		return err
	}
	patch := map[string]any{"spec": map[string]any{"state": state}}
	var answer deploymentAnswer
	if err := c.rest.Call(ctx, http.MethodPatch, at, patch, &answer); err != nil {
		return err
	}
	if got := answer.Spec.State; got != "" && got != state { // 204 has no content
		return &CallError{http.MethodPatch, at, fmt.Errorf("the platform kept the desired state %s", got)}
	}
	return nil
}

func (c *Client) deploymentURL(namespace, name string) (string, error) {
	for what, text := range map[string]string{"namespace": namespace, "deployment": name} {
		if text == "" || text == "." || text == ".." || strings.ContainsAny(text, "/?#%") {
			return "", configError("%q is no name of a %s", text, what)
		}
	}
	return c.rest.URL("api/v1/namespaces", namespace, "deployments", name), nil
}
