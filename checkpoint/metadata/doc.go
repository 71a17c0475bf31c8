// Package metadata reads and rewrites _metadata, the file that makes a Flink checkpoint or savepoint.
//
// Start with [Parse]. [File.Handles] walks over everything the checkpoint refers to, [File.Rewrite] makes a copy of
// the file that refers to something else. Nothing here opens the files that are named.
//
// # Format
//
// A _metadata starts with the magic number 4960672D and a format version. All numbers are big endian; texts are
// Java's modified UTF-8 behind a 16-bit length; lists are a 32-bit count and the items. There is no checksum, no
// alignment and no overall length, so a path can be replaced by a longer one without touching any other byte.
//
//	checkpoint id
//	master states       opaque state of hooks in the JobManager
//	operators           id, parallelism, coordinator, and for each subtask that has not finished
//	  operator state      managed and raw: one handle each, or none
//	  keyed state         managed and raw: one handle each, or none
//	  channel state       in-flight data of unaligned checkpoints: a handle per channel
//	properties          a Java object up to the end of the file
//
// The versions differ little. The release that writes a version is that of Checkpoints.storeCheckpointMetadata:
//
//	2   Flink 1.3 to 1.10    no coordinator, no channel state, no relative paths
//	3   Flink 1.11 to 1.15   (finished operators and subtasks since 1.14)
//	4   Flink 1.16 to 1.20   adds the properties
//	5   Flink 2.0            adds the name and uid of operators
//	6   Flink 2.1 to 2.3     adds a type to channel state, and merged channel state
//
// A handle says where bytes of state are: inside _metadata itself if they are few (20 KiB by default), in a file
// named by an absolute path, in a file named relative to the directory of _metadata, or in a segment of a file that
// several handles share. Each starts with a tag; the same tag means something else for stream, keyed and operator
// state. Keyed and operator handles wrap stream handles and add key groups, lists of RocksDB files, or changelogs;
// [File.Handles] returns the stream handles inside, with the [Role] they have.
//
// # What is kept
//
// A [File] is the bytes it was parsed from and an 8-byte cursor for each handle. A rewrite copies the bytes and
// replaces the spans of the paths. Order, ids, sizes, names that only label, and texts that no Go string can stand
// for all stay as Flink wrote them.
//
// # Sources
//
// The layout is that of the serializers in org.apache.flink.runtime.checkpoint.metadata, read in releases 1.8.3 to
// 2.3.0 (SavepointV2Serializer until 1.10.3, MetadataV2V3SerializerBase, MetadataV3Serializer,
// ChannelStateHandleSerializer and their successors). It is checked against the files in testdata, which Flink wrote:
// real checkpoints and savepoints of 1.8 to 2.3, and, for forms that jobs rarely leave, files that its serializers
// wrote. Between them they hold every tag of every version and dialect. Flink's own readers read what Rewrite makes of them,
// and write the same bytes again.
package metadata
