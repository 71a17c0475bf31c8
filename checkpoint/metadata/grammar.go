package metadata

import (
	"encoding/binary"
	"math"
	"math/bits"
)

const magic = 0x4960672D

// maxDepth bounds handles inside handles. Flink writes two levels at most (incremental state in a changelog).
const maxDepth = 16

// Stream state handles. Tags mean something else at each of the three positions a handle can have.
const (
	streamNull         = 0
	streamInline       = 1
	streamFile         = 2
	streamKeyGroups    = 3
	streamRelativeFile = 6
	streamSegment      = 15
	streamEmptySegment = 16
)

// Keyed state handles.
const (
	keyedNull               = 0
	keyedKeyGroups          = 3 // Flink <= 1.14
	keyedIncremental        = 5 // Flink <= 1.14
	keyedSavepointKeyGroups = 7
	keyedChangelog          = 8 // Flink 1.14 (another layout) and 1.15
	keyedChangelogInMemory  = 9
	keyedChangelogFiles     = 10 // Flink 1.14 (another layout) and 1.15
	keyedIncrementalV2      = 11
	keyedKeyGroupsV2        = 12
	keyedChangelogFilesV2   = 13
	keyedChangelogV2        = 14
)

// Operator state handles. An absent one has no tag, since Flink writes how many there are; tag 0, which its readers know until
// 1.11 and refuse since 1.12, no release writes.
const (
	operatorPartition = 4
	operatorMerged    = 17
)

// highestTag returns the highest tag that a version and dialect can hold.
func highestTag(version int32, dialect Dialect) byte {
	switch {
	case version == 2:
		return keyedIncremental
	case dialect == Flink111:
		return streamRelativeFile
	case dialect == Flink114:
		return keyedChangelogFiles
	}
	return operatorMerged
}

// slot says what the handles at a position are for.
type slot struct {
	role  Role
	flags flags
}

// parse reads a file in one dialect. The file is never nil: with a failure it holds what was read so far.
func parse(data []byte, dialect Dialect) (*File, *FormatError) {
	// A handle with a usual path takes about a hundred bytes, so this mostly spares cursors the growing.
	file := &File{Dialect: dialect, data: data, cursors: make([]cursor, 0, len(data)/96)}
	r := &reader{data: data, file: file}
	if r.header() && r.body() && r.tail() {
		file.tags = r.tags
		file.HighestTag = byte(max(bits.Len32(r.tags), 1) - 1)
		return file, nil
	}
	return file, r.failure
}

func (r *reader) header() bool {
	start, ok := r.int32("magic")
	if !ok {
		return false
	}
	if start != magic {
		return r.fail("magic", 0, ErrMagic)
	}
	version, ok := r.int32("version")
	if !ok {
		return false
	}
	if version < 2 || version > 6 {
		return r.fail("version", r.pos-4, ErrVersion, version)
	}
	r.file.Version = version
	r.maxTag = highestTag(version, r.file.Dialect)
	return true
}

func (r *reader) body() bool {
	id, ok := r.int64("checkpointId")
	if !ok {
		return false
	}
	if id < 0 {
		return r.fail("checkpointId", r.pos-8, ErrValue, id)
	}
	r.file.CheckpointID = id
	return r.masters("masters") && r.operators("operators")
}

// tail reads what follows the last operator: nothing through version 3, the properties since version 4.
func (r *reader) tail() bool {
	if r.file.Version >= 4 {
		return r.properties("properties")
	}
	if r.remaining() > 0 {
		return r.fail("end", r.pos, ErrTrailing, r.remaining())
	}
	return true
}

func (r *reader) masters(field string) bool {
	n, ok := r.count(field, 4+4+10)
	for i := 0; ok && i < n; i++ {
		if !r.master() {
			return r.withinItem(field, i)
		}
	}
	return ok
}

func (r *reader) master() bool {
	const masterMagic = 0xC96B1696
	start, ok := r.int32("magic")
	if !ok {
		return false
	}
	if uint32(start) != masterMagic {
		return r.fail("magic", r.pos-4, ErrMagic)
	}
	n, ok := r.count("size", 1)
	if !ok {
		return false
	}
	at, end := r.pos-4, r.pos+n
	var m Master
	if m.Version, ok = r.int32("version"); !ok {
		return false
	}
	if m.Name, ok = r.text("name"); !ok {
		return false
	}
	if m.Size, ok = r.count("payload", 1); !ok || !r.skip("payload", m.Size) {
		return false
	}
	if r.pos != end {
		return r.fail("size", at, ErrValue, n)
	}
	r.file.Masters = append(r.file.Masters, m)
	return true
}

