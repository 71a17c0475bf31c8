package blobstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

var (
	errNotDir   = syscall.ENOTDIR
	errLinksOff = error(syscall.EOPNOTSUPP)
)

// inodeOf returns when the inode last changed, which a new link does and the
// modification time does not show, and its number.
func inodeOf(info fs.FileInfo) (changed time.Time, inode uint64) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return info.ModTime(), 0
	}
	return time.Unix(st.Ctim.Unix()), st.Ino
}

// linkRefused reports whether a volume, or its rules, have no hard link for us:
// another mount, a file of another owner (fs.protected_hardlinks), too many
// links, no links at all.
func linkRefused(err error) bool {
	for _, e := range []error{syscall.EXDEV, syscall.EPERM, syscall.EMLINK, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EACCES} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// lockFolder waits for the folder's lock. Volumes on which flock does not work
// are not locked.
func lockFolder(dir string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil && !errors.Is(err, syscall.ENOLCK) && !errors.Is(err, syscall.EOPNOTSUPP) && !errors.Is(err, syscall.ENOSYS) && !errors.Is(err, syscall.EINVAL) {
		file.Close()
		return nil, err
	}
	return func() { file.Close() }, nil // closing gives the lock back
}

// syncFolder makes the names in a folder durable. Network volumes that cannot
// sync a folder say EINVAL; their server has the names already.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.EOPNOTSUPP) {
		return err
	}
	return nil
}
