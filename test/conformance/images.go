package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"errand.dev/errand/test/registry"
)

// pushStandIns puts a stand-in into the registry for each image that the tests name and that there is one for, and leads every
// registry that they name there: an image without a stand-in isn't found, and nothing is asked of the internet.
func pushStandIns(ctx context.Context, images *registry.Server, tools, conf string, stderr io.Writer) error {
	fmt.Fprintln(stderr, "making stand-ins for upstream's images")
	names, err := imageNames(ctx, tools)
	if err != nil {
		return err
	}
	standIns, err := makeStandIns(tools)
	if err != nil {
		return err
	}
	hosts := []string{"docker.io"}
	for _, image := range names {
		host, ref, _ := strings.Cut(image, "/")
		if !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
		base, _, _ := strings.Cut(path.Base(ref), ":")
		standIn, ok := standIns[base]
		if !ok || host != "registry.k8s.io" {
			continue
		}
		if err := images.Push(ref, standIn); err != nil {
			return err
		}
	}
	return images.WriteRegistriesConf(conf, hosts...)
}

// imageNames are the images that the tests may ask for, as e2e.test itself tells them.
func imageNames(ctx context.Context, tools string) ([]string, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(tools, "e2e.test"), "--list-images").Output()
	if err != nil {
		return nil, fmt.Errorf("ask e2e.test for its images: %w", err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if name := strings.TrimSpace(line); strings.Contains(name, "/") && strings.Contains(name, ":") {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("e2e.test --list-images lists none: %s", out)
	}
	return names, nil
}

// makeStandIns makes the stand-ins, by the last part of an image's name. docs/conformance.md says what each is.
func makeStandIns(tools string) (map[string]v1.Image, error) {
	busybox, err := busyboxImage(tools)
	if err != nil {
		return nil, fmt.Errorf("make a stand-in for the image busybox: %w", err)
	}
	nginx, err := registry.WebServer(busybox, 80)
	if err != nil {
		return nil, err
	}
	standIns := map[string]v1.Image{"busybox": busybox, "glibc-dns-testing": busybox, "nginx": nginx}
	for name, make := range map[string]func(v1.Image, string) (v1.Image, error){
		"agnhost": agnhost, "kitten": kitten, "pause": pause, "nonewprivs": nonewprivs, "nonroot": nonroot,
	} {
		if standIns[name], err = make(busybox, tools); err != nil {
			return nil, fmt.Errorf("make a stand-in for the image %s: %w", name, err)
		}
	}
	return standIns, nil
}

// busyboxImage is the host's, with a shell in which no environment variable gets lost (standin/sh.c).
func busyboxImage(tools string) (v1.Image, error) {
	sh, err := os.ReadFile(filepath.Join(tools, "sh"))
	if err != nil {
		return nil, err
	}
	image, err := registry.BusyboxImage(registry.Owner{})
	if err != nil {
		return nil, err
	}
	return registry.Extend(image, func(*v1.Config) {}, registry.File{Name: "bin/sh", Mode: 0o755, Body: sh})
}

// What agnhost's image has besides programs: as much of curl as hooks of the tests use, which ask for one address, and the users and
// groups that tests name.
const (
	curl   = "#!/bin/sh\nfor url; do :; done\nexec wget -q -O - \"$url\"\n"
	passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nuser-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n"
	group  = "root:x:0:\nnobody:x:65534:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"
)

func agnhost(busybox v1.Image, tools string) (v1.Image, error) {
	files, err := fakeRegistry(busybox, tools)
	if err != nil {
		return nil, err
	}
	for _, file := range []registry.File{
		{Name: "agnhost", Mode: 0o755}, {Name: "localhost.crt"}, {Name: "localhost.key"},
		{Name: "usr/bin/nc", Mode: 0o755}, {Name: "usr/bin/nsenter", Mode: 0o755},
	} {
		if file.Body, err = os.ReadFile(filepath.Join(tools, path.Base(file.Name))); err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	files = append(files,
		registry.File{Name: "usr/bin/curl", Mode: 0o755, Body: []byte(curl)},
		registry.File{Name: "bin/bash", Mode: 0o755, Body: []byte("#!/bin/sh\nexec sh \"$@\"\n")},
		registry.File{Name: "agnhost-2", Link: "agnhost"},
		registry.File{Name: "uploads/"},
		registry.File{Name: "etc/passwd", Body: []byte(passwd)},
		registry.File{Name: "etc/group", Body: []byte(group)})
	return registry.Extend(busybox, func(c *v1.Config) { c.Entrypoint, c.Cmd = []string{"/agnhost"}, []string{"pause"} }, files...)
}

// kitten is mounted as a volume by tests that look for what upstream's has of its own, and of Alpine.
func kitten(busybox v1.Image, _ string) (v1.Image, error) {
	return registry.Extend(busybox, func(*v1.Config) {},
		registry.File{Name: "data.json", Body: []byte("{\"image\": \"kitten.jpg\"}\n")},
		registry.File{Name: "etc/os-release", Body: []byte("NAME=\"Alpine Linux\"\n")})
}

// pause has a shell, which upstream's hasn't: no test cares.
func pause(busybox v1.Image, tools string) (v1.Image, error) {
	bin, err := os.ReadFile(filepath.Join(tools, "pause"))
	if err != nil {
		return nil, err
	}
	return registry.Extend(busybox, func(c *v1.Config) {
		c.User, c.Entrypoint, c.Cmd = "65535:65535", []string{"/pause"}, nil
	}, registry.File{Name: "pause", Mode: 0o755, Body: bin})
}

func nonewprivs(busybox v1.Image, tools string) (v1.Image, error) {
	return registry.NoNewPrivs(busybox, filepath.Join(tools, "nonewprivs"))
}

func nonroot(busybox v1.Image, _ string) (v1.Image, error) {
	return registry.Extend(busybox, func(c *v1.Config) { c.User = "1234" })
}
