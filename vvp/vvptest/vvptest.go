// Package vvptest answers like a Ververica Platform, as far as its public documentation says how it does: deployments
// of one namespace by name, their state, and changes of their desired state. It serves tests.
package vvptest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Platform is an [http.Handler]. It is safe for concurrent use.
type Platform struct {
	// Namespace is the only one there is.
	Namespace string

	// Token is what requests must bear, unless it is empty.
	Token string

	mu          sync.Mutex
	deployments map[string]*deployment
	patched     []string
	status      int
	body        string
}

type deployment struct {
	desired string
	states  []string // that it is in and comes to, one a question
	runs    []string // those when it is asked to be RUNNING
}

// Add makes a deployment that is in a state, and comes to the others in turn, one a question. Unless it is asked for
// something else, it should be RUNNING, or the first state if that can be desired. A number among the states is a
// status that one question is answered with.
func (p *Platform) Add(name string, states ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deployments == nil {
		p.deployments = map[string]*deployment{}
	}
	desired := "RUNNING"
	if slices.Contains([]string{"SUSPENDED", "CANCELLED"}, states[0]) {
		desired = states[0]
	}
	p.deployments[name] = &deployment{desired: desired, states: states}
}

// Run names the states that a deployment takes once it is asked to be RUNNING. Others are TRANSITIONING, and then
// RUNNING.
func (p *Platform) Run(name string, states ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deployments[name].runs = states
}

// Fail answers everything with a status and a body from now on, until the status is 0.
func (p *Platform) Fail(status int, body string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status, p.body = status, body
}

// Patched lists the changes that came, in order, each as "name STATE".
func (p *Platform) Patched() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.patched)
}

// ServeHTTP implements [http.Handler].
func (p *Platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status != 0 {
		w.WriteHeader(p.status)
		_, _ = io.WriteString(w, p.body) // a client that went away needs no answer
		return
	}
	if p.Token != "" && r.Header.Get("Authorization") != "Bearer "+p.Token {
		refuse(w, http.StatusUnauthorized, "Unauthorized")
		return
	}
	name, ours := strings.CutPrefix(r.URL.Path, "/api/v1/namespaces/"+p.Namespace+"/deployments/")
	d := p.deployments[name]
	if !ours || d == nil {
		refuse(w, http.StatusNotFound, fmt.Sprintf("Could not find deployment %q", name))
		return
	}
	switch r.Method {
	case http.MethodGet:
	case http.MethodPatch:
		if !p.patch(w, r, name, d) {
			return
		}
	default:
		refuse(w, http.StatusMethodNotAllowed, r.Method)
		return
	}
	state := d.states[0]
	if r.Method == http.MethodGet && len(d.states) > 1 {
		d.states = d.states[1:]
	}
	if status, err := strconv.Atoi(state); err == nil && r.Method == http.MethodGet {
		refuse(w, status, "Not now")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind":       "Deployment",
		"apiVersion": "v1",
		"metadata":   map[string]any{"name": name, "namespace": p.Namespace},
		"spec":       map[string]any{"state": d.desired},
		"status":     map[string]any{"state": state},
	})
}

// patch changes the desired state. One that does not change has no effect.
func (p *Platform) patch(w http.ResponseWriter, r *http.Request, name string, d *deployment) bool {
	var patch struct {
		Spec struct {
			State string `json:"state"`
		} `json:"spec"`
	}
	err := json.NewDecoder(r.Body).Decode(&patch)
	if err != nil || r.Header.Get("Content-Type") != "application/json" || patch.Spec.State == "" {
		refuse(w, http.StatusBadRequest, "application/json with spec.state expected")
		return false
	}
	p.patched = append(p.patched, name+" "+patch.Spec.State)
	if d.desired != patch.Spec.State {
		d.desired, d.states = patch.Spec.State, []string{"TRANSITIONING", patch.Spec.State}
		if d.desired == "RUNNING" && d.runs != nil {
			d.states = d.runs
		}
	}
	return true
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"status": status, "message": message})
}