func (r *reader) operators(field string) bool {
	size := 29 // the least an operator takes since version 3: no coordinator, finished
	switch {
	case r.file.Version == 2:
		size = 32
	case r.file.Version >= 5:
		size += 2 + 2
	}
	n, ok := r.count(field, size)
	if !ok {
		return false
	}
	r.file.Operators = make([]Operator, n)
	for i := range n {
		if !r.operator(&r.file.Operators[i], i) {
			return r.withinItem(field, i)
		}
	}
	return true
}

func (r *reader) operator(op *Operator, index int) (ok bool) {
	if r.file.Version >= 5 {
		if op.Name, ok = r.text("name"); !ok {
			return false
		}
		if op.UID, ok = r.text("uid"); !ok {
			return false
		}
	}
	if !r.skip("id", len(op.ID)) {
		return false
	}
	copy(op.ID[:], r.data[r.pos-len(op.ID):])
	if op.Parallelism, ok = r.int32("parallelism"); !ok {
		return false
	}
	if op.MaxParallelism, ok = r.int32("maxParallelism"); !ok {
		return false
	}
	if r.file.Version == 2 {
		return r.constant("chainLength", 1) && r.subtasks("subtasks", op, index, 4+8+4+4+4+1+1)
	}

	coordinated := r.remaining() > 0 && r.data[r.pos] != streamNull
	if coordinated && r.data[r.pos] != streamInline {
		return r.fail("coordinator.tag", r.pos, ErrTag, r.data[r.pos])
	}
	before := len(r.file.cursors)
	if !r.stream("coordinator", slot{role: Coordinator}) {
		return false
	}
	r.owned(before, index, -1)

	// A negative count means that the whole operator has finished (since 1.14, MetadataV3Serializer 1.14.6).
	if r.remaining() >= 4 && int8(r.data[r.pos]) < 0 {
		if coordinated {
			return r.fail("subtasks", r.pos, ErrValue, "finished operator with a coordinator")
		}
		op.Finished = true
		return r.skip("subtasks", 4)
	}
	return r.subtasks("subtasks", op, index, 4)
}

// constant reads a number that has but one legal value.
func (r *reader) constant(field string, want int32) bool {
	n, ok := r.int32(field)
	if ok && n != want {
		return r.fail(field, r.pos-4, ErrValue, n)
	}
	return ok
}

// owned notes that the handles read since there were before of them belong to a subtask.
func (r *reader) owned(before, operator, subtask int) {
	if len(r.file.cursors) > before {
		r.file.runs = append(r.file.runs, run{int32(before), int32(operator), int32(subtask)})
	}
}

func (r *reader) subtasks(field string, op *Operator, operator, itemSize int) bool {
	n, ok := r.count(field, itemSize)
	if !ok {
		return false
	}
	op.Subtasks = make([]Subtask, n)
	for i := range n {
		before := len(r.file.cursors)
		if !r.subtask(&op.Subtasks[i], op.Parallelism) {
			return r.withinItem(field, i)
		}
		r.owned(before, operator, i)
	}
	return true
}

func (r *reader) subtask(s *Subtask, parallelism int32) (ok bool) {
	if s.Index, ok = r.int32("index"); !ok {
		return false
	}
	if s.Index < 0 && r.file.Version > 2 { // since 1.14
		s.Index, s.Finished = -(s.Index + 1), true
	}
	if s.Index < 0 || s.Index >= parallelism { // OperatorState 2.3.0
		return r.fail("index", r.pos-4, ErrValue, s.Index)
	}
	if s.Finished {
		return true
	}
	if r.file.Version == 2 {
		// Two fields that only ever held one value; Flink refuses other values of the second.
		return r.skip("duration", 8) && r.constant("legacyState", 0) && r.state()
	}
	return r.state() && r.channels("inputChannels", InputChannel) && r.channels("outputChannels", OutputChannel)
}

func (r *reader) state() bool {
	return r.operatorState("managedOperator", ManagedOperator) &&
		r.operatorState("rawOperator", RawOperator) &&
		r.keyed("managedKeyed", ManagedKeyed) &&
		r.keyed("rawKeyed", RawKeyed)
}

func (r *reader) operatorState(field string, role Role) bool {
	has, ok := r.int32(field)
	if !ok || has == 0 {
		return ok
	}
	return r.operatorHandle(role) || r.within(field)
}

func (r *reader) operatorHandle(role Role) bool {
	tag, ok := r.tag()
	if !ok {
		return false
	}
	switch tag {
	case operatorPartition:
		return r.namedStates("states") && r.stream("delegate", slot{role: role})
	case operatorMerged:
		return r.namedStates("states") &&
			r.directory("taskOwnedDirectory", role) && r.directory("sharedDirectory", role) &&
			r.boolean("isEmpty") && r.segmentDelegate("delegate", role)
	}
	return r.badTag(tag)
}

