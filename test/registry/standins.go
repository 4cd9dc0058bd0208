package registry

import (
	"fmt"
	"os"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// Stand-ins for the images that upstream's suites of tests name. docs/conformance.md says of each suite what stands in for what.

// Extend makes an image of another, with files in one more layer and settings of its own.
func Extend(base v1.Image, edit func(*v1.Config), files ...File) (v1.Image, error) {
	img := base
	if len(files) > 0 {
		layer, err := Layer(Owner{}, files...)
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(base, layer); err != nil {
			return nil, fmt.Errorf("make an image: %w", err)
		}
	}
	conf, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("make an image: %w", err)
	}
	edited := *conf.Config.DeepCopy()
	edit(&edited)
	return mutate.Config(img, edited)
}

// master is a script by which busybox' httpd looks like nginx to those who ask for its processes: one of that name, whose command
// line has the words "master process" and whose PID stands in a file. Its second argument is the port.
const master = `#!/bin/sh
trap 'exit 0' TERM INT QUIT
echo $$ > /var/run/nginx.pid
echo "httpd serves port $2"
httpd -f -p "$2" -h /usr/share/nginx/html &
wait
`

// WebServer serves one page, by busybox' httpd: it stands in for nginx and for Apache's httpd.
func WebServer(busybox v1.Image, port int) (v1.Image, error) {
	return Extend(busybox, func(c *v1.Config) { c.Cmd = []string{"/usr/sbin/nginx", "master process", strconv.Itoa(port)} },
		File{Name: "usr/sbin/nginx", Mode: 0o755, Body: []byte(master)},
		File{Name: "var/run/"},
		File{Name: "usr/share/nginx/html/index.html", Body: []byte("<h1>Welcome to nginx!</h1>\n")})
}

// NoNewPrivs is what upstream's image nonewprivs is: a program, set-user-ID and compiled already, that prints whom it runs as.
func NoNewPrivs(busybox v1.Image, program string) (v1.Image, error) {
	bin, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	return Extend(busybox, func(c *v1.Config) { c.Cmd = []string{"nnp"} }, File{Name: "usr/local/bin/nnp", Mode: 0o6755, Body: bin})
}
