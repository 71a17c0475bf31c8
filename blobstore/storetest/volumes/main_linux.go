package volumes

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// inside marks the process that is in its namespaces already.
const inside = "CHKPIN_TEST_VOLUME"

// Main is the program
//
//	volume [flags] COMMAND…
//
// which runs the command where its flags take effect, and exits as it does.
// Nothing of it outlives the command.
//
//	-tmpfs DIR[:OPTIONS]  a volume of its own is mounted there, such as /data:size=1m
//	-readonly DIR         the folder is mounted read-only
//	-refuse CALL=ERRNO    link, flock or fsync fails
//	-uid N, -gid N        another user and group; needs root
//	-group N              a further group, as fsGroup is
//	-umask OCTAL
func Main() {
	if err := run(); err != nil {
		if ended, ok := errors.AsType[*exec.ExitError](err); ok {
			os.Exit(ended.ExitCode())
		}
		fmt.Fprintln(os.Stderr, "volume:", err)
		os.Exit(2)
	}
}

type options struct {
	tmpfs, readOnly, refuse []string
	uid, gid, group, umask  int
}

func run() error {
	var o options
	list := func(to *[]string) func(string) error {
		return func(text string) error { *to = append(*to, text); return nil }
	}
	flags := flag.NewFlagSet("volume", flag.ExitOnError)
	flags.Func("tmpfs", "`DIR[:OPTIONS]`", list(&o.tmpfs))
	flags.Func("readonly", "`DIR`", list(&o.readOnly))
	flags.Func("refuse", "`CALL=ERRNO`", list(&o.refuse))
	flags.IntVar(&o.uid, "uid", -1, "")
	flags.IntVar(&o.gid, "gid", -1, "")
	flags.IntVar(&o.group, "group", -1, "")
	flags.IntVar(&o.umask, "umask", -1, "such as 0o077")
	_ = flags.Parse(os.Args[1:])
	if flags.NArg() == 0 {
		return errors.New("no command")
	}
	if len(o.tmpfs)+len(o.readOnly) > 0 && os.Getenv(inside) == "" {
		return enter()
	}
	program, err := open(flags.Arg(0))
	if err != nil {
		return err
	}
	runtime.LockOSThread() // a filter is the thread's, which becomes the command
	if err := o.apply(); err != nil {
		return err
	}
	os.Unsetenv(inside)
	return syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", program.Fd()), flags.Args(), os.Environ())
}

// open finds the command while that is still allowed: another user may not reach
// the folder it is in.
func open(command string) (*os.File, error) {
	path, err := exec.LookPath(command)
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}

// enter runs this program again in namespaces of its own.
func enter() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Args[0] = os.Args[0] // which says what the binary is
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
	}
	err = cmd.Run()
	if err != nil && !isExit(err) {
		return needsNamespaces(err)
	}
	return err
}

func isExit(err error) bool {
	_, ok := errors.AsType[*exec.ExitError](err)
	return ok
}

func needsNamespaces(err error) error {
	return fmt.Errorf("%w; these tests mount volumes: run them as root, or allow unprivileged user namespaces "+
		"(sysctl kernel.apparmor_restrict_unprivileged_userns=0 where that exists)", err)
}

func (o options) apply() error {
	if os.Getenv(inside) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return needsNamespaces(fmt.Errorf("mounting: %w", err))
		}
	}
	for _, volume := range o.tmpfs {
		dir, opts, _ := strings.Cut(volume, ":")
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, opts); err != nil {
			return needsNamespaces(fmt.Errorf("mounting %s: %w", dir, err))
		}
	}
	for _, dir := range o.readOnly {
		if err := mountReadOnly(dir); err != nil {
			return needsNamespaces(fmt.Errorf("mounting %s: %w", dir, err))
		}
	}
	if o.umask >= 0 {
		syscall.Umask(o.umask)
	}
	if err := o.become(); err != nil {
		return err
	}
	var program []unix.SockFilter
	for _, r := range o.refuse {
		call, name, _ := strings.Cut(r, "=")
		errno := errnoNamed(name)
		if len(numbers(call)) == 0 || errno == 0 {
			return fmt.Errorf("-refuse %s: no such call or errno", r)
		}
		program = append(program, returning(unix.SECCOMP_RET_ERRNO|uint32(errno), call)...)
	}
	if len(program) == 0 {
		return nil
	}
	_, err := filter(program, 0)
	return err
}

// mountReadOnly keeps the other flags of the mount, which a user namespace may
// not take off.
func mountReadOnly(dir string) error {
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	const kept = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME
	return unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|uintptr(st.Flags)&kept, "")
}

// become changes user and groups.
func (o options) become() error {
	if o.group >= 0 || o.uid >= 0 {
		var groups []int
		if o.group >= 0 {
			groups = append(groups, o.group)
		}
		if err := syscall.Setgroups(groups); err != nil {
			return fmt.Errorf("groups: %w; needs root", err)
		}
	}
	if o.gid >= 0 {
		if err := syscall.Setgid(o.gid); err != nil {
			return fmt.Errorf("gid: %w; needs root", err)
		}
	}
	if o.uid >= 0 {
		if err := syscall.Setuid(o.uid); err != nil {
			return fmt.Errorf("uid: %w; needs root", err)
		}
	}
	return nil
}

func errnoNamed(name string) syscall.Errno {
	for e := syscall.Errno(1); e < 200; e++ {
		if unix.ErrnoName(e) == name {
			return e
		}
	}
	return 0
}
