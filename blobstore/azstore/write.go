package azstore

import (
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/internal/parts"
)

// maxBlocks is the service's limit for one blob.
const maxBlocks = 50_000

// Put implements [blobstore.Store] with Put Blob, or with Put Block and Put Block
// List when the body is larger than one block. The condition is that of the last
// request. The service checks what arrives by its MD5. Bodies that can be read
// anywhere are sent from where they are; others by way of memory, of which all Puts
// together take 32 MiB.
func (s *Store) Put(ctx context.Context, u blobstore.URI, body io.Reader, opts blobstore.PutOptions) (blobstore.Object, error) {
	var obj blobstore.Object
	size := parts.SizeOf(body)
	all := &parts.Parts{Stream: body, Size: size, Each: max(s.config.UploadBlockSize, parts.Least(size, maxBlocks)), Memory: s.memory}
	if r, ok := body.(parts.Sectioned); ok && size >= 0 {
		all.At = r
	}
	err := s.call(ctx, "put", u, func(a *account) (err error) {
		obj, err = put(ctx, a.blob(u), u, all, conditions(opts))
		return unmet(err, opts)
	})
	return obj, err
}

func put(ctx context.Context, b *blockblob.Client, u blobstore.URI, body *parts.Parts, conditions *blob.AccessConditions) (blobstore.Object, error) {
	first, whole, err := body.First(ctx)
	if err != nil {
		return blobstore.Object{}, err
	}
	defer first.Release()
	if whole {
		sum, err := md5Of(first.Body)
		if err != nil {
			return blobstore.Object{}, err
		}
		out, err := b.Upload(ctx, streaming.NopCloser(first.Body), &blockblob.UploadOptions{TransactionalValidation: sum, AccessConditions: conditions})
		return describe(u, &first.Size, out.LastModified, out.ETag), err
	}
	return putBlocks(ctx, b, u, body, conditions)
}

// putBlocks sends block after block. The names of the blocks are those of this
// upload alone, so that another to the same blob has no part in it; what is not
// committed the service forgets within a week.
func putBlocks(ctx context.Context, b *blockblob.Client, u blobstore.URI, body *parts.Parts, conditions *blob.AccessConditions) (blobstore.Object, error) {
	var size int64
	var ids []string
	for upload := rand.Text(); ; {
		p, err := body.Next(ctx)
		if err != nil {
			return blobstore.Object{}, err
		}
		if p.Size == 0 {
			p.Release()
			break
		}
		id := blockID(upload, len(ids))
		sum, err := md5Of(p.Body)
		if err == nil {
			_, err = b.StageBlock(ctx, id, streaming.NopCloser(p.Body), &blockblob.StageBlockOptions{TransactionalValidation: sum})
		}
		p.Release()
		if err != nil {
			return blobstore.Object{}, err
		}
		ids, size = append(ids, id), size+p.Size
	}
	out, err := b.CommitBlockList(ctx, ids, &blockblob.CommitBlockListOptions{AccessConditions: conditions})
	return describe(u, &size, out.LastModified, out.ETag), err
}

func blockID(upload string, n int) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s-%05d", upload, n))
}

// md5Of reads a body and goes back to its beginning.
func md5Of(body io.ReadSeeker) (blob.TransferValidationTypeMD5, error) {
	h := md5.New()
	if _, err := io.Copy(h, body); err != nil {
		return nil, err
	}
	_, err := body.Seek(0, io.SeekStart)
	return h.Sum(nil), err
}

func conditions(opts blobstore.PutOptions) *blob.AccessConditions {
	var c blob.ModifiedAccessConditions
	if opts.IfTag != "" {
		tag := azcore.ETag(opts.IfTag)
		c.IfMatch = &tag
	}
	if opts.IfAbsent {
		tag := azcore.ETagAny
		c.IfNoneMatch = &tag
	}
	return &blob.AccessConditions{ModifiedAccessConditions: &c}
}

// unmet turns what the service says of a condition that is not met into what it
// means: that there is such a blob, or none to have the tag.
func unmet(err error, opts blobstore.PutOptions) error {
	if opts.IfAbsent && bloberror.HasCode(err, bloberror.BlobAlreadyExists) ||
		opts.IfTag != "" && bloberror.HasCode(err, bloberror.BlobNotFound) {
		return fmt.Errorf("%w: %w", blobstore.ErrPrecondition, err)
	}
	return err
}

