package s3store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/internal/parts"
)

// sectionParts is how many times larger the parts of a body are that needs no
// memory.
const sectionParts = 8

// partsInFlight bounds the parts of one large copy under way at once.
const partsInFlight = 16

// Put implements [blobstore.Store] with PutObject, or with a multipart upload
// when the body is large. The condition is that of the last request. Bodies that
// can be read anywhere are sent from where they are; others by way of memory, of
// which all Puts together take 32 MiB.
func (s *Store) Put(ctx context.Context, u blobstore.URI, body io.Reader, opts blobstore.PutOptions) (blobstore.Object, error) {
	obj, err := s.put(ctx, u, body, opts)
	if _, ok := err.(*blobstore.Error); err != nil && !ok { // of the body
		err = &blobstore.Error{Op: "put", URI: u, Err: err}
	}
	return obj, err
}

// maxPut is the largest body of one PutObject (AWS).
const maxPut = 5 << 30

func (s *Store) put(ctx context.Context, u blobstore.URI, body io.Reader, opts blobstore.PutOptions) (blobstore.Object, error) {
	if r, ok := body.(parts.Sectioned); ok && r.Size() >= 0 {
		whole := &parts.Parts{At: r, Size: r.Size(), Each: max(sectionParts*s.config.UploadPartSize, parts.Least(r.Size(), maxParts))}
		most := 2 * whole.Each
		if opts != (blobstore.PutOptions{}) { // not every service has conditions on uploads in parts
			most = maxPut
		}
		if r.Size() > most {
			return s.putParts(ctx, u, whole, opts)
		}
		return s.putObject(ctx, u, io.NewSectionReader(r, 0, r.Size()), r.Size(), opts)
	}
	size := parts.SizeOf(body)
	all := &parts.Parts{Stream: body, Size: size, Each: max(s.config.UploadPartSize, parts.Least(size, maxParts)), Memory: s.memory}
	first, whole, err := all.First(ctx)
	if err != nil {
		return blobstore.Object{}, err
	}
	defer first.Release()
	if whole {
		return s.putObject(ctx, u, first.Body, first.Size, opts)
	}
	return s.putParts(ctx, u, all, opts)
}

func (s *Store) putObject(ctx context.Context, u blobstore.URI, body io.ReadSeeker, size int64, opts blobstore.PutOptions) (blobstore.Object, error) {
	obj := blobstore.Object{URI: u, Size: size}
	err := s.call(ctx, "put", u, func(c *s3.Client) error {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return err
		}
		ifMatch, ifNoneMatch := conditions(opts)
		out, err := c.PutObject(ctx, &s3.PutObjectInput{
			Bucket: bucket(u), Key: key(u), Body: body, ContentLength: aws.Int64(size),
			IfMatch: ifMatch, IfNoneMatch: ifNoneMatch,
			ServerSideEncryption: types.ServerSideEncryption(s.config.Encryption), SSEKMSKeyId: s.kmsKey(),
			RequestPayer: s.payer(),
		})
		if err == nil {
			obj.Tag = tagOf(out.ETag)
		}
		return unmet(err, opts)
	})
	return obj, err
}

func conditions(opts blobstore.PutOptions) (ifMatch, ifNoneMatch *string) {
	if opts.IfTag != "" {
		ifMatch = aws.String(opts.IfTag)
	}
	if opts.IfAbsent {
		ifNoneMatch = aws.String("*")
	}
	return ifMatch, ifNoneMatch
}

// unmet turns "no such key" in answer to If-Match into what it means.
func unmet(err error, opts blobstore.PutOptions) error {
	if err != nil && opts.IfTag != "" && codeOf(err) == "NoSuchKey" {
		return fmt.Errorf("%w: %w", blobstore.ErrPrecondition, err)
	}
	return err
}

// putParts uploads a body part by part, some at once.
func (s *Store) putParts(ctx context.Context, u blobstore.URI, body *parts.Parts, opts blobstore.PutOptions) (blobstore.Object, error) {
	obj := blobstore.Object{URI: u}
	err := s.multipart(ctx, "put", u, opts, func(c *s3.Client, id *string) ([]types.CompletedPart, error) {
		var sent []*types.CompletedPart
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(partsInFlight)
		for {
			p, err := body.Next(gctx)
			if err != nil {
				if failed := g.Wait(); failed != nil { // which ended gctx
					err = failed
				}
				return nil, err
			}
			if p.Size == 0 {
				p.Release()
				break
			}
			obj.Size += p.Size
			done := &types.CompletedPart{PartNumber: aws.Int32(int32(len(sent) + 1))}
			sent = append(sent, done)
			g.Go(func() error {
				defer p.Release()
				out, err := c.UploadPart(gctx, &s3.UploadPartInput{
					Bucket: bucket(u), Key: key(u), UploadId: id, PartNumber: done.PartNumber,
					Body: p.Body, ContentLength: aws.Int64(p.Size), RequestPayer: s.payer(),
				})
				if err == nil {
					done.ETag = out.ETag
				}
				return err
			})
		}
		err := g.Wait()
		var all []types.CompletedPart
		for _, p := range sent {
			all = append(all, *p)
		}
		return all, err
	}, &obj.Tag)
	return obj, err
}

