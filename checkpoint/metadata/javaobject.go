package metadata

import (
	"encoding/binary"
	"errors"
)

// This file reads as much of a Java object stream (Java Object Serialization Specification, chapter 6) as the
// checkpoint properties need: objects with default fields, strings, enums and references. Anything else is
// errForeign, which makes the properties unknown but no error: a file is not worse for it.

var (
	errForeign = errors.New("not the object stream expected")
	javaMagic  = []byte{0xAC, 0xED, 0x00, 0x05} // and version 5, the only one since Java 1.2
)

const (
	javaNull      = 0x70
	javaReference = 0x71
	javaClassDesc = 0x72
	javaObjectTag = 0x73
	javaString    = 0x74
	javaEndBlock  = 0x78
	javaEnum      = 0x7E

	javaBaseHandle = 0x7E0000 // what references start counting from

	javaWriteMethod  = 0x01 // class flag: the object writes data of its own, in no known form
	javaSerializable = 0x02
)

type javaClass struct {
	name   string
	flags  byte
	fields []javaField
	super  *javaClass
	depth  int // superclasses
}

type javaField struct {
	name string
	code byte // type, as in class files
}

type javaInstance struct {
	class  *javaClass
	fields map[string]any // *javaInstance, javaConstant, string or nil; other types are left out
}

type javaConstant string // the name of an enum's value

func (o *javaInstance) className() string {
	if o.class == nil {
		return ""
	}
	return o.class.name
}

// javaStream is a reader with the memory that references need.
type javaStream struct {
	*reader
	seen []any
}

// object reads the stream's only object. Whatever follows it does not matter to Java.
func (s *javaStream) object() (*javaInstance, bool) {
	value, ok := s.content("object")
	if !ok {
		return nil, false
	}
	object, isInstance := value.(*javaInstance)
	return object, isInstance || s.foreign("object")
}

func (s *javaStream) foreign(field string) bool { return s.fail(field, s.pos, errForeign) }

func (s *javaStream) content(field string) (value any, ok bool) {
	if !s.down() {
		return nil, false
	}
	tag, ok := s.uint8(field)
	if !ok {
		return nil, false
	}
	switch tag {
	case javaNull:
	case javaReference:
		value, ok = s.reference(field)
	case javaString:
		value, ok = s.text(field)
		s.seen = append(s.seen, value)
	case javaEnum:
		value, ok = s.enum(field)
	case javaObjectTag:
		value, ok = s.instance(field)
	default:
		return nil, s.foreign(field)
	}
	return value, ok && s.up()
}

func (s *javaStream) reference(field string) (any, bool) {
	handle, ok := s.int32(field)
	if !ok {
		return nil, false
	}
	i := int(handle) - javaBaseHandle
	if i < 0 || i >= len(s.seen) || s.seen[i] == nil {
		return nil, s.foreign(field)
	}
	return s.seen[i], true
}

func (s *javaStream) enum(field string) (any, bool) {
	if _, ok := s.class(field); !ok {
		return nil, false
	}
	at := len(s.seen)
	s.seen = append(s.seen, nil)
	value, ok := s.content(field)
	if !ok {
		return nil, false
	}
	name, isString := value.(string)
	s.seen[at] = javaConstant(name)
	return javaConstant(name), isString || s.foreign(field)
}

// class reads the description of a class, nil for none.
func (s *javaStream) class(field string) (*javaClass, bool) {
	tag, ok := s.uint8(field)
	if !ok {
		return nil, false
	}
	switch tag {
	case javaNull:
		return nil, true
	case javaReference:
		value, ok := s.reference(field)
		if !ok {
			return nil, false
		}
		class, isClass := value.(*javaClass)
		return class, isClass || s.foreign(field)
	case javaClassDesc:
		return s.classDesc(field)
	}
	return nil, s.foreign(field)
}

func (s *javaStream) classDesc(field string) (class *javaClass, ok bool) {
	if !s.down() {
		return nil, false
	}
	class = &javaClass{}
	if class.name, ok = s.text(field); !ok || !s.skip(field, 8) { // serialVersionUID
		return nil, false
	}
	at := len(s.seen)
	s.seen = append(s.seen, nil) // no class may refer to itself before it is whole
	if class.flags, ok = s.uint8(field); !ok {
		return nil, false
	}
	if !s.skip(field, 2) {
		return nil, false
	}
	for range binary.BigEndian.Uint16(s.data[s.pos-2:]) {
		var f javaField
		if f.code, ok = s.uint8(field); !ok {
			return nil, false
		}
		if f.name, ok = s.text(field); !ok {
			return nil, false
		}
		if f.code == 'L' || f.code == '[' {
			if _, ok := s.content(field); !ok { // the name of its class
				return nil, false
			}
		}
		class.fields = append(class.fields, f)
	}
	if end, ok := s.uint8(field); !ok {
		return nil, false
	} else if end != javaEndBlock {
		return nil, s.foreign(field)
	}
	if class.super, ok = s.class(field); !ok {
		return nil, false
	}
	if class.super != nil {
		class.depth = class.super.depth + 1
	}
	if class.depth > maxDepth {
		return nil, s.foreign(field)
	}
	s.seen[at] = class
	return class, s.up()
}

func (s *javaStream) instance(field string) (any, bool) {
	class, ok := s.class(field)
	if !ok {
		return nil, false
	}
	object := &javaInstance{class: class, fields: map[string]any{}}
	s.seen = append(s.seen, object)
	var chain []*javaClass
	for c := class; c != nil; c = c.super {
		if c.flags&(javaSerializable|javaWriteMethod) != javaSerializable {
			return nil, s.foreign(field)
		}
		chain = append([]*javaClass{c}, chain...) // the fields of superclasses come first
	}
	for _, c := range chain {
		for _, f := range c.fields {
			if !s.value(object, f) {
				return nil, s.within(field)
			}
		}
	}
	return object, true
}

func (s *javaStream) value(object *javaInstance, f javaField) (ok bool) {
	switch f.code {
	case 'Z', 'B':
		return s.skip(f.name, 1)
	case 'C', 'S':
		return s.skip(f.name, 2)
	case 'I', 'F':
		return s.skip(f.name, 4)
	case 'J', 'D':
		return s.skip(f.name, 8)
	case 'L':
		object.fields[f.name], ok = s.content(f.name)
		return ok
	}
	return s.foreign(f.name)
}
