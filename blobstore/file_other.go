//go:build !linux

package blobstore

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"
)

// Elsewhere than on Linux, where chkpin serves development only, files are
// copied instead of linked and conditions hold within one process.

const linksKeepTime = false

var folderLock sync.Mutex

func inodeOf(info fs.FileInfo) (changed time.Time, inode uint64) { return info.ModTime(), 0 }

func linkRefused(err error) bool { return errors.Is(err, errors.ErrUnsupported) }

func lockFolder(context.Context, string) (unlock func(), err error) {
	folderLock.Lock()
	return folderLock.Unlock, nil
}

func syncFolder(string) error { return nil }

func mountPoint(string) (string, error) { return "", nil }
