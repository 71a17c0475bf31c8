package storetest

import (
	"errors"
	"io"
	"strings"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

var putting = []promise{
	{"Stat, Open and List see the object at once", func(s *suite) {
		put := s.put("folder/object", "content")
		assert.Equal(s, s.at("folder/object"), put.URI)
		assert.EqualValues(s, len("content"), put.Size)
		s.holds("folder/object", "content")
		_, opened := s.open("folder/object")
		s.sameTag(put, s.stat("folder/object"))
		s.sameTag(put, opened)
		found := s.list("", blobstore.ListOptions{})
		require.Len(s, found, 1)
		s.sameTag(put, found[0])
	}},
	{"it replaces an object whole", func(s *suite) {
		s.put("object", "a long first version")
		s.put("object", "short")
		s.holds("object", "short")
		assert.Equal(s, []string{"object"}, s.all(""))
	}},
	{"the tag changes when the content does", func(s *suite) {
		put, stat := map[string]bool{}, map[string]bool{}
		for _, content := range []string{"one", "two", "six"} { // of one size
			put[s.put("object", content).Tag] = true
			stat[s.stat("object").Tag] = true
		}
		if !stat[""] {
			assert.Len(s, stat, 3)
		}
		if !put[""] {
			assert.Equal(s, stat, put)
		}
	}},
	{"the time never goes back", func(s *suite) {
		s.put("object", "old")
		old := s.stat("object").ModTime
		s.put("object", "new")
		assert.False(s, s.stat("object").ModTime.Before(old))
	}},
	{"an empty object", func(s *suite) {
		s.put("empty", "")
		s.holds("empty", "")
		assert.Equal(s, []string{"empty"}, s.all(""))
	}},
	{"a long body", func(s *suite) {
		long := version(1, 5_000_000)
		put := s.putIf("long", long, blobstore.PutOptions{})
		assert.EqualValues(s, len(long), put.Size)
		s.holds("long", long)
	}},
	{"a body of unknown length that comes in pieces", func(s *suite) {
		long := version(2, 300_000)
		body := iotest.HalfReader(iotest.DataErrReader(strings.NewReader(long)))
		put, err := s.store.Put(s.Context(), s.at("long"), body, blobstore.PutOptions{})
		require.NoError(s, err)
		assert.EqualValues(s, len(long), put.Size)
		s.holds("long", long)
	}},
	{"a body that fails changes nothing", func(s *suite) {
		broken := errors.New("the source broke")
		body := func() io.Reader {
			return io.MultiReader(strings.NewReader(version(3, 100_000)), iotest.ErrReader(broken))
		}
		s.put("old", "content")
		_, err := s.store.Put(s.Context(), s.at("old"), body(), blobstore.PutOptions{})
		s.fails(err, broken, "put", "old")
		_, err = s.store.Put(s.Context(), s.at("new"), body(), blobstore.PutOptions{})
		s.fails(err, broken, "put", "new")

		s.holds("old", "content")
		s.lacks("new")
		assert.Equal(s, []string{"old"}, s.all(""))
	}},
}

var ifAbsent = []promise{
	{"writes what is not there", func(s *suite) {
		put := s.putIf("folder/object", "content", blobstore.PutOptions{IfAbsent: true})
		s.holds("folder/object", "content")
		s.sameTag(put, s.stat("folder/object"))
		assert.Equal(s, []string{"folder/object"}, s.all(""))
	}},
	{"leaves what is there", func(s *suite) {
		s.put("object", "first")
		_, err := s.tryPut("object", "second", blobstore.PutOptions{IfAbsent: true})
		s.fails(err, blobstore.ErrPrecondition, "put", "object")
		s.holds("object", "first")
		assert.Equal(s, []string{"object"}, s.all(""))
	}},
	{"writes again what was deleted", func(s *suite) {
		s.put("object", "first")
		s.delete("object")
		s.putIf("object", "second", blobstore.PutOptions{IfAbsent: true})
		s.holds("object", "second")
	}},
}

var ifTag = []promise{
	{"every call names the tag", func(s *suite) {
		s.put("source", "copied")
		for call, tag := range map[string]func() string{
			"Put": func() string { return s.put("object", "content").Tag },
			"Put with a condition": func() string {
				return s.putIf("object", "other", blobstore.PutOptions{IfTag: s.put("object", "one").Tag}).Tag
			},
			"Stat":           func() string { s.put("object", "x"); return s.stat("object").Tag },
			"Stat of a copy": func() string { s.copy("object", "source"); return s.stat("object").Tag },
			"Open":           func() string { s.put("object", "x"); _, obj := s.open("object"); return obj.Tag },
			"List":           func() string { s.put("object", "x"); return s.list("", blobstore.ListOptions{})[0].Tag },
		} {
			from := tag()
			require.NotEmpty(s, from, call)
			s.putIf("object", "with the tag of "+call, blobstore.PutOptions{IfTag: from})
			s.holds("object", "with the tag of "+call)
		}
		s.holds("source", "copied")
		assert.Equal(s, []string{"object", "source"}, s.all(""))
	}},
	{"another tag writes nothing", func(s *suite) {
		old := s.put("object", "one")
		s.put("object", "two")
		_, err := s.tryPut("object", "six", blobstore.PutOptions{IfTag: old.Tag})
		s.fails(err, blobstore.ErrPrecondition, "put", "object")
		s.holds("object", "two")
		assert.Equal(s, []string{"object"}, s.all(""))
	}},
	{"a missing object has no tag", func(s *suite) {
		old := s.put("object", "one")
		s.delete("object")
		_, err := s.tryPut("object", "two", blobstore.PutOptions{IfTag: old.Tag})
		s.fails(err, blobstore.ErrPrecondition, "put", "object")
		s.lacks("object")
		assert.Empty(s, s.all(""))
	}},
}

var copying = []promise{
	{"the copy holds what the source holds, which stays", func(s *suite) {
		for name, content := range map[string]string{"short": "content", "empty": "", "long": version(4, 3_000_000)} {
			s.put("from/"+name, content)
			got := s.copy("to/folder/"+name, "from/"+name)
			assert.Equal(s, s.at("to/folder/"+name), got.URI)
			if got.Size != -1 {
				assert.EqualValues(s, len(content), got.Size)
			}
			s.sameTag(got, s.stat("to/folder/"+name))
			s.holds("to/folder/"+name, content)
			s.holds("from/"+name, content)
		}
		assert.Equal(s, []string{"empty", "long", "short"}, s.all("to/folder"))
	}},
	{"it replaces an object", func(s *suite) {
		s.put("source", "new")
		s.put("target", "what was there")
		s.copy("target", "source")
		s.holds("target", "new")
		s.copy("target", "source")
		s.holds("target", "new")
		assert.Equal(s, []string{"source", "target"}, s.all(""))
	}},
	{"the copy stays when its source is replaced or deleted", func(s *suite) {
		s.put("source", "one")
		s.copy("first", "source")
		s.put("source", "two")
		s.copy("second", "source")
		s.delete("source")
		s.holds("first", "one")
		s.holds("second", "two")
	}},
	{"and the source when its copy is", func(s *suite) {
		s.put("source", "one")
		s.copy("target", "source")
		s.put("target", "two")
		s.holds("source", "one")
		s.delete("target")
		s.holds("source", "one")
	}},
	{"a missing source is ErrNotExist, and the error names both", func(s *suite) {
		s.put("target", "content")
		for _, target := range []string{"target", "new/target"} {
			_, err := s.store.Copy(s.Context(), s.at(target), s.at("from/nothing"))
			e := s.fails(err, blobstore.ErrNotExist, "copy", target)
			assert.Equal(s, s.at("from/nothing"), e.Src)
			assert.Contains(s, err.Error(), s.at("from/nothing").String())
		}
		s.holds("target", "content")
		assert.Equal(s, []string{"target"}, s.all(""))
		assert.Equal(s, []string{"target"}, s.shallow(""))
	}},
	{"a folder cannot be copied", func(s *suite) {
		s.put("folder/object", "x")
		_, err := s.store.Copy(s.Context(), s.at("target"), s.at("folder"))
		s.fails(err, blobstore.ErrNotExist, "copy", "target")
		assert.Equal(s, []string{"folder/object"}, s.all(""))
	}},
	{"onto itself it does no harm", func(s *suite) {
		s.put("object", "content")
		_, err := s.store.Copy(s.Context(), s.at("object"), s.at("object"))
		if err != nil { // as S3 has it
			s.fails(err, err, "copy", "object")
		}
		s.holds("object", "content")
		assert.Equal(s, []string{"object"}, s.all(""))
	}},
	{"the copy is as young as the copying", func(s *suite) {
		s.put("source", "content")
		s.put("later", "x")
		s.copy("target", "source")
		assert.False(s, s.stat("target").ModTime.Before(s.stat("later").ModTime))
	}},
}

var deleting = []promise{
	{"the object is gone at once, and no other", func(s *suite) {
		s.put("folder/object", "x")
		s.put("folder/object2", "x")
		s.delete("folder/object")
		s.lacks("folder/object")
		s.holds("folder/object2", "x")
		assert.Equal(s, []string{"folder/object2"}, s.all(""))
	}},
	{"a missing object is no error", func(s *suite) {
		s.put("object", "x")
		s.delete("nothing")
		s.delete("no/folder/either")
		s.delete("object/below")
		s.delete("object")
		s.delete("object")
		assert.Empty(s, s.all(""))
	}},
	{"a folder is no object and stays", func(s *suite) {
		s.put("folder/sub/object", "x")
		s.delete("folder")
		s.delete("folder/sub")
		s.holds("folder/sub/object", "x")
	}},
}

var folders = []promise{
	{"they need no making", func(s *suite) {
		s.put("a/b/c/d/object", "x")
		s.copy("e/f/g/object", "a/b/c/d/object")
		assert.Equal(s, []string{"a/b/c/d/object", "e/f/g/object"}, s.all(""))
	}},
	{"and no removing", func(s *suite) {
		s.put("stays", "x")
		s.put("folder/one", "x")
		tag := s.put("folder/two", "x").Tag
		if !s.opts.NoIfTag {
			s.putIf("folder/two", "y", blobstore.PutOptions{IfTag: tag})
		}
		if !s.opts.NoIfAbsent {
			s.putIf("folder/three", "x", blobstore.PutOptions{IfAbsent: true})
		}
		for _, name := range []string{"one", "two", "three"} {
			s.delete("folder/" + name)
		}
		assert.Equal(s, []string{"stays"}, s.shallow(""))
		s.put("folder", "now an object")
		s.holds("folder", "now an object")
	}},
}

var sharedNames = []promise{
	{"an object and a folder may share a name", func(s *suite) {
		s.put("name", "object")
		s.put("name/below", "below")
		s.holds("name", "object")
		s.holds("name/below", "below")
		assert.Equal(s, []string{"name", "name/below"}, s.all(""))
		assert.ElementsMatch(s, []string{"name", "name/"}, s.shallow(""))
		assert.Equal(s, []string{"below"}, s.all("name"))
		s.delete("name")
		s.lacks("name")
		s.holds("name/below", "below")
	}},
}

// names are such that Flink or its users write, and that URLs, shells, XML and
// signatures trip over.
var names = []string{
	"plain", "with space", "two  spaces", "plus+plus", "with%20space", "%", "100%", "%zz",
	"a#b", "a?b", "a?b=c&d", "key=value", `"double"`, "'single'", "`back`", "<tag>", "a&amp;b",
	"a:b", "a;b", "a,b", "a@b", "a*b", "[a]", "{b}", "(a)", "a|b", "$a", "!a", "^a", "~a",
	".hidden", "_metadata", "-dash", "ä", "ключ", "状態", "🙂", "UPPER", strings.Repeat("long", 50),
}

var naming = []promise{
	{"every character is literal", func(s *suite) {
		for _, name := range names {
			s.put("objects/"+name, name)
			s.put("folders/"+name+"/object", name)
		}
		for _, name := range names {
			s.holds("objects/"+name, name)
			s.holds("folders/"+name+"/object", name)
			assert.Equal(s, []string{"object"}, s.all("folders/"+name))
			assert.Equal(s, []string{"object"}, s.shallow("folders/"+name))
		}
		assert.ElementsMatch(s, names, s.all("objects"))
		assert.ElementsMatch(s, names, s.shallow("objects"))
		assert.Len(s, s.shallow("folders"), len(names))
	}},
	{"also in copies", func(s *suite) {
		for _, name := range names {
			s.put("from/"+name+"/"+name, name)
			s.copy("to/"+name+"/"+name, "from/"+name+"/"+name)
			s.holds("to/"+name+"/"+name, name)
		}
	}},
	{"also in deletes", func(s *suite) {
		for _, name := range names {
			s.put("objects/"+name, name)
		}
		for i, name := range names {
			s.delete("objects/" + name)
			assert.ElementsMatch(s, names[i+1:], s.all("objects"))
		}
	}},
	{"a URI spelled with other slashes names the same object", func(s *suite) {
		s.put("folder/object", "x")
		other, err := blobstore.Parse(s.root.String() + "//folder///object//")
		require.NoError(s, err)
		obj, err := s.store.Stat(s.Context(), other)
		require.NoError(s, err)
		assert.EqualValues(s, 1, obj.Size)
	}},
}
