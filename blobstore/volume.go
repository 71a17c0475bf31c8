package blobstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// volumeError is what a volume said, with the way out.
type volumeError struct {
	error
	hint string
}

func (e *volumeError) Unwrap() error { return e.error }

// Hint is a way out for people.
func (e *volumeError) Hint() string { return e.hint }

func fileError(op string, u URI, err error) *Error {
	// An os error repeats the path in the machine's spelling; the URI says it.
	switch e := err.(type) {
	case *fs.PathError:
		err = e.Err
	case *os.LinkError:
		err = e.Err
	}
	switch {
	case errors.Is(err, syscall.ENOTDIR) && (op == "stat" || op == "open"):
		err = fmt.Errorf("%w (a part of the path is a file)", ErrNotExist)
	case errors.Is(err, syscall.EROFS):
		err = &volumeError{fmt.Errorf("%w: %w", ErrPermission, err),
			"chkpin writes there: let its pod mount the volume read-write (readOnly of the claim and of the container's volumeMounts)"}
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		err = &volumeError{fmt.Errorf("%w: %w", ErrFull, err),
			"make room or enlarge the claim; chkpin gc <app> shows what it could delete"}
	case errors.Is(err, ErrPermission):
		err = &volumeError{err, fmt.Sprintf("chkpin runs as uid %d, which may not: give its pod and Flink's the same fsGroup, or the same user", os.Getuid())}
	case errors.Is(err, ErrContainer):
		err = &volumeError{err, "is the volume mounted, and at the path that Flink's pods have it at? If it is, make the missing folder"}
	}
	return &Error{Op: op, URI: u, Err: err}
}

// Mount implements [Mounter].
func (f *File) Mount(ctx context.Context, u URI) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", &Error{Op: "stat", URI: u, Err: err}
	}
	point, err := mountPoint(cmp.Or(u.Path(), "/"))
	if errors.Is(err, fs.ErrNotExist) {
		above := filepath.Dir(u.Path())
		point, err = mountPoint(above)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: there is no folder %s", ErrContainer, above)
		}
	}
	if err != nil {
		return "", fileError("stat", u, err)
	}
	return point, nil
}

// groupReads lets the group of a new file or folder do with it what a strict
// umask forbids. A volume without modes of its own has them from its mount
// options: nothing can be done there, nor need it.
func groupReads(made *os.File, mode fs.FileMode) {
	if info, err := made.Stat(); err == nil && info.Mode()&mode != mode {
		_ = made.Chmod(info.Mode() | mode)
	}
}

// errNoLocks: a volume on which flock does not work.
var errNoLocks = errors.New("flock does not work here")

// lock waits for the folder's lock. Volumes that have none are not locked, which
// is said once.
func (f *File) lock(ctx context.Context, dir string) (unlock func(), err error) {
	unlock, err = lockFolder(ctx, dir)
	if !errors.Is(err, errNoLocks) {
		return unlock, err
	}
	f.unlocked.Do(func() {
		if f.Logger != nil {
			f.Logger.Warn("this volume has no locks: of two chkpins that publish at once the last one wins; let only one run", "folder", dir, "error", err)
		}
	})
	return func() {}, nil
}
