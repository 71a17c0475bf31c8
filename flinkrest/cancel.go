package flinkrest

import (
	"context"
	"net/http"
)

// Cancel begins to cancel a job, without a savepoint (PATCH /jobs/:jobid, whose mode is cancel by default:
// JobCancellationHandler, 1.13 to 2.3). The job is CANCELLING and then CANCELED; in application mode its JobManager ends
// with it.
func (c *Client) Cancel(ctx context.Context, jobID string) error {
	var answer struct{}
	return c.callJob(ctx, http.MethodPatch, jobID, "", nil, &answer)
}
