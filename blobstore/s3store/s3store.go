// Package s3store is a [blobstore.Store] on Amazon S3 and what speaks its
// protocol, for URIs of the schemes s3, s3a, s3p and s3n. One Store serves all
// buckets; a bucket in another region than configured is found by itself.
//
// Credentials come from the SDK's default chain: environment, shared files, web
// identity (IRSA), container credentials (EKS Pod Identity), instance metadata;
// or from [Config].
//
// Conditional Puts use If-Match and If-None-Match, so two writers cannot both
// win. Endpoints that do not know these headers and say so fail with a hint;
// some old ones ignore them silently, which no client can see.
package s3store

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/internal/parts"
	"github.com/chkpin/chkpin/blobstore/internal/stall"
)

// Config says how to reach S3. The zero value is the SDK's default chain.
type Config struct {
	Region    string // "" is the chain's, or else us-east-1
	Endpoint  string // URL of another service than AWS
	PathStyle bool   // bucket in the path instead of the host name
	Profile   string // of the shared configuration files
	Role      string // ARN to assume with the credentials found
	Anonymous bool   // send no credentials

	AccessKey    string // instead of the chain, with SecretKey
	SecretKey    string
	SessionToken string

	Encryption   string // server-side encryption of what is written: AES256, aws:kms, aws:kms:dsse
	KMSKey       string // for aws:kms; "" is the account's default key
	RequestPayer bool   // pay for requests to requester-pays buckets

	// CopyPartSize is the size of the parts in which objects too large for one
	// CopyObject are copied; 0 means 512 MiB. UploadPartSize is that of bodies
	// that stream from elsewhere; 0 means 8 MiB.
	CopyPartSize   int64
	UploadPartSize int64

	// SpreadPages is from how many pages on, as far as the first one tells, a
	// folder is listed in 16 parts at once where the caller allows it
	// (ListOptions.Spread). That costs up to 16 requests more. 0 means 48.
	SpreadPages int

	// Silence is how long a request that only reads may wait for the service to take
	// or to send a byte, before it is given up and tried again. Others have 20 times
	// as long, since the service may copy an object before it answers. 0 means 30 s.
	Silence time.Duration

	Transport http.RoundTripper // nil is the SDK's
	Logger    *slog.Logger      // hears about retries, and what the SDK has to say, at level DEBUG; nil is silent
}

// Store implements [blobstore.Store].
type Store struct {
	config Config
	memory *parts.Memory

	mu      sync.Mutex
	base    *aws.Config           // nil until it could be loaded
	regions map[string]string     // by bucket, where it is not the configured one
	clients map[string]*s3.Client // by region
}

// New returns a store. It reads the configuration at the first call, so that a
// store that is not used needs none.
func New(config Config) *Store {
	if config.CopyPartSize == 0 {
		config.CopyPartSize = 512 << 20
	}
	if config.UploadPartSize == 0 {
		config.UploadPartSize = 8 << 20
	}
	if config.SpreadPages == 0 {
		config.SpreadPages = 48
	}
	return &Store{config: config, memory: parts.NewMemory(), regions: map[string]string{}, clients: map[string]*s3.Client{}}
}

func (c Config) load(ctx context.Context) (aws.Config, error) {
	opts := []func(*config.LoadOptions) error{
		config.WithRetryer(func() aws.Retryer { return newRetryer(c.Logger) }),
		config.WithLogger(c.sdkLogger()),
	}
	if c.Region != "" {
		opts = append(opts, config.WithRegion(c.Region))
	}
	if c.Profile != "" {
		opts = append(opts, config.WithSharedConfigProfile(c.Profile))
	}
	if c.Transport != nil {
		opts = append(opts, config.WithHTTPClient(&http.Client{Transport: c.Transport}))
	} else {
		opts = append(opts, config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(keepConnections)))
	}
	switch {
	case c.Anonymous:
		opts = append(opts, config.WithCredentialsProvider(aws.AnonymousCredentials{}))
	case c.AccessKey != "":
		opts = append(opts, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, c.SessionToken)))
	}
	loaded, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return loaded, fmt.Errorf("s3 configuration: %w", err)
	}
	loaded.HTTPClient = stall.Limit(loaded.HTTPClient.Do, c.Silence) // not earlier: the SDK adds AWS_CA_BUNDLE to a client of its own only
	if loaded.Region == "" {
		loaded.Region = "us-east-1" // where AWS answers with the bucket's region; other services ignore it
	}
	if c.Role != "" {
		provider := stscreds.NewAssumeRoleProvider(sts.NewFromConfig(loaded), c.Role)
		loaded.Credentials = aws.NewCredentialsCache(provider)
	}
	return loaded, nil
}

// sdkLogger keeps the SDK from writing to stderr by itself.
func (c Config) sdkLogger() logging.Logger {
	if c.Logger == nil {
		return logging.Nop{}
	}
	return logging.LoggerFunc(func(_ logging.Classification, format string, args ...any) {
		c.Logger.Debug("SDK: " + fmt.Sprintf(format, args...))
	})
}

// keepConnections makes the SDK's transport keep all idle connections that it
// keeps, even if they lead to one host: its own limit of 10 would close most of
// those that many copies at once have opened, again and again.
func keepConnections(t *http.Transport) { t.MaxIdleConnsPerHost = t.MaxIdleConns }

