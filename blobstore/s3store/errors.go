package s3store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/chkpin/chkpin/blobstore"
)

// Error is what S3, or the way to it, said; its Code is the service's, such as
// AccessDenied.
type Error = blobstore.ServiceError

// codeOf is the service's error code.
func codeOf(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// regionOf is the region that an answer says the bucket is in, "" if it says
// none.
func regionOf(err error) string {
	if re, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && re.Response != nil {
		switch re.HTTPStatusCode() {
		case http.StatusMovedPermanently, http.StatusBadRequest, http.StatusTemporaryRedirect:
			return re.Response.Header.Get("x-amz-bucket-region")
		}
	}
	return ""
}

// explain turns an error of the SDK into one of ours: short, without the
// machinery's layers, with the condition it amounts to.
func explain(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, blobstore.ErrPrecondition) {
		return blobstore.ErrPrecondition
	}
	if err, ok := noCredentials(err); ok {
		return err
	}
	if own, ok := errors.AsType[*Error](err); ok {
		return own
	}
	e := &Error{Code: codeOf(err)}
	if re, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		e.Status, e.RequestID = re.HTTPStatusCode(), re.ServiceRequestID()
	} else if re, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		e.Status = re.HTTPStatusCode()
	}
	hint, condition := conditionOf(op, e.Code, e.Status)
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		hint = "is the endpoint right? Where the bucket is not part of a host's name, as with most services of one's own, say --s3-path-style"
	}
	e.Advice = hint
	e.Err = short(err)
	if condition != nil {
		e.Err = fmt.Errorf("%w: %w", condition, e.Err)
	}
	return e
}

// noIdentity is how the SDK's error about a request begins that could not be
// signed (the middleware getIdentityMiddleware of service/s3). What follows is
// about another service: STS, or the metadata of the machine.
const noIdentity = "get identity: get credentials: "

// noCredentials tells a request that was never sent for want of credentials from
// one that S3 denied.
func noCredentials(err error) (*Error, bool) {
	op, ok := errors.AsType[*smithy.OperationError](err)
	if !ok || !strings.HasPrefix(op.Err.Error(), noIdentity) {
		return nil, false
	}
	why := strings.TrimPrefix(op.Err.Error(), noIdentity)
	return &Error{
		Code:   codeOf(err),
		Err:    fmt.Errorf("%w: no credentials: %s", blobstore.ErrPermission, strings.TrimPrefix(why, "failed to refresh cached credentials, ")),
		Advice: "the SDK looks for AWS_ACCESS_KEY_ID, shared files, the pod's web identity and the machine's role; Flink's own keys serve too, with --flink-conf",
	}, true
}

// short is the innermost text that says something.
func short(err error) error {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		if api.ErrorMessage() == "" || api.ErrorMessage() == api.ErrorCode() {
			return errors.New(api.ErrorCode())
		}
		return fmt.Errorf("%s: %s", api.ErrorCode(), api.ErrorMessage())
	}
	if send, ok := errors.AsType[*smithyhttp.RequestSendError](err); ok { // no answer came
		if u, ok := errors.AsType[*url.Error](send.Err); ok {
			return u.Err
		}
		return send.Err
	}
	if unread, ok := errors.AsType[*smithy.DeserializationError](err); ok {
		return unreadable(unread.Err)
	}
	if unread, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		return unreadable(unread.Err)
	}
	if op, ok := errors.AsType[*smithy.OperationError](err); ok {
		return op.Err
	}
	return err
}

// unreadable is about an answer that is not what S3 says. Some reasons have many lines.
func unreadable(err error) error {
	why, _, _ := strings.Cut(err.Error(), "\n")
	return fmt.Errorf("the answer cannot be read: %s", why)
}

