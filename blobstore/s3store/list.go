package s3store

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

// List implements [blobstore.Store] with ListObjectsV2, 1,000 keys a request.
// Markers of folders (keys that end in a slash) are no objects.
func (s *Store) List(ctx context.Context, dir blobstore.URI, opts blobstore.ListOptions) iter.Seq2[blobstore.Object, error] {
	return func(yield func(blobstore.Object, error) bool) {
		l := s.listing(dir, opts)
		page, err := l.next(ctx)
		for {
			if err != nil {
				yield(blobstore.Object{}, err)
				return
			}
			if !l.yield(page, yield) || !l.more() {
				return
			}
			if opts.Spread && l.pages == 1 && l.estimate(page) >= s.config.SpreadPages {
				l.spread(ctx, page, yield)
				return
			}
			page, err = l.next(ctx)
		}
	}
}

// listing is a listing under way.
type listing struct {
	store  *Store
	dir    blobstore.URI
	prefix string // of the folder's keys
	in     s3.ListObjectsV2Input
	pages  int // read
}

func (s *Store) listing(dir blobstore.URI, opts blobstore.ListOptions) *listing {
	prefix := dir.Key() + "/"
	if dir.Key() == "" {
		prefix = ""
	}
	l := &listing{store: s, dir: dir, prefix: prefix}
	l.in = s3.ListObjectsV2Input{Bucket: bucket(dir), Prefix: aws.String(prefix), RequestPayer: s.payer()}
	if opts.Shallow {
		l.in.Delimiter = aws.String("/")
	}
	return l
}

// more reports whether there is a page after those read.
func (l *listing) more() bool { return l.pages == 0 || l.in.ContinuationToken != nil }

func (l *listing) next(ctx context.Context) (page *s3.ListObjectsV2Output, err error) {
	err = l.store.call(ctx, "list", l.dir, func(c *s3.Client) (err error) {
		page, err = c.ListObjectsV2(ctx, &l.in)
		if err == nil && page.Name == nil && page.IsTruncated == nil { // nothing, or the page of a portal that asks to log in
			err = &Error{Err: errors.New("the answer is no list"), Advice: "is the endpoint that of an S3 service?"}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	l.pages++
	l.in.ContinuationToken = nil
	if aws.ToBool(page.IsTruncated) {
		l.in.ContinuationToken = page.NextContinuationToken
	}
	return page, nil
}

// yield passes a page on and reports whether to go on.
func (l *listing) yield(page *s3.ListObjectsV2Output, yield func(blobstore.Object, error) bool) bool {
	for _, p := range page.CommonPrefixes {
		name := strings.TrimPrefix(strings.TrimSuffix(aws.ToString(p.Prefix), "/"), l.prefix)
		if name != "" && !yield(blobstore.Object{URI: l.dir.Join(name), Dir: true}, nil) {
			return false
		}
	}
	for _, o := range page.Contents {
		name := strings.TrimPrefix(aws.ToString(o.Key), l.prefix)
		if name == "" || strings.HasSuffix(name, "/") {
			continue
		}
		obj := blobstore.Object{URI: l.dir.Join(name), Size: aws.ToInt64(o.Size), ModTime: aws.ToTime(o.LastModified), Tag: tagOf(o.ETag)}
		if !yield(obj, nil) {
			return false
		}
	}
	return true
}

// estimate is how many pages there are when names are spread evenly, by how far
// the first one came; 0 when it cannot be told.
func (l *listing) estimate(first *s3.ListObjectsV2Output) int {
	name := l.lastName(first)
	if len(name) < 4 {
		return 0
	}
	reached, err := strconv.ParseUint(name[:4], 16, 32)
	if err != nil {
		return 0
	}
	return int(1 << 16 / (reached + 1))
}

func (l *listing) lastName(page *s3.ListObjectsV2Output) string {
	if len(page.Contents) == 0 {
		return ""
	}
	return strings.TrimPrefix(aws.ToString(page.Contents[len(page.Contents)-1].Key), l.prefix)
}

// spread lists what comes after the first page in parts between the digits, all
// at once.
func (l *listing) spread(ctx context.Context, first *s3.ListObjectsV2Output, yield func(blobstore.Object, error) bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pages := make(chan *s3.ListObjectsV2Output)
	g, gctx := errgroup.WithContext(ctx)
	after := l.lastName(first)
	for digit := range strings.SplitSeq("123456789abcdef", "") {
		if digit > after {
			g.Go(l.part(gctx, after, digit, pages))
			after = digit
		}
	}
	g.Go(l.part(gctx, after, "", pages))

	failed := make(chan error, 1)
	go func() { failed <- g.Wait(); close(pages) }()
	for page := range pages {
		if !l.yield(page, yield) {
			cancel()
			for range pages { // until the others have seen it
			}
			return
		}
	}
	if err := <-failed; err != nil {
		yield(blobstore.Object{}, err)
	}
}

// part sends the pages of the names after one up to and with another; "" is the
// end.
func (l *listing) part(ctx context.Context, after, upTo string, pages chan<- *s3.ListObjectsV2Output) func() error {
	p := *l
	p.pages, p.in.ContinuationToken, p.in.StartAfter = 0, nil, aws.String(l.prefix+after)
	return func() error {
		for p.more() {
			page, err := p.next(ctx)
			if err != nil {
				return err
			}
			beyond := func(key string) bool { return upTo != "" && strings.TrimPrefix(key, l.prefix) > upTo }
			n := len(page.Contents)
			page.Contents = slices.DeleteFunc(page.Contents, func(o types.Object) bool { return beyond(aws.ToString(o.Key)) })
			page.CommonPrefixes = slices.DeleteFunc(page.CommonPrefixes, func(c types.CommonPrefix) bool { return beyond(strings.TrimSuffix(aws.ToString(c.Prefix), "/")) })
			select {
			case pages <- page:
			case <-ctx.Done():
				return ctx.Err()
			}
			if len(page.Contents) < n { // the next part has the rest
				return nil
			}
		}
		return nil
	}
}
