package azstore

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"github.com/chkpin/chkpin/blobstore"
)

// Error is what Azure Blob Storage, or the way to it, said; its Code is the service's, such as
// AuthenticationFailed.
type Error = blobstore.ServiceError

// explain turns an error of the SDK into one of ours: short, without URLs, which
// may be signed, and with the condition it amounts to. The account is nil when it
// could not be opened.
func explain(ctx context.Context, a *account, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, blobstore.ErrPrecondition):
		return blobstore.ErrPrecondition
	case a == nil, errors.Is(err, blobstore.ErrNotExist): // our own words
		return err
	}
	if own, ok := errors.AsType[*Error](err); ok {
		return own
	}
	if answer, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return explainAnswer(a, answer)
	}
	if _, ok := errors.AsType[interface {
		error
		NonRetriable()
	}](err); ok && a.token != nil { // as azidentity marks that there is no token to be had
		return &Error{
			Err: fmt.Errorf("%w: account %s: %s", blobstore.ErrPermission, a.name, oneLine(err.Error())),
			Advice: "set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING for this account, name Flink's configuration " +
				"with --flink-conf, or give the pod a workload or managed identity",
		}
	}
	if sent, ok := errors.AsType[*url.Error](err); ok {
		err = sent.Err
	}
	e := &Error{Err: err}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		e.Advice = "is the name of the account right? There is no such host"
	}
	return e
}

func explainAnswer(a *account, answer *azcore.ResponseError) error {
	e := &Error{Code: answer.ErrorCode, Status: answer.StatusCode, Err: errors.New(http.StatusText(answer.StatusCode))}
	if r := answer.RawResponse; r != nil {
		e.RequestID = r.Header.Get("x-ms-request-id")
		if text := messageOf(r); text != "" {
			e.Err = errors.New(text)
		}
	}
	if e.Code != "" {
		e.Err = fmt.Errorf("%s: %w", e.Code, e.Err)
	}
	hint, condition := conditionOf(e.Code, e.Status)
	if condition == blobstore.ErrPermission && hint == "" {
		hint = a.hint(answer.RawResponse)
	}
	if e.Code == string(bloberror.AuthorizationFailure) { // which an emulator says of wrong keys, too
		hint = a.hint(answer.RawResponse) + "; or the account's firewall does not let this address in"
	}
	e.Advice = hint
	if condition != nil {
		e.Err = fmt.Errorf("%w: %w", condition, e.Err)
	}
	return e
}

// messageOf is the first line of the service's message; the others repeat the
// request's id and the time.
func messageOf(r *http.Response) string {
	var answer struct{ Message string }
	data, err := runtime.Payload(r) // read by now, and kept
	if err != nil || xml.Unmarshal(data, &answer) != nil {
		return ""
	}
	line, _, _ := strings.Cut(strings.TrimSpace(answer.Message), "\n")
	return strings.TrimSpace(line)
}

// oneLine folds a text of several lines, and leaves the rules between them out.
func oneLine(text string) string {
	words := slices.DeleteFunc(strings.Fields(text), func(word string) bool { return strings.Trim(word, "-") == "" })
	return strings.Join(words, " ")
}

// conditionOf is what a code and a status amount to. Only what is certain to mean
// a missing object is ErrNotExist, since that can be a reason to start without
// state.
func conditionOf(code string, status int) (hint string, condition error) {
	switch bloberror.Code(code) {
	case bloberror.BlobNotFound, "PathNotFound":
		return "", blobstore.ErrNotExist
	case bloberror.CannotVerifyCopySource:
		if status == http.StatusNotFound {
			return "", blobstore.ErrNotExist
		}
	case bloberror.ContainerNotFound, bloberror.ContainerBeingDeleted, bloberror.ContainerDisabled:
		return "create the container, or check its name and the account's", blobstore.ErrContainer
	case bloberror.ResourceNotFound:
		return "there is no such container, or none that may be read without credentials", blobstore.ErrContainer
	case bloberror.InvalidResourceName, bloberror.InvalidURI, bloberror.OutOfRangeInput:
		return "the name of a container has 3 to 63 lower-case letters, digits and hyphens", blobstore.ErrContainer
	case "PublicAccessNotPermitted", bloberror.NoAuthenticationInformation:
		return "the account wants credentials, and none were sent", blobstore.ErrPermission
	case "KeyBasedAuthenticationNotPermitted":
		return "the account takes neither keys nor SAS made with them; use a workload or managed identity", blobstore.ErrPermission
	case bloberror.AuthorizationSourceIPMismatch:
		return "the shared access signature is for other addresses than this", blobstore.ErrPermission
	case bloberror.AuthenticationFailed, bloberror.InvalidAuthenticationInfo:
		return "", blobstore.ErrPermission
	case bloberror.BlobImmutableDueToPolicy:
		return "an immutability policy of the container forbids it", blobstore.ErrPermission
	case bloberror.LeaseIDMissing:
		return "somebody holds a lease on it; break the lease", nil
	case bloberror.SnapshotsPresent:
		return "delete its snapshots first", nil
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return "", blobstore.ErrPermission
	case http.StatusPreconditionFailed:
		return "", blobstore.ErrPrecondition
	case http.StatusNotFound:
		return notAzure, nil
	}
	return "", nil
}

// notAzure is a hint for answers that Azure does not give.
const notAzure = "check the endpoint: what answered does not speak as Azure Blob Storage does"

// hint says what may be wrong with the way in which an account was opened.
func (a *account) hint(answer *http.Response) string {
	now, err := http.ParseTime(answer.Header.Get("Date")) // by the service's clock
	if err == nil && answer.Request != nil {
		sent, err := http.ParseTime(answer.Request.Header.Get("x-ms-date"))
		if err == nil && now.Sub(sent).Abs() > 15*time.Minute {
			return "the clock of this machine is wrong by more than 15 minutes"
		}
	}
	switch {
	case a.sas != nil:
		expiry, bad := time.Parse(time.RFC3339, a.sas.Get("se"))
		if err == nil && bad == nil && !now.Before(expiry) {
			return "the shared access signature expired at " + a.sas.Get("se") + "; make a new one"
		}
		start, bad := time.Parse(time.RFC3339, a.sas.Get("st"))
		if err == nil && bad == nil && now.Before(start) {
			return "the shared access signature is not valid before " + a.sas.Get("st") + "; leave its start out, or wait"
		}
		return "the shared access signature must be of this account, for its containers and objects (srt=sco, or sr=c of this container), with the permissions racwdl; it has sp=" + a.sas.Get("sp")
	case a.key != nil:
		return "the key is not one of account " + a.name + ", or has been renewed since"
	case a.token != nil:
		return "the identity needs the role Storage Blob Data Contributor on account " + a.name + " or the container"
	}
	return "no credentials were sent, and the container is not public"
}
