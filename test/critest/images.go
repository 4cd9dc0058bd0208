package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"errand.dev/errand/test/registry"
)

// serveImages starts the registry that stands in for upstream's, and writes the registries.conf that leads there. Of an image without a
// stand-in nothing is asked of the internet: it isn't found. docs/conformance.md says what each is.
func serveImages(tools, blobs, conf string) (*registry.Server, error) {
	images, err := standIns(tools)
	if err != nil {
		return nil, fmt.Errorf("make stand-ins for upstream's images: %w", err)
	}
	server, err := registry.Start(registry.Options{Dir: blobs})
	if err != nil {
		return nil, err
	}
	for ref, img := range images {
		if err := server.Push(ref, img); err != nil {
			return nil, errors.Join(err, server.Close())
		}
	}
	if err := server.WriteRegistriesConf(conf, "docker.io", "registry.k8s.io", "k8s.gcr.io", "gcr.io"); err != nil {
		return nil, errors.Join(err, server.Close())
	}
	return server, nil
}

// The users and groups of upstream's busybox image that tests ask for by name.
const (
	passwd = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\ndefault-user:x:1000:1000::/home/default-user:/bin/sh\n"
	group  = "root:x:0:\nwww-data:x:33:\nnobody:x:65534:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"
)

// What Debian's busybox lacks of upstream's, as far as tests use it.
const (
	ipcs  = "#!/bin/sh\ncat /proc/sysvipc/shm\n"
	pgrep = `#!/bin/sh
found=1
for process in /proc/[0-9]*; do
	read -r name < "$process/comm" || continue
	case $name in
	*"$1"*)
		echo "${process#/proc/}"
		found=0
		;;
	esac
done 2>/dev/null
exit $found
`
)

// standIns are the images by repository and tag.
func standIns(tools string) (map[string]v1.Image, error) {
	plain, err := registry.BusyboxImage(registry.Owner{})
	if err != nil {
		return nil, err
	}
	busybox, err := registry.Extend(plain, func(*v1.Config) {},
		registry.File{Name: "etc/passwd", Body: []byte(passwd)}, registry.File{Name: "etc/group", Body: []byte(group)},
		registry.File{Name: "bin/ipcs", Mode: 0o755, Body: []byte(ipcs)}, registry.File{Name: "bin/pgrep", Mode: 0o755, Body: []byte(pgrep)})
	if err != nil {
		return nil, err
	}
	set := &imageSet{busybox: busybox, images: map[string]v1.Image{"e2e-test-images/busybox:1.29-2": busybox}}
	set.servers(tools)
	for name, user := range map[string]string{
		"test-image-user-uid": "1002", "test-image-user-username": "www-data", "test-image-user-uid-group": "1003:1004",
		"test-image-user-username-group": "www-data:1004", "test-image-predefined-group": "1000",
	} {
		set.user(name, user)
	}
	for _, name := range []string{"test-image-latest:latest", "test-image-tag:test", "test-image-tag:all", "test-image-1:latest", "test-image-2:latest", "test-image-3:latest"} {
		set.marked("k8s-staging-cri-tools/"+name, name)
	}
	for _, tag := range []string{"1", "2", "3"} {
		set.marked("k8s-staging-cri-tools/test-image-tags:"+tag, "tags")
	}
	// One image of two registries.
	set.marked("pause:3.9", "pause")
	return set.images, set.err
}

// imageSet gathers images; err is the first that couldn't be made.
type imageSet struct {
	busybox v1.Image
	images  map[string]v1.Image
	err     error
}

func (s *imageSet) put(ref string, img v1.Image, err error) {
	if err != nil && s.err == nil {
		s.err = fmt.Errorf("%s: %w", ref, err)
	}
	s.images[ref] = img
}

func (s *imageSet) servers(tools string) {
	for ref, port := range map[string]int{
		"e2e-test-images/nginx:1.14-2": 80, "e2e-test-images/httpd:2.4.39-4": 80,
		"k8s-staging-cri-tools/hostnet-nginx-" + runtime.GOARCH + ":latest": 12003,
	} {
		img, err := registry.WebServer(s.busybox, port)
		s.put(ref, img, err)
	}
	img, err := registry.NoNewPrivs(s.busybox, filepath.Join(tools, "nonewprivs"))
	s.put("e2e-test-images/nonewprivs:1.3", img, err)
}

// user is busybox as a user.
func (s *imageSet) user(name, user string) {
	img, err := registry.Extend(s.busybox, func(c *v1.Config) { c.User = user })
	s.put("k8s-staging-cri-tools/"+name+":latest", img, err)
}

// marked is busybox with a file of its own, and so an ID.
func (s *imageSet) marked(ref, mark string) {
	img, err := registry.Extend(s.busybox, func(*v1.Config) {}, registry.File{Name: "mark", Body: []byte(mark)})
	s.put(ref, img, err)
}
