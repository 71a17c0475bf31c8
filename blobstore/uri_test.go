package blobstore_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

func TestURIParts(t *testing.T) {
	const azure = "container@account.blob.core.windows.net"
	for _, c := range []struct {
		text, scheme, container, path, family string
	}{
		{"file:///a/b", "file", "", "/a/b", "file"},
		{"file:/a/b", "file", "", "/a/b", "file"},
		{"file://localhost/a/b", "file", "", "/a/b", "file"},
		{"FILE:/a", "file", "", "/a", "file"},
		{"/a/b", "", "", "/a/b", "file"},
		{"/", "", "", "", "file"},
		{"file:/", "file", "", "", "file"},
		{"file:///", "file", "", "", "file"},
		{"s3://bucket/a/b", "s3", "bucket", "/a/b", "s3"},
		{"s3a://bucket/a", "s3a", "bucket", "/a", "s3"},
		{"s3p://bucket/a", "s3p", "bucket", "/a", "s3"},
		{"s3n://bucket/a", "s3n", "bucket", "/a", "s3"},
		{"S3A://Bucket/A", "s3a", "Bucket", "/A", "s3"},
		{"s3://bucket", "s3", "bucket", "", "s3"},
		{"wasb://" + azure + "/a/b", "wasb", azure, "/a/b", "azure"},
		{"wasbs://" + azure + "/a/b", "wasbs", azure, "/a/b", "azure"},
		{"abfs://" + azure + "/a/b", "abfs", azure, "/a/b", "azure"},
		{"abfss://" + azure, "abfss", azure, "", "azure"},
		{"mem://name/a", "mem", "name", "/a", "mem"},
		{"gs://bucket/a", "gs", "bucket", "/a", "gs"},
	} {
		u, err := blobstore.Parse(c.text)
		require.NoError(t, err, c.text)
		assert.Equal(t, c.text, u.String())
		assert.Equal(t, c.scheme, u.Scheme(), c.text)
		assert.Equal(t, c.container, u.Container(), c.text)
		assert.Equal(t, c.path, u.Path(), c.text)
		assert.Equal(t, strings.TrimPrefix(c.path, "/"), u.Key(), c.text)
		assert.Equal(t, c.family, u.Family(), c.text)
		assert.False(t, u.IsZero(), c.text)
	}
	assert.True(t, blobstore.URI{}.IsZero())
}

// As in Flink's Path, slashes that repeat or trail do not count, and all other
// characters are what they are.
func TestURIPathsAreLiteral(t *testing.T) {
	for text, path := range map[string]string{
		"s3://bucket//a///b//":  "/a/b",
		"file:////a//b/":        "/a/b",
		"//a/b":                 "/a/b",
		"file:/with space/50%":  "/with space/50%",
		"file:/a%20b":           "/a%20b",
		"s3://bucket/a?b=c#d":   "/a?b=c#d",
		"s3://bucket/a+b/ключ":  "/a+b/ключ",
		"s3://bucket/a:b@c":     "/a:b@c",
		"s3://bucket/...":       "/...",
		"s3://bucket/.hidden/a": "/.hidden/a",
		`file:/back\slash`:      `/back\slash`,
	} {
		assert.Equal(t, path, blobstore.MustParse(text).Path(), text)
	}
	assert.Equal(t, "s3://bucket//a", blobstore.MustParse("s3://bucket//a//").String(), "trailing slashes go, the rest stays as spelled")
}

