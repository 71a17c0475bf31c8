package blobstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// linksKeepTime says that a new link shows in the time inodeOf gives.
const linksKeepTime = true

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
	return oneOf(err, syscall.EXDEV, syscall.EPERM, syscall.EACCES, syscall.EMLINK) ||
		errors.Is(err, errors.ErrUnsupported)
}

// lockFolder waits for the folder's lock. errNoLocks: flock does not work here.
func lockFolder(ctx context.Context, dir string) (unlock func(), err error) {
	for {
		file, err := openLock(filepath.Join(dir, lockName))
		if err != nil {
			return nil, err
		}
		unlock = func() { file.Close() } // closing gives the lock back
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case oneOf(err, syscall.ENOLCK, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EINVAL, syscall.EBADF):
			unlock()
			return nil, fmt.Errorf("%w: %w", errNoLocks, err)
		case err == nil && current(file):
			return unlock, nil
		}
		unlock()
		if err != nil && !oneOf(err, syscall.EWOULDBLOCK, syscall.EINTR) {
			return nil, err
		}
		select { // asking again, and not waiting in flock, lets the context end it
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockPause):
		}
	}
}

// openLock makes the lock file, or opens that of another user, which can be read
// at least. NFS wants it open for writing and says EBADF otherwise.
func openLock(name string) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
	if errors.Is(err, fs.ErrPermission) {
		if other, e := os.Open(name); e == nil {
			return other, nil
		}
	}
	if err == nil {
		groupReads(file, 0o040)
	}
	return file, err
}

// lockPause is the time between two tries to get a lock.
const lockPause = 5 * time.Millisecond

// current reports whether the open lock file still has its name: a Delete may
// have removed it, and then it excludes nobody who comes later.
func current(lock *os.File) bool {
	held, err := lock.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(lock.Name())
	return err == nil && os.SameFile(held, named)
}

func oneOf(err error, conditions ...syscall.Errno) bool {
	return slices.ContainsFunc(conditions, func(e syscall.Errno) bool { return errors.Is(err, e) })
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

// mountPoint is where the volume is mounted that a folder is on, "" when the
// kernel does not tell. It numbers mounts: two that show one volume, as a claim's
// subPaths are, are two, and have no hard links between them although their
// device is one.
func mountPoint(dir string) (string, error) {
	const path = 0x200000 // O_PATH, open(2): the folder need not be readable
	file, err := os.OpenFile(dir, path, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	id := fieldAfter(fmt.Sprintf("/proc/self/fdinfo/%d", file.Fd()), 1, "mnt_id:")
	return mountEscapes.Replace(fieldAfter("/proc/self/mountinfo", 4, id)), nil
}

// mountEscapes undoes how the kernel writes a path in mountinfo, proc(5).
var mountEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// fieldAfter finds the line of a file that begins with a word, and returns
// another word of it, or "".
func fieldAfter(name string, field int, first string) string {
	file, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > field && fields[0] == first {
			return fields[field]
		}
	}
	return ""
}
