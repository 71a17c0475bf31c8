// Package azstore is a [blobstore.Store] on Azure Blob Storage and what speaks
// its protocol, for URIs of the schemes wasb, wasbs, abfs and abfss:
//
//	wasbs://container@account.blob.core.windows.net/path
//	abfss://container@account.dfs.core.windows.net/path
//	wasb://container@storageemulator/path
//
// One Store serves all accounts, each with its own credentials; see [Config].
// The blob and the dfs name of an account are one account, and all requests go
// to its blob service, by HTTPS.
//
// Keys are what Flink's filesystem for Azure (hadoop-azure) makes of a path: each
// character stands for itself, but for a dot at the end of a name, which the
// service would drop and which is stored as "[[.]]" (NativeAzureFileSystem). To the
// service itself a backslash is a slash.
//
// What marks a folder (metadata hdi_isfolder, or a name that ends in a slash) is
// no object. Neither is the target of a copy that the service has not completed,
// or has given up: it may have the right size and none of the bytes.
//
// # Accounts with a hierarchical namespace
//
// They are reached through the same blob service. Folders are real there: Put and
// Copy make those above an object, Delete leaves them, and a name is an object or
// a folder, not both. Rights given by access control lists count for token
// credentials only.
package azstore

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/internal/parts"
	"github.com/chkpin/chkpin/blobstore/internal/stall"
)

// Config says how to reach Azure. The zero value reaches every account by its own
// name, with what the environment tells. The credentials of an account are the
// first of these:
//
//   - its entry in Accounts;
//   - AZURE_STORAGE_CONNECTION_STRING, if it is this account's;
//   - AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, if AZURE_STORAGE_ACCOUNT
//     names this account or is not set;
//   - the well-known key of the emulator, for its account devstoreaccount1;
//   - Credential.
type Config struct {
	// Endpoint is the URL of another service than Azure's own, in which accounts
	// are folders: http://azurite:10000.
	Endpoint string

	Anonymous bool              // send no credentials
	Accounts  map[string]Access // by the account's name, the first part of its host name

	// Credential gets tokens for the accounts that have neither key nor SAS. nil
	// is the SDK's DefaultAzureCredential: environment, workload identity, managed
	// identity, developer tools.
	Credential azcore.TokenCredential

	// UploadBlockSize is the size of the blocks in which larger bodies are sent, one
	// at a time. 0 means 8 MiB. They are larger where a body would have more than
	// 50,000.
	UploadBlockSize int64

	// CopyBlockSize is the size of the blocks in which an object of more than 256 MiB is
	// copied onto one that exists. 0 means 100 MiB. They are larger where it would have
	// more than 50,000.
	CopyBlockSize int64

	PageSize int32 // of listings; 0 is the service's 5,000 names

	// PollInterval is the time between the first two looks at a copy that the
	// service makes in the background. It grows to 20 times that. 0 means 250 ms.
	PollInterval time.Duration

	// Silence is how long a request that only reads may wait for the service to take
	// or to send a byte, before it is given up and tried again. Others have 20 times
	// as long, since the service may copy an object before it answers. 0 means 30 s.
	Silence time.Duration

	Logger    *slog.Logger                 // hears about retries, at level DEBUG; nil is silent
	Transport http.RoundTripper            // nil is the standard library's, which then keeps more idle connections
	Getenv    func(name string) (v string) // nil is [os.Getenv]
}

// Access is what proves who we are to one account. At most one is set.
type Access struct {
	Key string // account key, base64
	SAS string // shared access signature, with or without the leading '?'
}

// Store implements [blobstore.Store].
type Store struct {
	config Config
	memory *parts.Memory

	mu       sync.Mutex
	accounts map[string]*account // by host
}

// New returns a store. It looks for credentials at the first call for an account,
// so that a store that is not used needs none.
func New(config Config) *Store {
	if config.UploadBlockSize == 0 {
		config.UploadBlockSize = 8 << 20
	}
	if config.CopyBlockSize == 0 {
		config.CopyBlockSize = 100 << 20
	}
	if config.PollInterval == 0 {
		config.PollInterval = 250 * time.Millisecond
	}
	if config.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = t.MaxIdleConns // which the many copies of a tick open at once
		config.Transport = t
	}
	config.Transport = stall.Limit(config.Transport.RoundTrip, config.Silence)
	return &Store{config: config, memory: parts.NewMemory(), accounts: map[string]*account{}}
}

