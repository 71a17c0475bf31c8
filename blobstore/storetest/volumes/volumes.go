// Package volumes gives tests the volumes that Kubernetes gives pods: full,
// read-only, on another mount, of another user, without hard links or locks. The
// kernel says all of it, nothing is mocked: mounts in a namespace of their own,
// and system calls that a seccomp filter makes fail or tells about.
//
// [Main] is a program that starts another one on such volumes. [Refusing] and
// [Calls] are for calls within a test.
//
// Mounts need root or unprivileged user namespaces; everything else needs
// nothing but Linux.
package volumes
