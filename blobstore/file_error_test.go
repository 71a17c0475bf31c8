package blobstore

import (
	"io/fs"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
)

// No volume of a test machine is sure to be mounted read-only, so this hands in
// what the system says on one.
func TestReadOnlyVolumeIsErrPermission(t *testing.T) {
	readOnly := &fs.PathError{Op: "open", Path: "/volume/a", Err: syscall.EROFS}
	err := fileError("put", MustParse("file:///volume/a"), readOnly)
	assert.ErrorIs(t, err, ErrPermission)
	assert.EqualError(t, err, "put file:///volume/a: permission denied: read-only file system")
}