// call runs a request to the account of u.
func (s *Store) call(ctx context.Context, op string, u blobstore.URI, request func(*account) error) error {
	a, err := s.account(u)
	if err == nil {
		err = request(a)
	}
	if err != nil {
		return &blobstore.Error{Op: op, URI: u, Err: explain(ctx, a, err)}
	}
	return nil
}

// Stat implements [blobstore.Store] with Get Blob Properties.
func (s *Store) Stat(ctx context.Context, u blobstore.URI) (blobstore.Object, error) {
	var obj blobstore.Object
	err := s.call(ctx, "stat", u, func(a *account) error {
		if u.Key() == "" { // a container has properties, too
			return blobstore.ErrNotExist
		}
		out, err := a.blob(u).GetProperties(ctx, nil)
		if err == nil && !isObject(out.Metadata, out.CopyStatus) {
			err = blobstore.ErrNotExist
		}
		if err == nil {
			obj = describe(u, out.ContentLength, out.LastModified, out.ETag)
		}
		return err
	})
	return obj, err
}

// Open implements [blobstore.Store] with Get Blob. A connection that breaks is
// taken up where it broke, as long as the object is the same.
func (s *Store) Open(ctx context.Context, u blobstore.URI) (io.ReadCloser, blobstore.Object, error) {
	var obj blobstore.Object
	var r io.ReadCloser
	err := s.call(ctx, "open", u, func(a *account) error {
		if u.Key() == "" {
			return blobstore.ErrNotExist
		}
		out, err := a.blob(u).DownloadStream(ctx, nil)
		if err != nil {
			return err
		}
		if !isObject(out.Metadata, out.CopyStatus) {
			out.Body.Close()
			return blobstore.ErrNotExist
		}
		obj = describe(u, out.ContentLength, out.LastModified, out.ETag)
		r = &body{ctx, a, out.NewRetryReader(ctx, nil)}
		return nil
	})
	return r, obj, err
}

// body is an object being read. Its errors are as short as all others.
type body struct {
	ctx     context.Context
	account *account
	io.ReadCloser
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = explain(b.ctx, b.account, err)
	}
	return n, err
}

// Delete implements [blobstore.Store].
func (s *Store) Delete(ctx context.Context, u blobstore.URI) error {
	return s.call(ctx, "delete", u, func(a *account) error {
		_, err := a.blob(u).Delete(ctx, nil)
		if bloberror.HasCode(err, bloberror.BlobNotFound) {
			return nil
		}
		return err
	})
}

// Metadata of the blobs with which hadoop-azure marks folders
// (AzureNativeFileSystemStore), and with which an account with a hierarchical
// namespace shows its own.
var folderMarks = []string{"hdi_isfolder", "asv_isfolder"}

// isObject reports whether a blob is one to chkpin: no folder, and not the target
// of a copy that is not there.
func isObject(metadata map[string]*string, copied *blob.CopyStatusType) bool {
	if copied != nil && *copied != blob.CopyStatusTypeSuccess {
		return false
	}
	for name, value := range metadata {
		for _, mark := range folderMarks {
			if strings.EqualFold(name, mark) && value != nil && strings.EqualFold(*value, "true") {
				return false
			}
		}
	}
	return true
}

func describe(u blobstore.URI, size *int64, modified *time.Time, etag *azcore.ETag) blobstore.Object {
	obj := blobstore.Object{URI: u, Size: -1, Tag: tagOf(etag)}
	if size != nil {
		obj.Size = *size
	}
	if modified != nil {
		obj.ModTime = *modified
	}
	return obj
}

// tagOf spells an ETag as a condition wants it. Listings leave the quotes out; a
// proxy that may change how a body is sent calls it weak, and no weak one meets
// If-Match.
func tagOf(etag *azcore.ETag) string {
	if etag == nil || *etag == "" {
		return ""
	}
	return `"` + strings.Trim(strings.TrimPrefix(string(*etag), "W/"), `"`) + `"`
}

// keyOf is the name of the blob. No segment of it may end in a dot.
func keyOf(u blobstore.URI) string {
	return strings.TrimSuffix(strings.ReplaceAll(u.Key()+"/", "./", "[[.]]/"), "/")
}

// pathOf undoes keyOf for a name below a folder.
func pathOf(key string) string {
	return strings.TrimSuffix(strings.ReplaceAll(key+"/", "[[.]]/", "./"), "/")
}
