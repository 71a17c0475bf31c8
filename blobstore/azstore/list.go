package azstore

import (
	"context"
	"errors"
	"iter"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/chkpin/chkpin/blobstore"
)

// List implements [blobstore.Store] with List Blobs, up to 5,000 names a request.
func (s *Store) List(ctx context.Context, dir blobstore.URI, opts blobstore.ListOptions) iter.Seq2[blobstore.Object, error] {
	return func(yield func(blobstore.Object, error) bool) {
		l := listing{dir: dir, prefix: keyOf(dir) + "/", yield: yield}
		if dir.Key() == "" {
			l.prefix = ""
		}
		// What tells a folder's mark and a copy that is not there comes with the names.
		include := container.ListBlobsInclude{Metadata: true, Copy: true}
		var size *int32
		if s.config.PageSize > 0 {
			size = &s.config.PageSize
		}
		err := s.call(ctx, "list", dir, func(a *account) error {
			c := a.container(dir)
			if opts.Shallow {
				return each(ctx, c.NewListBlobsHierarchyPager("/", &container.ListBlobsHierarchyOptions{Prefix: &l.prefix, Include: include, MaxResults: size}),
					func(page container.ListBlobsHierarchyResponse) (bool, error) {
						if page.Segment == nil {
							return false, noList()
						}
						return l.folders(page.Segment.BlobPrefixes) && l.objects(page.Segment.BlobItems), nil
					})
			}
			return each(ctx, c.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &l.prefix, Include: include, MaxResults: size}),
				func(page container.ListBlobsFlatResponse) (bool, error) {
					if page.Segment == nil {
						return false, noList()
					}
					return l.objects(page.Segment.BlobItems), nil
				})
		})
		if err != nil {
			yield(blobstore.Object{}, err)
		}
	}
}

// noList is about a success without a list, such as the page of a portal that asks
// to log in.
func noList() error {
	return &Error{Err: errors.New("the answer is no list"), Advice: notAzure}
}

// each passes on page after page, until there are no more or do wants none.
func each[Page any](ctx context.Context, pager *runtime.Pager[Page], do func(Page) (bool, error)) error {
	for pager.More() {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return err
		}
		if more, err := do(page); !more {
			return err
		}
	}
	return nil
}

// listing yields what lies below a folder. Its methods report whether to go on.
type listing struct {
	dir    blobstore.URI
	prefix string // of the folder's keys
	yield  func(blobstore.Object, error) bool
}

func (l *listing) folders(prefixes []*container.BlobPrefix) bool {
	for _, p := range prefixes {
		if u, ok := l.below(strings.TrimSuffix(*p.Name, "/")); ok && !l.yield(blobstore.Object{URI: u, Dir: true}, nil) {
			return false
		}
	}
	return true
}

func (l *listing) objects(blobs []*container.BlobItem) bool {
	for _, b := range blobs {
		if b.Name == nil || b.Properties == nil {
			continue
		}
		u, ok := l.below(*b.Name)
		if !ok || strings.HasSuffix(*b.Name, "/") || !isObject(b.Metadata, b.Properties.CopyStatus) {
			continue
		}
		p := b.Properties
		if !l.yield(describe(u, p.ContentLength, p.LastModified, p.ETag), nil) {
			return false
		}
	}
	return true
}

// below is what a name in the container is called below the folder.
func (l *listing) below(key string) (u blobstore.URI, ok bool) {
	name := pathOf(strings.TrimPrefix(key, l.prefix))
	return l.dir.Join(name), name != ""
}
