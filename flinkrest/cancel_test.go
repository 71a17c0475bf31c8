package flinkrest_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/flinkrest"
)

func TestCancel(t *testing.T) {
	var asked []string
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.String())
		jsonAnswer(http.StatusAccepted, `{}`)(w, r)
	})
	require.NoError(t, client.Cancel(t.Context(), jobID))
	assert.Equal(t, []string{"PATCH /jobs/" + jobID}, asked)
}

func TestCancelOfAJobThatIsGone(t *testing.T) {
	client := serve(t, jsonAnswer(http.StatusNotFound, `{"errors":["Job could not be found."]}`))
	require.ErrorIs(t, client.Cancel(t.Context(), jobID), flinkrest.ErrNotFound)
}

// What was to change something may have done so before it failed.
func TestCancelThatFailsIsNotRepeated(t *testing.T) {
	asked := 0
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		jsonAnswer(http.StatusInternalServerError, `{"errors":["Internal server error."]}`)(w, r)
	})
	require.ErrorContains(t, client.Cancel(t.Context(), jobID), "500 Internal Server Error")
	assert.Equal(t, 1, asked)
}