// Copy implements [blobstore.Store] on the server within an account: with Copy
// Blob From URL, one request for up to 256 MiB, and for more with Copy Blob, which
// goes on in the background and is waited for. That would remove what stands there
// when it starts, so an object that exists is replaced block by block, with Put Block
// From URL. What the service refuses to copy, and what comes from another account,
// streams.
func (s *Store) Copy(ctx context.Context, dst, src blobstore.URI) (blobstore.Object, error) {
	obj, err := s.copy(ctx, dst, src)
	if err != nil {
		return blobstore.Object{}, &blobstore.Error{Op: "copy", URI: dst, Src: src, Err: err}
	}
	return obj, nil
}

func (s *Store) copy(ctx context.Context, dst, src blobstore.URI) (blobstore.Object, error) {
	from, err := s.account(src)
	if err != nil {
		return blobstore.Object{}, explain(ctx, from, err)
	}
	to, err := s.account(dst)
	if err != nil {
		return blobstore.Object{}, explain(ctx, to, err)
	}
	if to != from {
		return s.stream(ctx, dst, src)
	}
	obj, err := s.copyNow(ctx, to, dst, src)
	if bloberror.HasCode(err, bloberror.PendingCopyOperation) { // which somebody began and did not wait for
		if _, err = s.settled(ctx, to.blob(dst)); err == nil {
			obj, err = s.copyNow(ctx, to, dst, src)
		}
	}
	if refused(err) || denied(err) { // a firewall shuts out the service, too, when it reads in its own name
		obj, err = s.copyInBackground(ctx, to, dst, src)
		if exists(err) {
			if obj, err = s.copyBlocks(ctx, to, dst, src); denied(err) {
				return s.stream(ctx, dst, src)
			}
		}
	}
	if refused(err) {
		return s.stream(ctx, dst, src)
	}
	return obj, explain(ctx, to, err)
}

// refused reports whether the service will not make this copy in this way, such as
// one of a blob that is too large for it, but might in another.
func refused(err error) bool {
	switch statusOf(err) {
	case http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusNotImplemented:
		return true
	}
	return denied(err) && bloberror.HasCode(err, bloberror.CannotVerifyCopySource)
}

func denied(err error) bool {
	status := statusOf(err)
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// statusOf is the HTTP status of the service's answer, 0 if none came.
func statusOf(err error) int {
	if answer, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return answer.StatusCode
	}
	return 0
}

// copyNow copies a blob with one request that returns when all is done. The
// service reads the source in its own name, so that has to carry a permission,
// even within an account.
func (s *Store) copyNow(ctx context.Context, a *account, dst, src blobstore.URI) (blobstore.Object, error) {
	source, token, err := a.source(ctx, src)
	if err != nil {
		return blobstore.Object{}, err
	}
	out, err := a.blob(dst).CopyFromURL(ctx, source, &blob.CopyFromURLOptions{CopySourceAuthorization: token})
	return describe(dst, nil, out.LastModified, out.ETag), err
}

// source is the URL by which the service reads a blob, and the token for it, nil
// where the URL has the permission in itself.
func (a *account) source(ctx context.Context, u blobstore.URI) (url string, authorization *string, err error) {
	url = a.blob(u).URL() // with the SAS, where that is what opens the account
	switch {
	case a.key != nil:
		permission, err := a.permission(u)
		return url + "?" + permission, nil, err
	case a.token != nil:
		token, err := a.token.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://storage.azure.com/.default"}})
		if err != nil {
			return "", nil, err
		}
		bearer := "Bearer " + token.Token
		return url, &bearer, nil
	}
	return url, nil, nil
}

// permission is a shared access signature for reading one blob within the hour.
func (a *account) permission(u blobstore.URI) (string, error) {
	signed, err := sas.BlobSignatureValues{
		ContainerName: containerOf(u),
		BlobName:      keyOf(u),
		Permissions:   (&sas.BlobPermissions{Read: true}).String(),
		ExpiryTime:    time.Now().UTC().Add(time.Hour),
	}.SignWithSharedKey(a.key)
	return signed.Encode(), err
}