// An error says how to spell what was probably meant.
func TestURIErrors(t *testing.T) {
	for text, wayOut := range map[string]string{
		"":                               "write s3://bucket/path",
		"state/app":                      "write s3://bucket/path",
		"my bucket:/a":                   "write s3://bucket/path",
		"3s://bucket/a":                  "write s3://bucket/path",
		"://bucket/a":                    "write s3://bucket/path",
		"file:state/app":                 "write file:///path",
		"s3:bucket/a":                    "write s3://name/path",
		"file://state/app":               "written file:///state/app",
		"file://host":                    "written file:///host",
		"s3:///a":                        "write s3://name/path",
		"s3:/bucket/a":                   "write s3://name/path",
		"mem://":                         "write mem://name/path",
		"wasbs://account.host/a":         "write wasbs://container@account.host/path",
		"abfss:///a":                     "write abfss://container@account.dfs.core.windows.net/path",
		"abfss://@account.host/a":        "write abfss://container@account.dfs.core.windows.net/path",
		"wasb://container@/a":            "write wasb://container@account.blob.core.windows.net/path",
		"file:/a/../b":                   "write the path without it",
		"s3://bucket/./a":                "write the path without it",
		"/a/..":                          "write the path without it",
		"file:/a\x00b":                   "NUL",
		"s3://KEY:SECRET@bucket/a":       "credential chain",
		"s3a://KEY:SECRET@bucket/../a":   "credential chain",
		"s3a://KEY:SEC/RET@bucket/a":     "credential chain",
		"oss://KEY:SECRET@bucket/a":      "credential chain",
		"file://user:SECRET@host/a":      "credential chain",
		"https://user:SECRET@host/a\x00": "a URL is not the name of an object",
		"https://host/a?sig=SECRET":      "a URL is not the name of an object",
	} {
		_, err := blobstore.Parse(text)
		require.ErrorIs(t, err, blobstore.ErrURI, text)
		assert.ErrorContains(t, err, wayOut, text)
		assert.NotContains(t, err.Error(), "SEC", "a secret must not be repeated")
		assert.Panics(t, func() { blobstore.MustParse(text) })
	}
}

func TestURISame(t *testing.T) {
	for _, same := range [][]string{
		{"file:/a/b", "file:///a/b", "file://localhost/a/b", "/a/b", "//a//b//", "FILE:/a/b/"},
		{"file:/", "file:///", "/", "//", "file://localhost"},
		{"s3://bucket/a", "s3a://bucket/a", "s3p://bucket//a", "s3n://bucket/a/"},
		{"s3://bucket", "s3a://bucket/", "s3p://bucket//"},
		{
			"wasb://c@acct.blob.core.windows.net/a", "wasbs://c@acct.blob.core.windows.net/a",
			"abfs://c@acct.dfs.core.windows.net/a", "abfss://c@ACCT.DFS.core.windows.net//a/",
		},
		{"abfss://c@acct.dfs.core.usgovcloudapi.net/a", "wasbs://c@acct.blob.core.usgovcloudapi.net/a"},
		{"abfss://c@acct.z01.dfs.storage.azure.net/a", "wasbs://c@acct.z01.blob.storage.azure.net/a"},
		{"mem://name/a", "MEM://name//a/"},
	} {
		for _, a := range same {
			for _, b := range same {
				u, v := blobstore.MustParse(a), blobstore.MustParse(b)
				assert.True(t, u.Same(v), "%s and %s", a, b)
				assert.Equal(t, u.Canonical(), v.Canonical())
				assert.True(t, u.SameContainer(v), "%s and %s", a, b)
			}
		}
	}
	for _, different := range [][2]string{
		{"/a", "/A"},
		{"/a/b", "/a"},
		{"s3://bucket/a", "s3://other/a"},
		{"s3://bucket/a", "s3://Bucket/a"},
		{"s3://bucket/a", "gs://bucket/a"},
		{"s3://bucket/a b", "s3://bucket/a%20b"},
		{"wasbs://c@one.blob.core.windows.net/a", "wasbs://c@two.blob.core.windows.net/a"},
		{"wasbs://c@one.blob.core.windows.net/a", "wasbs://d@one.blob.core.windows.net/a"},
		{"wasbs://c@one.blob.core.windows.net/a", "wasbs://c@one.blob.core.usgovcloudapi.net/a"},
		{"mem://name/a", "file:///name/a"},
	} {
		u, v := blobstore.MustParse(different[0]), blobstore.MustParse(different[1])
		assert.False(t, u.Same(v), "%s and %s", u, v)
	}
}

// Pins name their state files after canonical texts: these must not change from
// release to release.
func TestURICanonical(t *testing.T) {
	for text, want := range map[string]string{
		"/a":                                    "file:///a",
		"file:/a":                               "file:///a",
		"s3a://bucket/a":                        "s3://bucket/a",
		"abfss://c@Acct.dfs.core.windows.net/a": "azure://c@acct.core.windows.net/a",
		"mem://name/a":                          "mem://name/a",
	} {
		assert.Equal(t, want, blobstore.MustParse(text).Canonical())
	}
}

