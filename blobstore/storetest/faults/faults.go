// Package faults is a proxy between a store and the real server it speaks to.
// It counts requests, and does to chosen ones what servers and networks do now
// and then and emulators never do.
package faults

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Proxy forwards requests to a server, unsigned parts untouched: the Host header
// stays, so signatures hold.
type Proxy struct {
	URL string

	// Latency is how long each request waits before it is forwarded.
	Latency time.Duration

	forward *httputil.ReverseProxy

	mu     sync.Mutex
	rules  []*rule
	seen   *window
	groups []*group
}

// group is of requests that are answered when all have come.
type group struct {
	missing  int
	complete chan struct{}
}

// patience is how long a request waits for the others of its group. Who sends them
// one after the other waits for each.
const patience = 30 * time.Second

// window is what came between two calls of Requests. A request counts in the one
// it came in: a client that gave up on it may well be in the next.
type window struct {
	requests []Request
	steps    int // of the requests whose answer may have begun
}

// Request is one request that the proxy saw.
type Request struct {
	Method string
	Path   string
	Query  url.Values
	Header http.Header
	Step   int       // 1 for the first, and for all sent before any was answered; and so on
	At     time.Time // when it arrived
}

type rule struct {
	match func(*http.Request) bool
	times int // left
	fault Fault
}

// Fault answers a request in place of the server; it may forward it first.
type Fault func(w http.ResponseWriter, r *http.Request, forward http.Handler)

// Start starts a proxy for the server at target, until the test ends.
func Start(t testing.TB, target string) *Proxy {
	t.Helper()
	p, stop, err := Listen(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return p
}

// Listen is Start for callers without a test.
func Listen(target string) (p *Proxy, stop func(), err error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, nil, err
	}
	p = &Proxy{seen: &window{}, forward: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.Host = r.In.Host
			r.Out.URL.Path, r.Out.URL.RawPath = r.In.URL.Path, r.In.URL.RawPath
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}}
	server := httptest.NewServer(p)
	p.URL = server.URL
	return p, server.Close, nil
}

// Inject applies a fault to the next n requests that match.
func (p *Proxy) Inject(n int, match func(*http.Request) bool, fault Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, &rule{match, n, fault})
}

// Together says how many of the next requests a client should send at once, step by
// step: none of a step is answered before all of it have come. However slow the
// machine is, a client that does so takes as many steps, and one that waits for an
// answer takes more.
func (p *Proxy) Together(steps ...int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.groups = nil
	for _, requests := range steps {
		p.groups = append(p.groups, &group{requests, make(chan struct{})})
	}
}

// Requests returns what came since the last call of Requests.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen.requests
	p.seen = &window{}
	return seen
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fault, others, answering := p.begin(r)
	select {
	case <-others:
	case <-time.After(patience):
	}
	if p.Latency > 0 {
		<-time.After(p.Latency)
	}
	// Not when the answer is through: a client acts on it before this method returns.
	answering()
	if fault != nil {
		fault(w, r, p.forward)
		return
	}
	p.forward.ServeHTTP(w, r)
}

// begin notes a request and chooses what happens to it, when the others of its step
// have come. The client may go on to its next step once answering was called.
func (p *Proxy) begin(r *http.Request) (fault Fault, others <-chan struct{}, answering func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	others = p.join()
	in := p.seen
	step := in.steps + 1
	in.requests = append(in.requests, Request{r.Method, r.URL.Path, r.URL.Query(), r.Header.Clone(), step, time.Now()})
	answering = func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		in.steps = max(in.steps, step)
	}
	for _, rule := range p.rules {
		if rule.times > 0 && rule.match(r) {
			rule.times--
			return rule.fault, others, answering
		}
	}
	return nil, others, answering
}

// join makes a request one of the group that is not complete. Requests that are in
// none wait for nobody.
func (p *Proxy) join() <-chan struct{} {
	if len(p.groups) == 0 {
		alone := make(chan struct{})
		close(alone)
		return alone
	}
	g := p.groups[0]
	if g.missing--; g.missing == 0 {
		close(g.complete)
		p.groups = p.groups[1:]
	}
	return g.complete
}

// Method matches requests by method.
func Method(method string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.Method == method }
}

// Answer is an error in the form of S3 and of Azure, given without asking the
// server.
func Answer(status int, code string, header ...string) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		body := "<?xml version=\"1.0\"?><Error><Code>" + code + "</Code><Message>injected</Message><RequestId>INJECTED</RequestId></Error>"
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.Header().Set("x-amz-request-id", "INJECTED")
		w.Header().Set("x-ms-request-id", "INJECTED")
		if code != "" {
			w.Header().Set("x-ms-error-code", code)
		}
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			_, _ = w.Write([]byte(body)) // a client that went away needs no answer
		}
	}
}

// Headers lets the server do what was asked and changes headers of its answer.
func Headers(pairs ...string) Fault {
	return func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		rec := httptest.NewRecorder()
		forward.ServeHTTP(rec, r)
		maps.Copy(w.Header(), rec.Header())
		for i := 0; i+1 < len(pairs); i += 2 {
			w.Header().Set(pairs[i], pairs[i+1])
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()) // a client that went away needs no answer
	}
}

// InChunks lets the server do what was asked and passes its answer on without its
// length.
func InChunks(w http.ResponseWriter, r *http.Request, forward http.Handler) {
	rec := httptest.NewRecorder()
	forward.ServeHTTP(rec, r)
	maps.Copy(w.Header(), rec.Header())
	w.Header().Del("Content-Length")
	w.WriteHeader(rec.Code)
	w.(http.Flusher).Flush()
	_, _ = w.Write(rec.Body.Bytes()) // a client that went away needs no answer
}

// Reset breaks the connection without an answer.
func Reset(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }

// Lost lets the server do what was asked and breaks the connection instead of
// passing on its answer.
func Lost(_ http.ResponseWriter, r *http.Request, forward http.Handler) {
	forward.ServeHTTP(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler)
}

// CutAfter passes on n bytes of the body and then breaks the connection.
func CutAfter(n int) Fault {
	return func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		begin(n, w, r, forward)
		panic(http.ErrAbortHandler)
	}
}

// HoldAfter passes on n bytes of the body, and then nothing until the client has
// gone.
func HoldAfter(n int) Fault {
	return func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		begin(n, w, r, forward)
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
}

// begin passes on n bytes of the body.
func begin(n int, w http.ResponseWriter, r *http.Request, forward http.Handler) {
	rec := httptest.NewRecorder()
	forward.ServeHTTP(rec, r)
	for name, values := range rec.Header() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes()[:min(n, rec.Body.Len())])
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}

// Hold answers only when released is closed, or the client has gone.
func Hold(released <-chan struct{}) Fault {
	return func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		select {
		case <-released:
			forward.ServeHTTP(w, r)
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
}