// copyInBackground starts a copy to where nothing is, and waits for it. Within an
// account the request's own rights count for the source, too.
func (s *Store) copyInBackground(ctx context.Context, a *account, dst, src blobstore.URI) (blobstore.Object, error) {
	b := a.blob(dst)
	out, err := b.StartCopyFromURL(ctx, a.blob(src).URL(), &blob.StartCopyFromURLOptions{AccessConditions: conditions(blobstore.PutOptions{IfAbsent: true})})
	if err != nil {
		return blobstore.Object{}, err
	}
	if out.CopyStatus == nil || *out.CopyStatus == blob.CopyStatusTypeSuccess {
		return describe(dst, nil, out.LastModified, out.ETag), nil
	}
	ended, err := s.settled(ctx, b)
	if err != nil {
		if out.CopyID != nil {
			abort(ctx, b, *out.CopyID)
		}
		return blobstore.Object{}, err
	}
	if ended.CopyStatus != nil && *ended.CopyStatus != blob.CopyStatusTypeSuccess {
		why := ""
		if ended.CopyStatusDescription != nil {
			why = ": " + *ended.CopyStatusDescription
		}
		err := fmt.Errorf("the service did not complete the copy (%s%s)", *ended.CopyStatus, why)
		if strings.HasPrefix(why, ": 404 ") { // what reading the source was answered with
			err = fmt.Errorf("%w: %w", blobstore.ErrNotExist, err)
		}
		return blobstore.Object{}, err
	}
	return describe(dst, ended.ContentLength, ended.LastModified, ended.ETag), nil
}

// exists reports whether a request was refused because there is such a blob.
func exists(err error) bool {
	return bloberror.HasCode(err, bloberror.BlobAlreadyExists, bloberror.ConditionNotMet, bloberror.TargetConditionNotMet)
}

// blocksInFlight bounds the blocks of one copy under way at once.
const blocksInFlight = 16

// copyBlocks copies a blob range by range, and puts the whole in the place of what
// stands there with its last request. It must stay the same blob: a source that
// changes meanwhile fails the copy.
func (s *Store) copyBlocks(ctx context.Context, a *account, dst, src blobstore.URI) (blobstore.Object, error) {
	from, err := a.blob(src).GetProperties(ctx, nil)
	if err != nil {
		return blobstore.Object{}, err
	}
	if from.ContentLength == nil {
		return s.stream(ctx, dst, src)
	}
	size := *from.ContentLength
	each := max(s.config.CopyBlockSize, parts.Least(size, maxBlocks))
	ids, upload := make([]string, parts.Least(size, each)), rand.Text()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(blocksInFlight)
	for i := range ids {
		ids[i] = blockID(upload, i)
		g.Go(func() error {
			source, token, err := a.source(gctx, src) // anew for each, as permissions expire
			if err != nil {
				return err
			}
			offset := int64(i) * each
			_, err = a.blob(dst).StageBlockFromURL(gctx, ids[i], source, &blockblob.StageBlockFromURLOptions{
				CopySourceAuthorization:        token,
				Range:                          blob.HTTPRange{Offset: offset, Count: min(each, size-offset)},
				SourceModifiedAccessConditions: &blob.SourceModifiedAccessConditions{SourceIfMatch: from.ETag},
			})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return blobstore.Object{}, err
	}
	out, err := a.blob(dst).CommitBlockList(ctx, ids, nil)
	return describe(dst, &size, out.LastModified, out.ETag), err
}

// settled waits until no copy onto a blob is under way.
func (s *Store) settled(ctx context.Context, b *blockblob.Client) (blob.GetPropertiesResponse, error) {
	longest := 20 * s.config.PollInterval
	for wait := s.config.PollInterval; ; wait = min(2*wait, longest) {
		out, err := b.GetProperties(ctx, nil)
		if err != nil || out.CopyStatus == nil || *out.CopyStatus != blob.CopyStatusTypePending {
			return out, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return out, ctx.Err()
		}
	}
}

// abort ends a copy that nobody waits for any more. If that fails, the service
// completes it, which does no harm. What is left when it does not fail, an empty
// blob, is none to this package; it cannot be deleted, for another may be copying
// onto it by now.
func abort(ctx context.Context, b *blockblob.Client, id string) {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	_, _ = b.AbortCopyFromURL(ctx, id, nil)
}

// stream copies a blob through this process, a block at a time.
func (s *Store) stream(ctx context.Context, dst, src blobstore.URI) (blobstore.Object, error) {
	r, from, err := s.Open(ctx, src)
	if err != nil {
		return blobstore.Object{}, err
	}
	defer r.Close()
	return s.Put(ctx, dst, &sized{r, from.Size}, blobstore.PutOptions{})
}

// sized is a stream that says how long it is.
type sized struct {
	io.Reader
	size int64
}

// Size implements what [blobstore.Store.Put] asks for.
func (s *sized) Size() int64 { return s.size }