func TestURIJoin(t *testing.T) {
	for _, c := range []struct {
		base string
		elem []string
		want string
	}{
		{"s3://bucket", []string{"a", "b"}, "s3://bucket/a/b"},
		{"s3a://bucket/", []string{"a/b"}, "s3a://bucket/a/b"},
		{"s3://bucket/a/", []string{"/b/", "//c//d//"}, "s3://bucket/a/b/c/d"},
		{"s3://bucket//a", []string{"b"}, "s3://bucket//a/b"},
		{"file:/a", []string{"b"}, "file:/a/b"},
		{"file:///a", []string{"b"}, "file:///a/b"},
		{"file:/", []string{"a"}, "file:/a"},
		{"file:///", []string{"a"}, "file:///a"},
		{"file://localhost", []string{"a"}, "file://localhost/a"},
		{"/", []string{"a"}, "/a"},
		{"/a", []string{"", "/", "b c?"}, "/a/b c?"},
		{"/a", nil, "/a"},
		{"/a", []string{"..", "b"}, "/a/../b"}, // literally
	} {
		assert.Equal(t, c.want, blobstore.MustParse(c.base).Join(c.elem...).String())
	}
}

func TestURIDirAndBase(t *testing.T) {
	for _, c := range []struct{ uri, dir, base string }{
		{"s3://bucket/a/b", "s3://bucket/a", "b"},
		{"s3://bucket/a", "s3://bucket", "a"},
		{"s3://bucket//a", "s3://bucket", "a"},
		{"s3://bucket/a///b/", "s3://bucket/a", "b"},
		{"s3://bucket", "s3://bucket", ""},
		{"s3://bucket/bucket", "s3://bucket", "bucket"},
		{"file:/a/b", "file:/a", "b"},
		{"file:///a/b", "file:///a", "b"},
		{"file:/a", "file:/", "a"},
		{"file:///a", "file:///", "a"},
		{"file:///", "file:///", ""},
		{"file://localhost/a", "file://localhost/", "a"},
		{"/a/b", "/a", "b"},
		{"/a", "/", "a"},
		{"/", "/", ""},
		{"wasbs://c@acct.host/a", "wasbs://c@acct.host", "a"},
		{"s3://bucket/a/...", "s3://bucket/a", "..."},
	} {
		u := blobstore.MustParse(c.uri)
		assert.Equal(t, c.dir, u.Dir().String(), c.uri)
		assert.Equal(t, c.base, u.Base(), c.uri)
		assert.True(t, u.Dir().Same(blobstore.MustParse(c.dir)), c.uri)
	}
}

func TestURIRel(t *testing.T) {
	for _, c := range []struct {
		uri, dir, rel string
		ok            bool
	}{
		{"s3://bucket/a/b/c", "s3a://bucket/a", "b/c", true},
		{"s3://bucket/a", "s3://bucket", "a", true},
		{"s3://bucket/a", "s3p://bucket/a/", "", true},
		{"s3://bucket/ab", "s3://bucket/a", "", false},
		{"s3://bucket/a", "s3://bucket/a/b", "", false},
		{"s3://bucket/a", "s3://other", "", false},
		{"s3://bucket", "s3://bucket", "", true},
		{"file:///a/b", "/", "a/b", true},
		{"/a/b", "file:/a", "b", true},
		{"mem://name/a", "s3://name", "", false},
		{"wasbs://c@acct.blob.core.windows.net/a/b", "abfss://c@acct.dfs.core.windows.net/a", "b", true},
	} {
		u, dir := blobstore.MustParse(c.uri), blobstore.MustParse(c.dir)
		rel, ok := u.Rel(dir)
		assert.Equal(t, c.rel, rel, "%s below %s", u, dir)
		assert.Equal(t, c.ok, ok, "%s below %s", u, dir)
		assert.Equal(t, c.ok, u.Within(dir), "%s within %s", u, dir)
	}
}

