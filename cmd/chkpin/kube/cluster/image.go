package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Images builds images with buildah, without any registry: what a Dockerfile
// names as its base is made here.
type Images struct {
	dir    string
	global []string
}

// NewImages keeps images below a folder.
func NewImages(dir string) *Images {
	at := func(name string) string { return filepath.Join(dir, name) }
	return &Images{dir, []string{"--root=" + at("store"), "--runroot=" + at("run"), "--storage-driver=overlay"}}
}

func (i *Images) buildah(ctx context.Context, args ...string) (string, error) {
	out, err := Run(ctx, "", "buildah", append(i.global, args...)...)
	return strings.TrimSpace(out), err
}

// Make makes an image of one folder.
func (i *Images) Make(ctx context.Context, name, root string, config ...string) error {
	container, err := i.buildah(ctx, "from", "scratch")
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"copy", "--quiet", container, root, "/"},
		append(append([]string{"config"}, config...), container),
		{"commit", "--quiet", "--rm", container, name},
	} {
		if len(args) == 2 {
			continue // nothing to configure
		}
		if _, err := i.buildah(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// Busybox makes an image of nothing but busybox, with its applets as links.
func (i *Images) Busybox(ctx context.Context, name string, config ...string) error {
	root := filepath.Join(i.dir, "busybox")
	if err := BusyboxRoot(ctx, root); err != nil {
		return err
	}
	return i.Make(ctx, name, root, config...)
}

// BusyboxRoot fills a folder with busybox and certificates.
func BusyboxRoot(ctx context.Context, root string) error {
	for _, dir := range []string{"bin", "tmp", "root", "etc/ssl/certs"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if _, err := Run(ctx, "", "sh", "-c", `cp "$(command -v busybox)" "$0/bin/" && cp /etc/ssl/certs/ca-certificates.crt "$0/etc/ssl/certs/"`, root); err != nil {
		return err
	}
	_, err := Run(ctx, "", filepath.Join(root, "bin/busybox"), "--install", "-s", filepath.Join(root, "bin"))
	if err != nil {
		return err
	}
	// The links name busybox by the path of the host.
	_, err = Run(ctx, "", "sh", "-c", `cd "$0/bin" && for f in *; do if [ -L "$f" ]; then ln -sf busybox "$f"; fi; done`, root)
	return err
}

// Build builds the Dockerfile of a folder for linux on an architecture, as its
// comment says, offline: Go and its caches are those of this machine. It returns
// the image's id.
func (i *Images) Build(ctx context.Context, folder, name, arch, version, revision string) (string, error) {
	golang := "localhost/golang"
	if err := i.Busybox(ctx, golang, "--env=PATH=/usr/local/go/bin:/bin", "--env=GOPATH=/go", "--env=HOME=/root",
		"--env=GOTOOLCHAIN=local", "--env=GOPROXY=off"); err != nil {
		return "", err
	}
	settings, err := Run(ctx, "", "go", "env", "GOROOT", "GOMODCACHE", "GOCACHE")
	if err != nil {
		return "", err
	}
	paths := strings.Fields(settings)
	if len(paths) != 3 {
		return "", fmt.Errorf("go env: %q", settings)
	}
	id := filepath.Join(i.dir, "id")
	if _, err := i.buildah(ctx, "build", "--isolation=chroot", "--pull=never", "--no-cache", "--timestamp=1700000000",
		"--volume="+paths[0]+":/usr/local/go:ro", "--volume="+paths[1]+":/go/pkg/mod", "--volume="+paths[2]+":/root/.cache/go-build",
		"--build-arg=GO_IMAGE="+golang, "--build-arg=VERSION="+version, "--build-arg=REVISION="+revision,
		"--build-arg=TARGETOS=linux", "--build-arg=TARGETARCH="+arch, "--iidfile="+id, "--tag="+name, folder); err != nil {
		return "", err
	}
	text, err := os.ReadFile(id)
	return string(text), err
}

// Inspect tells of an image what a Go template asks for.
func (i *Images) Inspect(ctx context.Context, name, template string) (string, error) {
	return i.buildah(ctx, "inspect", "--type=image", "--format="+template, name)
}

// Export writes an image to a docker-archive.
func (i *Images) Export(ctx context.Context, name, archive string) error {
	_, err := i.buildah(ctx, "push", "--quiet", name, "docker-archive:"+archive+":"+name)
	return err
}
