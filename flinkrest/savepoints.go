package flinkrest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/chkpin/chkpin/internal/rest"
)

// SavepointFormat is how a savepoint is written (SavepointFormatType, 1.15 and later).
type SavepointFormat string

const (
	Canonical SavepointFormat = "CANONICAL" // readable by every state backend
	Native    SavepointFormat = "NATIVE"    // the state backend's own, faster
)

// StopOptions change how a job is stopped with a savepoint.
type StopOptions struct {
	TargetDirectory string          // empty is the cluster's execution.checkpointing.savepoint-dir
	Drain           bool            // let the job finish its work, emitting MAX_WATERMARK, as for good
	Format          SavepointFormat // empty is Flink's default; ignored before 1.15
}

// Stop begins to stop a job with a savepoint (POST /jobs/:jobid/stop) and returns the trigger id to ask
// [Client.Savepoint] with. Since 1.15 the id is chosen here, so that a call that is repeated because its answer was lost
// means the same stop.
func (c *Client) Stop(ctx context.Context, jobID string, options StopOptions) (trigger string, err error) {
	version, err := c.Version(ctx)
	if err != nil {
		return "", err
	}
	request := map[string]any{"drain": options.Drain}
	if options.TargetDirectory != "" {
		request["targetDirectory"] = options.TargetDirectory
	}
	if !version.before(1, 15) { // which refuses fields it does not know (RestMapperUtils, strict mapper)
		request["triggerId"] = newTrigger()
		if options.Format != "" {
			request["formatType"] = options.Format
		}
	}
	var answer struct {
		RequestID string `json:"request-id"`
	}
	if err := c.callJob(ctx, http.MethodPost, jobID, "/stop", request, &answer); err != nil {
		return "", err
	}
	if answer.RequestID == "" {
		return "", c.lacks("jobs/"+jobID+"/stop", "request-id")
	}
	return answer.RequestID, nil
}

func newTrigger() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	return hex.EncodeToString(id)
}

// Savepoint is how far a savepoint has come.
type Savepoint struct {
	Done     bool
	Location string // of a savepoint that succeeded
	Failure  string // why one did not, in Flink's words
}

// Savepoint asks for the outcome of [Client.Stop] (GET /jobs/:jobid/savepoints/:triggerid). A savepoint that is Done
// has succeeded only if it has a Location.
func (c *Client) Savepoint(ctx context.Context, jobID, trigger string) (Savepoint, error) {
	var answer struct {
		Status struct {
			ID string `json:"id"`
		} `json:"status"`
		Operation struct {
			Location string          `json:"location"`
			Failure  json.RawMessage `json:"failure-cause"`
		} `json:"operation"`
	}
	below := "/savepoints/" + trigger
	if err := c.getJob(ctx, jobID, below, &answer); err != nil {
		return Savepoint{}, err
	}
	switch answer.Status.ID {
	case "IN_PROGRESS":
		return Savepoint{}, nil
	case "COMPLETED":
		return Savepoint{Done: true, Location: answer.Operation.Location, Failure: failure(answer.Operation.Failure)}, nil
	}
	return Savepoint{}, c.lacks("jobs/"+jobID+below, "status")
}

// failure names the last two causes of a serialized throwable, an object with the class and the stack trace as text
// (measured with 2.3.0). What stands before them is general, such as "IO-problem detected".
func failure(cause json.RawMessage) string {
	var throwable struct {
		Class string `json:"class"`
		Stack string `json:"stack-trace"`
	}
	if len(cause) == 0 || json.Unmarshal(cause, &throwable) != nil {
		return ""
	}
	var causes []string
	for i, line := range strings.Split(throwable.Stack, "\n") {
		text, isCause := strings.CutPrefix(line, "Caused by: ")
		if i > 0 && !isCause {
			continue
		}
		// A SerializedThrowable begins with its class and what it says, which begins with its class.
		if class, message, _ := strings.Cut(text, ": "); strings.HasPrefix(message, class+": ") {
			text = message
		}
		if last := len(causes) - 1; last >= 0 && strings.Contains(causes[last], text) {
			causes = causes[:last] // what wraps a cause repeats it
		}
		causes = append(causes, text)
	}
	causes = causes[max(0, len(causes)-2):]
	for i, text := range causes {
		causes[i] = rest.Line(text)
	}
	if said := strings.Join(causes, "; caused by "); said != "" {
		return said
	}
	return throwable.Class
}