// A job finds the names in the spelling it is used to.
func TestURISpelledLike(t *testing.T) {
	for _, c := range []struct{ uri, like, want string }{
		{"s3://bucket/a", "s3a://bucket/x/y", "s3a://bucket/a"},
		{"s3://bucket", "s3p://bucket/x", "s3p://bucket"},
		{"s3://bucket/a", "s3a://other/x", "s3://bucket/a"},
		{"s3://bucket/a", "file:///x", "s3://bucket/a"},
		{"file:///a", "file:/x", "file:/a"},
		{"file:/a", "file:///x", "file:///a"},
		{"file:/a", "file:///x//y", "file:///a"},
		{"file:/a", "file:///", "file:///a"},
		{"file:/a", "file://localhost/x", "file://localhost/a"},
		{"file:/a", "/x", "/a"},
		{"/a", "file:/x", "file:/a"},
		{"file:///", "/x", "/"},
		{"/", "file:///x", "file:///"},
		{"/", "file:/x", "file:/"},
		{"wasbs://c@acct.blob.core.windows.net/a", "abfss://c@acct.dfs.core.windows.net/x", "abfss://c@acct.dfs.core.windows.net/a"},
		{"wasbs://c@acct.blob.core.windows.net/a", "abfss://d@acct.dfs.core.windows.net/x", "wasbs://c@acct.blob.core.windows.net/a"},
		{"mem://name/a", "mem://name/x", "mem://name/a"},
	} {
		u := blobstore.MustParse(c.uri)
		got := u.SpelledLike(blobstore.MustParse(c.like))
		assert.Equal(t, c.want, got.String(), "%s like %s", c.uri, c.like)
		assert.True(t, got.Same(u), "%s like %s", c.uri, c.like)
	}
}

func TestURIInJSON(t *testing.T) {
	type record struct{ App blobstore.URI }
	text := `{"App":"s3a://bucket/my app"}`
	var r record
	require.NoError(t, json.Unmarshal([]byte(text), &r))
	assert.Equal(t, "s3a", r.App.Scheme())
	again, err := json.Marshal(r)
	require.NoError(t, err)
	assert.Equal(t, text, string(again))
	assert.ErrorIs(t, json.Unmarshal([]byte(`{"App":"app"}`), &r), blobstore.ErrURI)
}

// Whatever parses keeps these laws.
func FuzzURI(f *testing.F) {
	texts := []string{
		"/", "//", "/a", "file:/a", "file:/", "file:////", "file:///a//b/", "file://localhost/a",
		"s3://bucket", "s3a://bucket//a b%20/c?d#e", "S3P://b/a:b@c", "s3://bucket/...",
		"wasbs://c@acct.blob.core.windows.net/a/b", "abfss://c@acct.dfs.core.windows.net",
		"abfs://c@a@b/a", "wasb://c@acct./a", "wasb://c@acct/a",
		"mem://name/a", "gs://bucket/ключ", "x+y-z.0://h/\xff\xfe",
	}
	for _, text := range texts {
		f.Add(text, texts[len(text)%len(texts)], "name")
	}
	f.Add("/a", "file:///x", "a/b//c")
	f.Fuzz(func(t *testing.T, text, likeText, elem string) {
		u, err := blobstore.Parse(text)
		if err != nil {
			require.ErrorIs(t, err, blobstore.ErrURI)
			return
		}
		again := func(v blobstore.URI) {
			t.Helper()
			w, err := blobstore.Parse(v.String())
			require.NoError(t, err, "%q", v)
			require.Equal(t, v, w, "the text says all there is")
		}
		again(u)
		require.False(t, u.IsZero())
		require.True(t, u.Same(u.Join()))

		dir := u.Dir()
		again(dir)
		require.True(t, u.Within(dir))
		require.True(t, dir.Join(u.Base()).Same(u))

		if name, err := blobstore.Parse("/" + elem); err == nil && name.Base() != "" {
			child := u.Join(name.Base())
			again(child)
			require.True(t, child.Dir().Same(u))
			require.Equal(t, name.Base(), child.Base())
			below := u.Join(elem)
			again(below)
			rel, ok := below.Rel(u)
			require.True(t, ok)
			require.Equal(t, name.Key(), rel)
		}
		if like, err := blobstore.Parse(likeText); err == nil {
			spelled := u.SpelledLike(like)
			again(spelled)
			require.True(t, spelled.Same(u))
			require.True(t, spelled.SpelledLike(u).Same(u))
			if u.SameContainer(like) {
				require.Equal(t, like.Scheme(), spelled.Scheme())
				require.Equal(t, like.Container(), spelled.Container())
			}
		}
	})
}