// multipart runs an upload in parts and removes its traces when it fails.
func (s *Store) multipart(ctx context.Context, op string, u blobstore.URI, opts blobstore.PutOptions,
	upload func(c *s3.Client, id *string) ([]types.CompletedPart, error), tag *string) error {
	return s.call(ctx, op, u, func(c *s3.Client) error {
		started, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
			Bucket: bucket(u), Key: key(u),
			ServerSideEncryption: types.ServerSideEncryption(s.config.Encryption), SSEKMSKeyId: s.kmsKey(),
			RequestPayer: s.payer(),
		})
		if err != nil {
			return err
		}
		uploaded, err := upload(c, started.UploadId)
		if err == nil {
			var out *s3.CompleteMultipartUploadOutput
			ifMatch, ifNoneMatch := conditions(opts)
			out, err = c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
				Bucket: bucket(u), Key: key(u), UploadId: started.UploadId,
				MultipartUpload: &types.CompletedMultipartUpload{Parts: uploaded},
				IfMatch:         ifMatch, IfNoneMatch: ifNoneMatch, RequestPayer: s.payer(),
			})
			if err == nil {
				*tag = tagOf(out.ETag)
				return nil
			}
		}
		s.abort(ctx, c, u, started.UploadId)
		return unmet(err, opts)
	})
}

// abort removes the traces of an upload that has failed, for what stays costs money
// until somebody looks. The reason may be that ctx ended, or that the service does not
// answer: nobody waits long.
func (s *Store) abort(ctx context.Context, c *s3.Client, u blobstore.URI, id *string) {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	_, _ = c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: bucket(u), Key: key(u), UploadId: id, RequestPayer: s.payer()})
}

// Copy implements [blobstore.Store] on the server: with one CopyObject, or in
// parts when the service says that the source is too large for that (5 GiB on
// AWS). Tags are not copied, since that would take another right.
func (s *Store) Copy(ctx context.Context, dst, src blobstore.URI) (blobstore.Object, error) {
	obj := blobstore.Object{URI: dst, Size: -1}
	err := s.call(ctx, "copy", dst, func(c *s3.Client) error {
		out, err := c.CopyObject(ctx, &s3.CopyObjectInput{
			Bucket: bucket(dst), Key: key(dst), CopySource: copySource(src),
			TaggingDirective:     types.TaggingDirectiveReplace,
			ServerSideEncryption: types.ServerSideEncryption(s.config.Encryption), SSEKMSKeyId: s.kmsKey(),
			RequestPayer: s.payer(),
		})
		if err == nil && out.CopyObjectResult != nil {
			obj.Tag = tagOf(out.CopyObjectResult.ETag)
			obj.ModTime = aws.ToTime(out.CopyObjectResult.LastModified)
		}
		return err
	})
	if err != nil && tooLarge(err) {
		obj, err = s.copyParts(ctx, dst, src)
	}
	if e := (*blobstore.Error)(nil); errors.As(err, &e) {
		e.Src = src
	}
	return obj, err
}

// tooLarge reports whether a service refused a copy for the size of its source.
// AWS has no code of its own for that.
func tooLarge(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Code == "EntityTooLarge" || e.Code == "InvalidRequest" && strings.Contains(e.Error(), "larger than"))
}

// copyParts copies an object range by range. It must stay the same object: a
// source that changes meanwhile fails the copy.
func (s *Store) copyParts(ctx context.Context, dst, src blobstore.URI) (blobstore.Object, error) {
	source, err := s.Stat(ctx, src)
	if err != nil {
		return blobstore.Object{}, err
	}
	if source.Size < 0 {
		return blobstore.Object{}, &blobstore.Error{Op: "copy", URI: dst, Err: errors.New("the service does not say how large the source is")}
	}
	obj := blobstore.Object{URI: dst, Size: source.Size}
	size := max(s.config.CopyPartSize, (source.Size+maxParts-1)/maxParts)
	err = s.multipart(ctx, "copy", dst, blobstore.PutOptions{}, func(c *s3.Client, id *string) ([]types.CompletedPart, error) {
		copied := make([]types.CompletedPart, (source.Size+size-1)/size)
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(partsInFlight)
		for i := range copied {
			g.Go(func() error {
				from := int64(i) * size
				to := min(from+size, source.Size) - 1
				out, err := c.UploadPartCopy(gctx, &s3.UploadPartCopyInput{
					Bucket: bucket(dst), Key: key(dst), UploadId: id, PartNumber: aws.Int32(int32(i + 1)),
					CopySource: copySource(src), CopySourceIfMatch: aws.String(source.Tag),
					CopySourceRange: aws.String(fmt.Sprintf("bytes=%d-%d", from, to)), RequestPayer: s.payer(),
				})
				if err == nil && out.CopyPartResult == nil {
					err = errors.New("the service does not say what it copied")
				}
				if err == nil {
					copied[i] = types.CompletedPart{ETag: out.CopyPartResult.ETag, PartNumber: aws.Int32(int32(i + 1))}
				}
				return err
			})
		}
		return copied, g.Wait()
	}, &obj.Tag)
	return obj, err
}

// maxParts is S3's limit for one upload.
const maxParts = 10_000

// copySource names a source as the header wants it: percent-encoded, slashes
// kept.
func copySource(u blobstore.URI) *string {
	const hex = "0123456789ABCDEF"
	name := u.Container() + "/" + u.Key()
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return aws.String(b.String())
}