// conditionOf is what a code and a status amount to. Only what is certain to mean
// a missing object is ErrNotExist, since that can be a reason to start without
// state: something else than S3 that answers there, such as an ingress without a
// backend, has no code of S3's. The answer to HEAD never has one.
func conditionOf(op, code string, status int) (hint string, condition error) {
	switch code {
	case "NoSuchBucket":
		return "create the bucket, or check its name and the endpoint", blobstore.ErrContainer
	case "InvalidBucketName":
		return "the name of a bucket has 3 to 63 lower-case letters, digits, hyphens and dots", blobstore.ErrContainer
	case "NoSuchUpload": // no object is missing
		return "the upload ended before its parts were joined, or had been joined and the answer was lost; try again", nil
	case "RequestTimeTooSkewed":
		return "the clock of this machine is wrong by more than 15 minutes", nil
	case "PermanentRedirect", "AuthorizationHeaderMalformed":
		return "the bucket is in another region: set --s3-region", nil
	case "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return "the credentials are not those of this service; check the endpoint and the keys", blobstore.ErrPermission
	case "ExpiredToken", "InvalidToken":
		return "the session token has expired; renew the credentials", blobstore.ErrPermission
	case "NotImplemented":
		return "this endpoint does not know the request; conditional writes (If-Match) need AWS, or a recent release of the service", nil
	}
	switch status {
	case http.StatusNotFound:
		if op == "stat" || strings.HasPrefix(code, "NoSuch") {
			return "", blobstore.ErrNotExist
		}
		return "is the endpoint that of an S3 service? It says 404 and not, as S3 does, what does not exist", nil
	case http.StatusForbidden:
		return rightsFor(op) + "; grant it, as manifests/iam shows", blobstore.ErrPermission
	case http.StatusPreconditionFailed:
		return "", blobstore.ErrPrecondition
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return "the service is overloaded or throttles; try again later", nil
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect:
		return "the endpoint sends requests elsewhere: is it that of an S3 service, and is its scheme right?", nil
	case http.StatusNotImplemented:
		return "this endpoint does not know the request; conditional writes (If-Match) need AWS, or a recent release of the service", nil
	}
	return "", nil
}

// rightsFor names the right that a denied request needed.
func rightsFor(op string) string {
	switch op {
	case "put":
		return "this needs s3:PutObject below the folder, and with a KMS key of one's own kms:GenerateDataKey"
	case "copy":
		return "this needs s3:GetObject on the source and s3:PutObject on the destination"
	case "delete":
		return "this needs s3:DeleteObject below the folder"
	}
	return "without s3:ListBucket on the bucket, S3 says 403 for an object that does not exist"
}

// maxAttempts bounds the tries of one request.
const maxAttempts = 6

// retryer is the SDK's standard one, which also tries again after a conflict of
// conditional writes, after 429, as services other than AWS throttle, and after an
// answer that broke off; and waits as long as the service asks. Where that is too
// long, there is no other try: what the service said is worth more than that time
// ran out.
type retryer struct {
	aws.RetryerV2
	log *slog.Logger // hears about every other try
}

func newRetryer(log *slog.Logger) aws.Retryer {
	standard := retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = maxAttempts
		o.MaxBackoff = 5 * time.Second
		o.RateLimiter = noLimit{}
		o.Retryables = append(o.Retryables, retry.RetryableHTTPStatusCode{Codes: map[int]struct{}{http.StatusTooManyRequests: {}}},
			retry.IsErrorRetryableFunc(brokeOff))
	})
	again := retry.AddWithErrorCodes(standard, "ConditionalRequestConflict", "OperationAborted").(aws.RetryerV2)
	return retryer{again, cmp.Or(log, slog.New(slog.DiscardHandler))}
}

// brokeOff: the connection ended within an answer that the SDK reads by itself, such
// as a listing.
func brokeOff(err error) aws.Ternary {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return aws.TrueTernary
	}
	return aws.UnknownTernary
}

// noLimit: the tick's deadline bounds retries; the SDK's token bucket would end
// them early when many copies meet one slow moment of the service.
type noLimit struct{}

func (noLimit) GetToken(context.Context, uint) (func() error, error) {
	return func() error { return nil }, nil
}
func (noLimit) AddTokens(uint) error { return nil }

// longestWait bounds what a service may ask for between two tries.
const longestWait = time.Minute

// errLongWait ends the tries of a request.
var errLongWait = errors.New("the service asks for a longer wait than there is time")

// asked is how long the service asks to wait.
func asked(err error) (time.Duration, bool) {
	if re, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && re.Response != nil {
		if s, e := strconv.ParseInt(re.Response.Header.Get("Retry-After"), 10, 32); e == nil && s >= 0 {
			return time.Duration(s) * time.Second, true
		}
	}
	return 0, false
}

func (r retryer) RetryDelay(attempt int, err error) (time.Duration, error) {
	if wait, ok := asked(err); ok {
		return wait, nil
	}
	return r.RetryerV2.RetryDelay(attempt, err)
}

// GetRetryToken is asked before each wait.
func (r retryer) GetRetryToken(ctx context.Context, err error) (func(error) error, error) {
	if wait, ok := asked(err); ok {
		if end, ends := ctx.Deadline(); wait > longestWait || ends && time.Until(end) < wait {
			return nil, errLongWait
		}
	}
	r.log.DebugContext(ctx, "S3 call failed, trying again", "call", awsmiddleware.GetOperationName(ctx), "error", short(err))
	return r.RetryerV2.GetRetryToken(ctx, err)
}
