package volumes

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Refusal makes a system call fail with an errno, as a volume would.
type Refusal struct {
	Call  string // link, flock or fsync
	Errno syscall.Errno
}

func (r Refusal) String() string { return r.Call + " says " + unix.ErrnoName(r.Errno) }

// calls are the numbers under which the kernel knows what Go's library does. The
// plain ones of amd64 are not defined on other architectures.
var calls = map[string][]uint32{
	"link":   {unix.SYS_LINKAT},
	"rename": {unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2},
	"flock":  {unix.SYS_FLOCK},
	"fsync":  {unix.SYS_FSYNC},
}

const amd64Rename, amd64Link = 82, 86

func numbers(call string) []uint32 {
	n := calls[call]
	if runtime.GOARCH == "amd64" {
		switch call {
		case "rename":
			return append(n, amd64Rename)
		case "link":
			return append(n, amd64Link)
		}
	}
	return n
}

// Refusing runs f on a thread of its own, on which system calls fail. Goroutines
// that f starts are not on that thread.
func Refusing(f func(), refusals ...Refusal) {
	var program []unix.SockFilter
	for _, r := range refusals {
		program = append(program, returning(unix.SECCOMP_RET_ERRNO|uint32(r.Errno), r.Call)...)
	}
	onThread(func() {
		if _, err := filter(program, 0); err != nil {
			panic(err)
		}
		f()
	})
}

// onThread runs f on a thread that ends with it, since a filter cannot be taken
// off.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

// returning is the part of a filter that has one answer to some system calls.
func returning(answer uint32, names ...string) (program []unix.SockFilter) {
	for _, name := range names {
		for _, nr := range numbers(name) {
			program = append(program,
				unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
				unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: answer})
		}
	}
	return program
}

// filter applies to the calling thread and what it executes.
func filter(program []unix.SockFilter, flags uintptr) (fd int, err error) {
	loadNumber := unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}
	allow := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
	whole := append(append([]unix.SockFilter{loadNumber}, program...), allow)
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("no_new_privs: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(whole)), Filter: &whole[0]}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return 0, fmt.Errorf("seccomp: %w", errno)
	}
	return int(r), nil
}

// Calls runs f on a thread of its own and returns, in their order, what it told
// the kernel to make durable and to name: "fsync NAME", "link FROM TO" and
// "rename FROM TO", by the last elements of paths.
func Calls(f func()) (seen []string) {
	listener := make(chan int)
	stop := [2]int{}
	if err := unix.Pipe2(stop[:], unix.O_CLOEXEC); err != nil {
		panic(err)
	}
	defer unix.Close(stop[0])
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		onThread(func() {
			defer unix.Close(stop[1])
			fd, err := filter(returning(unix.SECCOMP_RET_USER_NOTIF, "fsync", "link", "rename"), unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
			if err != nil {
				panic(err)
			}
			listener <- fd
			f()
		})
	}()
	fd := <-listener
	defer unix.Close(fd)
	for {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(stop[0])}}
		if _, err := unix.Poll(ready, -1); err != nil && err != unix.EINTR {
			panic(err)
		}
		switch {
		case ready[0].Revents&unix.POLLIN != 0:
			if call := allowNext(fd); call != "" {
				seen = append(seen, call)
			}
		case ready[1].Revents != 0:
			<-ended // what f wrote is the caller's to read
			return seen
		}
	}
}

// notification and answer are struct seccomp_notif and seccomp_notif_resp.
type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type answer struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

const (
	notifyReceive = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	notifySend    = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
	goOn          = 1          // SECCOMP_USER_NOTIF_FLAG_CONTINUE
)

// allowNext lets the next call happen and describes it. A call that a signal
// interrupted is asked for again: it is described once.
func allowNext(fd int) string {
	var n notification
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifyReceive, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return ""
	}
	call := n.describe()
	a := answer{id: n.id, flags: goOn}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifySend, uintptr(unsafe.Pointer(&a))); errno != 0 {
		return ""
	}
	return call
}

func (n notification) describe() string {
	switch uint32(n.nr) {
	case unix.SYS_FSYNC:
		name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", n.args[0]))
		return "fsync " + filepath.Base(name)
	case unix.SYS_LINKAT:
		return "link " + baseAt(n.args[1]) + " " + baseAt(n.args[3])
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		return "rename " + baseAt(n.args[1]) + " " + baseAt(n.args[3])
	case amd64Link:
		return "link " + baseAt(n.args[0]) + " " + baseAt(n.args[1])
	case amd64Rename:
		return "rename " + baseAt(n.args[0]) + " " + baseAt(n.args[1])
	}
	return fmt.Sprintf("call %d", n.nr)
}

// baseAt is the last element of the path at an address of this process.
func baseAt(address uint64) string {
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		return err.Error()
	}
	defer memory.Close()
	text := make([]byte, unix.PathMax)
	n, _ := memory.ReadAt(text, int64(address))
	path, _, _ := strings.Cut(string(text[:n]), "\x00")
	return filepath.Base(path)
}

// As runs f as another user, in no group of this one. It needs root.
func As(uid int, f func()) {
	onThread(func() {
		for _, call := range [][4]uintptr{
			{unix.SYS_SETGROUPS, 0, 0, 0},
			{unix.SYS_SETRESGID, uintptr(uid), uintptr(uid), uintptr(uid)},
			{unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)},
		} { // this thread's only, unlike those of package syscall
			if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
				panic(fmt.Sprintf("becoming user %d: %v", uid, errno))
			}
		}
		f()
	})
}