func (r *reader) namedStates(field string) bool {
	n, ok := r.count(field, 2+1+4)
	for i := 0; ok && i < n; i++ {
		if !(r.utf("name") && r.distribution("mode") && r.array("offsets", 8)) {
			return r.withinItem(field, i)
		}
	}
	return ok
}

// distribution reads how operator state is spread over subtasks: split, union or broadcast.
func (r *reader) distribution(field string) bool { return r.upTo(field, 2) }

func (r *reader) boolean(field string) bool { return r.upTo(field, 1) }

func (r *reader) upTo(field string, limit byte) bool {
	b, ok := r.uint8(field)
	if ok && b > limit {
		return r.fail(field, r.pos-1, ErrValue, b)
	}
	return ok
}

func (r *reader) directory(field string, role Role) bool {
	r.handle(r.pos, Directory, slot{role, flagOperatorDelegate})
	return r.utf(field)
}

// segmentDelegate reads the handle inside an operator handle of tag 17, for which Flink takes segments only.
func (r *reader) segmentDelegate(field string, role Role) bool {
	if r.remaining() > 0 && r.data[r.pos] != streamSegment && r.data[r.pos] != streamEmptySegment {
		return r.fail(field+".tag", r.pos, ErrTag, r.data[r.pos])
	}
	return r.stream(field, slot{role, flagOperatorDelegate})
}

// keyed reads a keyed state handle. The role is that of state by key groups at this position.
func (r *reader) keyed(field string, role Role) bool {
	return r.keyedHandle(role) || r.within(field)
}

func (r *reader) keyedHandle(role Role) bool {
	tag, ok := r.tag()
	if !ok {
		return false
	}
	old := r.file.Dialect == Flink114
	switch tag {
	case keyedNull:
		return true
	case keyedKeyGroups, keyedSavepointKeyGroups:
		return r.keyGroupOffsets() && r.stream("delegate", slot{role: role})
	case keyedKeyGroupsV2:
		return r.keyGroupOffsets() && r.stream("delegate", slot{role: role}) && r.utf("stateHandleId")
	case keyedIncremental:
		return r.skip("checkpointId", 8) && r.utf("backendId") && r.keyGroupRange() &&
			r.incremental(role)
	case keyedIncrementalV2:
		return r.skip("checkpointId", 8) && r.utf("backendId") && r.keyGroupRange() &&
			r.skip("checkpointedSize", 8) && r.incremental(role) && r.utf("stateHandleId")
	case keyedChangelog, keyedChangelogV2:
		return r.keyGroupRange() && (old || r.skip("checkpointedSize", 8)) &&
			r.keyedList("base", ChangelogBase) && r.keyedList("delta", ChangelogDelta) &&
			(old || r.skip("materializationId", 8)) &&
			(tag == keyedChangelog || r.skip("checkpointId", 8)) &&
			(old || r.utf("stateHandleId"))
	case keyedChangelogInMemory:
		return r.keyGroupRange() && r.skip("from", 8) && r.skip("to", 8) && r.changes("changes") &&
			(old || r.utf("stateHandleId"))
	case keyedChangelogFiles, keyedChangelogFilesV2:
		return r.keyGroupRange() && r.changeFiles("files") && r.skip("size", 8) &&
			(old || r.skip("checkpointedSize", 8) && r.utf("stateHandleId")) &&
			(tag == keyedChangelogFiles || r.utf("storageIdentifier"))
	}
	return r.badTag(tag)
}

// keyGroupOffsets reads a range of key groups and where in the stream each begins.
func (r *reader) keyGroupOffsets() bool {
	return r.skip("firstKeyGroup", 4) && r.array("keyGroupOffsets", 8)
}

func (r *reader) keyGroupRange() bool {
	if !r.skip("firstKeyGroup", 4) {
		return false
	}
	n, ok := r.int32("keyGroups")
	if ok && n < 0 {
		return r.fail("keyGroups", r.pos-4, ErrCount, n)
	}
	return ok
}

// incremental reads the three parts of incremental state, which have roles of their own.
func (r *reader) incremental(role Role) bool {
	meta, shared, private := IncrementalMeta, IncrementalShared, IncrementalPrivate
	if role == ChangelogBase || role == ChangelogDelta {
		meta, shared, private = ChangelogMeta, ChangelogShared, ChangelogPrivate
	}
	return r.stream("meta", slot{role: meta}) &&
		r.namedStreams("shared", slot{shared, flagShared}) &&
		r.namedStreams("private", slot{role: private})
}

