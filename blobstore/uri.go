package blobstore

import (
	"errors"
	"fmt"
	"strings"
)

// URI names an object or a folder in a store. It keeps the exact spelling it
// was parsed from, because Flink compares path texts, and it can tell whether
// two spellings name the same thing ([URI.Same]).
//
// Paths are literal, as in Flink's Path class: nothing is percent-decoded, and
// spaces, '%', '#', '?' and '+' are ordinary characters. Repeated and trailing
// slashes do not count.
//
// The zero URI is not valid; get one from [Parse].
type URI struct {
	text      string // as given, without trailing slashes
	root      string // the part of text before the path: "s3://bucket", "file:", "file://", ""
	scheme    string // lower case, "" for a bare absolute path
	authority string // bucket, container@account host; "" for files
	path      string // absolute, cleaned of repeated and trailing slashes; "" for a container
}

// Schemes that name the same storage. A scheme that is not listed is a family
// of its own, so that importers can bring stores for schemes unknown here.
const (
	FamilyFile   = "file"
	FamilyMemory = "mem"
	FamilyS3     = "s3"
	FamilyAzure  = "azure"
)

// ErrURI is the cause of every error that [Parse] returns.
var ErrURI = errors.New("not a storage URI")

// Parse reads a URI such as
//
//	s3://bucket/key  s3a://…  s3p://…
//	wasbs://container@account.blob.core.windows.net/key  abfss://…
//	file:///path  file:/path  /path
//	mem://name/key
//
// Its error wraps [ErrURI] and says how to spell what was probably meant.
func Parse(text string) (URI, error) {
	if strings.HasPrefix(text, "/") {
		return newURI(text, "", "", "", text)
	}
	scheme, rest, ok := cutScheme(text)
	if !ok {
		return URI{}, fmt.Errorf("%w: %q has no scheme; write s3://bucket/path, wasbs://container@account.blob.core.windows.net/path or file:///path", ErrURI, text)
	}
	if !strings.HasPrefix(rest, "/") {
		full := scheme + "://name/path"
		if scheme == FamilyFile {
			full = "file:///path"
		}
		return URI{}, fmt.Errorf("%w: %q is relative; write %s", ErrURI, text, full)
	}
	if !strings.HasPrefix(rest, "//") {
		return newURI(text, text[:len(scheme)+1], scheme, "", rest)
	}
	authority, key, _ := strings.Cut(rest[2:], "/")
	return newURI(text, text[:len(scheme)+3+len(authority)], scheme, authority, "/"+key)
}

// MustParse is [Parse] for constants; it panics on a text that is not a URI.
func MustParse(text string) URI {
	u, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return u
}

func newURI(text, root, scheme, authority, key string) (URI, error) {
	if scheme == "http" || scheme == "https" { // which may be signed: it is not repeated
		return URI{}, fmt.Errorf("%w: a URL is not the name of an object; write s3://bucket/path or wasbs://container@account.blob.core.windows.net/path", ErrURI)
	}
	u := URI{root: root, scheme: scheme, authority: authority, path: squeeze(key)}
	if credentials(u.Family(), authority) { // first, for the other errors repeat the text
		return URI{}, fmt.Errorf("%w: it carries credentials; leave those to the SDK's credential chain", ErrURI)
	}
	u.text = strings.TrimRight(text, "/")
	if u.path == "" {
		u.text = text
	}
	if strings.ContainsRune(text, 0) {
		return URI{}, fmt.Errorf("%w: it holds a NUL character", ErrURI)
	}
	for seg := range strings.SplitSeq(u.path, "/") {
		if seg == "." || seg == ".." {
			return URI{}, fmt.Errorf("%w: %q holds %q as a folder; write the path without it", ErrURI, text, seg)
		}
	}
	switch u.Family() {
	case FamilyFile:
		if authority != "" && authority != "localhost" {
			return URI{}, fmt.Errorf("%w: %q names the host %q; a path on a volume is written file:///%s%s", ErrURI, text, authority, authority, u.path)
		}
		u.authority = ""
	case FamilyAzure:
		if c, account, ok := strings.Cut(authority, "@"); !ok || c == "" || account == "" {
			if !strings.Contains(authority, ".") || ok {
				authority = "account." + azureEndpoints[scheme]
			}
			return URI{}, fmt.Errorf("%w: %q has no container; write %s://container@%s/path", ErrURI, text, scheme, authority)
		}
	}
	if u.Family() != FamilyFile && u.authority == "" {
		return URI{}, fmt.Errorf("%w: %q names no bucket or container; write %s://name/path", ErrURI, text, scheme)
	}
	return u, nil
}

// credentials reports whether something like key:secret@ stands in front of a
// name. A secret may hold a slash, which ends the authority before its '@'.
func credentials(family, authority string) bool {
	switch family {
	case FamilyAzure: // container@account
		return false
	case FamilyS3:
		return strings.ContainsAny(authority, "@:")
	}
	return strings.Contains(authority, "@")
}

// cutScheme splits "scheme:rest" as RFC 3986 spells schemes.
func cutScheme(text string) (scheme, rest string, ok bool) {
	scheme, rest, ok = strings.Cut(text, ":")
	if !ok || scheme == "" {
		return "", "", false
	}
	for i, r := range scheme {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789+.-", r)) {
			return "", "", false
		}
	}
	return strings.ToLower(scheme), rest, true
}