// client returns the client for a bucket's region, and that region.
func (s *Store) client(ctx context.Context, bucket string) (*s3.Client, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.base == nil { // what fails is tried again by the next call
		base, err := s.config.load(context.WithoutCancel(ctx))
		if err != nil {
			return nil, "", err
		}
		s.base = &base
	}
	region := s.regions[bucket]
	if region == "" {
		region = s.base.Region
	}
	if c := s.clients[region]; c != nil {
		return c, region, nil
	}
	c := s3.NewFromConfig(*s.base, func(o *s3.Options) {
		o.Region = region
		o.UsePathStyle = s.config.PathStyle
		if s.config.Endpoint != "" {
			o.BaseEndpoint = aws.String(s.config.Endpoint)
			// Checksums that the SDK adds on its own are unknown to many services.
			o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
			o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		}
	})
	s.clients[region] = c
	return c, region, nil
}

// call runs one request on the client of u's bucket. A bucket that turns out to
// be in another region is remembered, and the request repeated there.
func (s *Store) call(ctx context.Context, op string, u blobstore.URI, request func(*s3.Client) error) error {
	for moved := false; ; moved = true {
		client, asked, err := s.client(ctx, u.Container())
		if err == nil {
			err = request(client)
		}
		if err == nil {
			return nil
		}
		if region := regionOf(err); region != "" && region != asked && !moved && s.config.Endpoint == "" {
			s.move(u.Container(), region)
			continue
		}
		return &blobstore.Error{Op: op, URI: u, Err: explain(ctx, op, err)}
	}
}

// move notes a bucket's region.
func (s *Store) move(bucket, region string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.regions[bucket] = region
}

func (s *Store) payer() types.RequestPayer {
	if s.config.RequestPayer {
		return types.RequestPayerRequester
	}
	return ""
}

func (s *Store) kmsKey() *string {
	if s.config.KMSKey == "" {
		return nil
	}
	return aws.String(s.config.KMSKey)
}

// Stat implements [blobstore.Store] with HeadObject.
func (s *Store) Stat(ctx context.Context, u blobstore.URI) (blobstore.Object, error) {
	var obj blobstore.Object
	err := s.call(ctx, "stat", u, func(c *s3.Client) error {
		if u.Key() == "" { // the SDK cannot ask for it
			return blobstore.ErrNotExist
		}
		out, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket(u), Key: key(u), RequestPayer: s.payer()})
		if err == nil {
			obj = describe(u, out.ContentLength, out.LastModified, out.ETag)
		}
		return err
	})
	return obj, err
}

// Open implements [blobstore.Store] with GetObject. A connection that breaks is
// taken up where it broke, as long as the object is the same.
func (s *Store) Open(ctx context.Context, u blobstore.URI) (io.ReadCloser, blobstore.Object, error) {
	if u.Key() == "" { // the SDK cannot ask for it
		return nil, blobstore.Object{}, &blobstore.Error{Op: "open", URI: u, Err: blobstore.ErrNotExist}
	}
	out, err := s.get(ctx, u, 0, "")
	if err != nil {
		return nil, blobstore.Object{}, err
	}
	obj := describe(u, out.ContentLength, out.LastModified, out.ETag)
	return &body{out.Body, ctx, s, obj, 0, 0}, obj, nil
}

// get asks for an object from a byte on, and only for the one that has the tag, "" for
// any.
func (s *Store) get(ctx context.Context, u blobstore.URI, from int64, tag string) (out *s3.GetObjectOutput, err error) {
	in := &s3.GetObjectInput{Bucket: bucket(u), Key: key(u), RequestPayer: s.payer()}
	if from > 0 {
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", from))
	}
	if tag != "" {
		in.IfMatch = aws.String(tag)
	}
	err = s.call(ctx, "open", u, func(c *s3.Client) (err error) {
		out, err = c.GetObject(ctx, in)
		return err
	})
	return out, err
}

// body is an object being read.
type body struct {
	io.ReadCloser
	ctx    context.Context
	store  *Store
	object blobstore.Object
	read   int64
	breaks int // since a byte came
}

// maxBreaks is how often a body is taken up without getting any further.
const maxBreaks = 3

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if n > 0 {
		b.breaks = 0
	}
	if err == nil || err == io.EOF || b.object.Tag == "" || b.object.Size < 0 || b.ctx.Err() != nil || b.breaks == maxBreaks {
		return n, err
	}
	if b.read == b.object.Size {
		return n, io.EOF
	}
	b.breaks++
	rest, failed := b.store.get(b.ctx, b.object.URI, b.read, b.object.Tag)
	if failed != nil {
		return n, failed
	}
	if b.read > 0 && !strings.HasPrefix(aws.ToString(rest.ContentRange), fmt.Sprintf("bytes %d-", b.read)) { // a service without ranges
		rest.Body.Close()
		return n, err
	}
	b.ReadCloser.Close() //nolint:errcheck // it is broken
	b.ReadCloser = rest.Body
	return n, nil
}

// describe is an object as an answer's headers tell of it. What comes in chunks,
// as from behind some proxies, does not say its length.
func describe(u blobstore.URI, size *int64, modified *time.Time, tag *string) blobstore.Object {
	obj := blobstore.Object{URI: u, Size: -1, ModTime: aws.ToTime(modified), Tag: tagOf(tag)}
	if size != nil {
		obj.Size = *size
	}
	return obj
}

// tagOf is an ETag as a condition wants it: a proxy that may change how a body is
// sent calls it weak, and no weak one meets If-Match.
func tagOf(etag *string) string { return strings.TrimPrefix(aws.ToString(etag), "W/") }

// Delete implements [blobstore.Store].
func (s *Store) Delete(ctx context.Context, u blobstore.URI) error {
	return s.call(ctx, "delete", u, func(c *s3.Client) error {
		_, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket(u), Key: key(u), RequestPayer: s.payer()})
		return err
	})
}

func bucket(u blobstore.URI) *string { return aws.String(u.Container()) }
func key(u blobstore.URI) *string    { return aws.String(u.Key()) }