func (r *reader) namedStreams(field string, s slot) bool {
	n, ok := r.count(field, 2+1)
	for i := 0; ok && i < n; i++ {
		if !(r.utf("localName") && r.stream("", s)) {
			return r.withinItem(field, i)
		}
	}
	return ok
}

func (r *reader) keyedList(field string, role Role) bool {
	n, ok := r.count(field, 1)
	if !ok {
		return false
	}
	if !r.down() {
		return r.within(field)
	}
	for i := range n {
		if !r.keyedHandle(role) {
			return r.withinItem(field, i)
		}
	}
	return r.up()
}

// changes reads the changes that a changelog holds itself.
func (r *reader) changes(field string) bool {
	n, ok := r.count(field, 4+4)
	for i := 0; ok && i < n; i++ {
		if !(r.skip("keyGroup", 4) && r.bytes("data")) {
			return r.withinItem(field, i)
		}
	}
	return ok
}

func (r *reader) changeFiles(field string) bool {
	n, ok := r.count(field, 8+1)
	for i := 0; ok && i < n; i++ {
		if !(r.skip("offset", 8) && r.stream("", slot{role: ChangelogDelta})) {
			return r.withinItem(field, i)
		}
	}
	return ok
}

func (r *reader) channels(field string, role Role) bool {
	size := 4 + 4 + 4 + 8 + 1 // without the index of the subtask, which came with 1.12
	switch {
	case r.file.Version >= 6:
		size = 1 + 4 + 8 + 1 + 4 // merged
	case r.file.Dialect != Flink111:
		size += 4
	}
	n, ok := r.count(field, size)
	for i := 0; ok && i < n; i++ {
		if !r.channel(role) {
			return r.withinItem(field, i)
		}
	}
	return ok
}

func (r *reader) channel(role Role) bool {
	if r.file.Version >= 6 {
		single, merged := byte(1), byte(3)
		if role == OutputChannel {
			single, merged = 2, 4
		}
		switch form, ok := r.uint8("type"); {
		case !ok:
			return false
		case form == merged:
			return r.skip("subtask", 4) && r.skip("stateSize", 8) &&
				r.stream("delegate", slot{role: role}) && r.bytes("offsets")
		case form != single:
			return r.fail("type", r.pos-1, ErrTag, form)
		}
	}
	return (r.file.Dialect == Flink111 || r.skip("subtask", 4)) && r.skip("channelInfo", 4+4) &&
		r.array("offsets", 8) && r.skip("stateSize", 8) && r.stream("delegate", slot{role: role})
}

// stream reads a stream state handle. Without a field name its own fields appear in its place.
func (r *reader) stream(field string, s slot) bool {
	return r.streamHandle(s) || r.within(field)
}

func (r *reader) streamHandle(s slot) bool {
	at := r.pos
	tag, ok := r.tag()
	if !ok {
		return false
	}
	switch tag {
	case streamNull:
		return true
	case streamInline:
		r.handle(at, Inline, s)
		return r.utf("name") && r.bytes("data")
	case streamFile:
		r.handle(at, AbsoluteFile, s)
		return r.size("size") && r.utf("path")
	case streamRelativeFile:
		r.handle(at, RelativeFile, s)
		return r.utf("path") && r.size("size")
	case streamSegment:
		return r.segment(at, s)
	case streamEmptySegment:
		r.handle(at, EmptySegment, s)
		return true
	case streamKeyGroups:
		return r.keyGroupOffsets() && r.down() && r.stream("delegate", s) && r.up()
	}
	return r.badTag(tag)
}

// handle keeps a handle that starts at offset.
func (r *reader) handle(offset int, kind Kind, s slot) {
	r.file.cursors = append(r.file.cursors, cursor{uint32(offset), kind, s.role, s.flags})
}

// size reads the length of a file, -1 if Flink did not know it.
func (r *reader) size(field string) bool {
	n, ok := r.int64(field)
	if ok && n < -1 {
		return r.fail(field, r.pos-8, ErrValue, n)
	}
	return ok
}

func (r *reader) segment(at int, s slot) bool {
	start, ok := r.int64("startPos")
	if ok && start < 0 {
		return r.fail("startPos", r.pos-8, ErrValue, start)
	}
	if !ok || !r.size("size") {
		return false
	}
	if size := int64(binary.BigEndian.Uint64(r.data[r.pos-8:])); size > math.MaxInt64-start {
		return r.fail("size", r.pos-8, ErrValue, size)
	}
	const exclusive, shared = 0, 1
	scope, ok := r.int32("scope")
	if !ok {
		return false
	}
	switch scope {
	case exclusive:
	case shared:
		s.flags |= flagShared
	default:
		return r.fail("scope", r.pos-4, ErrValue, scope)
	}
	r.handle(at, Segment, s)
	return r.utf("path") && r.utf("logicalFileId")
}