// squeeze folds repeated slashes and drops trailing ones, as Flink's
// Path.normalizePath does.
func squeeze(p string) string {
	for strings.Contains(p, "//") {
		p = strings.ReplaceAll(p, "//", "/")
	}
	return strings.TrimSuffix(p, "/")
}

// String is the spelling the URI was parsed from, without trailing slashes.
func (u URI) String() string { return u.text }

// IsZero reports whether u was never parsed.
func (u URI) IsZero() bool { return u.text == "" }

// Scheme is the scheme in lower case, "" for a bare absolute path.
func (u URI) Scheme() string { return u.scheme }

// Container is the bucket, or container@account host; "" for files.
func (u URI) Container() string { return u.authority }

// Key is the path below the container without its leading slash. For a file it
// is the path without its first slash; see [URI.Path].
func (u URI) Key() string { return strings.TrimPrefix(u.path, "/") }

// Path is the absolute path: with a leading slash, or "" for a container.
func (u URI) Path() string { return u.path }

// Family names the storage behind the scheme: s3, s3a, s3p and s3n are one
// family, so are wasb, wasbs, abfs and abfss.
func (u URI) Family() string {
	switch u.scheme {
	case "", "file":
		return FamilyFile
	case "s3", "s3a", "s3p", "s3n":
		return FamilyS3
	case "wasb", "wasbs", "abfs", "abfss":
		return FamilyAzure
	}
	return u.scheme
}

// Canonical is one text for all spellings of the same place: scheme aliases,
// file:/a and file:///a, blob and dfs endpoints of an Azure account are folded.
// It is an identity, not an address.
func (u URI) Canonical() string {
	return u.Family() + "://" + u.canonicalContainer() + u.path
}

func (u URI) canonicalContainer() string {
	if u.Family() != FamilyAzure {
		return u.authority
	}
	container, host, _ := strings.Cut(u.authority, "@")
	account, domain, _ := strings.Cut(strings.ToLower(host), ".")
	domain = "." + domain // account.blob.core.windows.net, account.z01.blob.storage.azure.net
	for _, service := range []string{".blob.", ".dfs."} {
		domain = strings.Replace(domain, service, ".", 1)
	}
	return container + "@" + account + domain
}

// Same reports whether both name the same place, however they are spelled.
func (u URI) Same(v URI) bool { return u.Canonical() == v.Canonical() }

// SameContainer reports whether both lie in one bucket, container or file tree.
func (u URI) SameContainer(v URI) bool {
	return u.Family() == v.Family() && u.canonicalContainer() == v.canonicalContainer()
}

// Join appends path elements. An element may hold several folders. It is taken
// literally: "." and ".." are not resolved, so names from elsewhere have to be
// cleaned first.
func (u URI) Join(elem ...string) URI {
	v := u
	for _, e := range elem {
		e = strings.Trim(squeeze(e), "/")
		if e == "" {
			continue
		}
		if v.path == "" {
			v.text = v.root
		}
		v.text += "/" + e
		v.path += "/" + e
	}
	return v
}

// Dir is the folder that holds u. The folder of a container is itself.
func (u URI) Dir() URI {
	if u.path == "" {
		return u
	}
	v := u
	v.path = strings.TrimSuffix(u.path, "/"+u.Base())
	if v.path == "" {
		return u.top()
	}
	v.text = strings.TrimRight(strings.TrimSuffix(u.text, u.Base()), "/")
	return v
}

// top is the bucket, container or file tree of u, which has no other name than
// its slash.
func (u URI) top() URI {
	v := URI{text: u.root, root: u.root, scheme: u.scheme, authority: u.authority}
	if u.authority == "" {
		v.text += "/"
	}
	return v
}

// Base is the last element of the path.
func (u URI) Base() string { return u.path[strings.LastIndexByte(u.path, '/')+1:] }

// Rel is the path of u below dir, "" when they are the same. ok is false when u
// is not dir and not below it.
func (u URI) Rel(dir URI) (rel string, ok bool) {
	if !u.SameContainer(dir) {
		return "", false
	}
	if u.path == dir.path {
		return "", true
	}
	if rel, ok = strings.CutPrefix(u.path, dir.path+"/"); !ok {
		return "", false
	}
	return rel, true
}

// Within reports whether u is dir or lies below it.
func (u URI) Within(dir URI) bool {
	_, ok := u.Rel(dir)
	return ok
}

// SpelledLike is u written with the scheme and the endpoint of like when both
// lie in one container, so that a job finds the names it is used to; otherwise
// it is u itself.
func (u URI) SpelledLike(like URI) URI {
	if !u.SameContainer(like) {
		return u
	}
	return like.top().Join(u.Key())
}

// MarshalText spells the URI as [URI.String] does.
func (u URI) MarshalText() ([]byte, error) { return []byte(u.text), nil }

// UnmarshalText is [Parse].
func (u *URI) UnmarshalText(text []byte) error {
	v, err := Parse(string(text))
	if err == nil {
		*u = v
	}
	return err
}

// azureEndpoints are where hadoop-azure looks for an account by each scheme
// (FileSystemUriSchemes, "Hadoop Azure Support: ABFS").
var azureEndpoints = map[string]string{
	"wasb": "blob.core.windows.net", "wasbs": "blob.core.windows.net",
	"abfs": "dfs.core.windows.net", "abfss": "dfs.core.windows.net",
}
