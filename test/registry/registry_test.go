package registry

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve starts a registry with busybox and returns it with the image for this machine.
func serve(t *testing.T, opts Options) (*Server, v1.Image) {
	t.Helper()
	s, err := Start(opts)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	idx, err := Busybox(Owner{})
	must(t, err)
	must(t, s.Push("library/busybox:latest", idx))
	ref, err := name.ParseReference(s.Addr()+"/library/busybox", name.Insecure)
	must(t, err)
	img, err := remote.Image(ref, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}))
	must(t, err)
	return s, img
}

func TestBusybox(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		_, img := serve(t, Options{Dir: dir})
		must(t, validate.Image(img))
		layers, err := img.Layers()
		must(t, err)
		rc, err := layers[0].Uncompressed()
		must(t, err)
		names := map[string]*tar.Header{}
		for r := tar.NewReader(rc); ; {
			hdr, err := r.Next()
			if err == io.EOF {
				break
			}
			must(t, err)
			names[hdr.Name] = hdr
		}
		must(t, rc.Close())
		for _, want := range []string{"bin/sh", "bin/echo", "bin/sleep", "bin/busybox", "etc/passwd", "tmp/"} {
			if names[want] == nil {
				t.Errorf("%s is missing", want)
			}
		}
		// Unpacking a hard link sets the mode of what it links to: every applet's must be right.
		for name, hdr := range names {
			if strings.HasPrefix(name, "bin/") && hdr.Mode&0o111 != 0o111 {
				t.Errorf("%s has mode %o", name, hdr.Mode)
			}
		}
	}
}

func TestSameInputSameDigest(t *testing.T) {
	var digests []v1.Hash
	for range 2 {
		idx, err := Busybox(Owner{})
		must(t, err)
		d, err := idx.Digest()
		must(t, err)
		digests = append(digests, d)
	}
	if digests[0] != digests[1] {
		t.Errorf("digests differ: %v", digests)
	}
}

func TestOnlyLoopback(t *testing.T) {
	if s, err := Start(Options{Listen: "0.0.0.0:0"}); err == nil {
		must(t, s.Close())
		t.Error("served the network")
	}
}

func TestRange(t *testing.T) {
	s, img := serve(t, Options{})
	layers, err := img.Layers()
	must(t, err)
	digest, err := layers[0].Digest()
	must(t, err)
	size, err := layers[0].Size()
	must(t, err)
	req, err := http.NewRequest(http.MethodGet, "http://"+s.Addr()+"/v2/library/busybox/blobs/"+digest.String(), nil)
	must(t, err)
	req.Header.Set("Range", "bytes=1000-")
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	must(t, err)
	if resp.StatusCode != http.StatusPartialContent || n != size-1000 {
		t.Errorf("status %d, %d bytes of %d", resp.StatusCode, n, size)
	}
}

// get fetches the first layer and returns how many bytes came, the first that differs from the truth (-1: none) and the error.
func get(t *testing.T, s *Server, img v1.Image) (n, differs int, err error) {
	t.Helper()
	layers, err := img.Layers()
	must(t, err)
	digest, err := layers[0].Digest()
	must(t, err)
	rc, err := layers[0].Compressed()
	must(t, err)
	truth, err := io.ReadAll(rc)
	must(t, err)
	resp, err := http.Get("http://" + s.Addr() + "/v2/x/blobs/" + digest.String())
	if err != nil {
		return 0, -1, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	for i, b := range body {
		if b != truth[i] {
			return len(body), i, err
		}
	}
	return len(body), -1, err
}

func TestFaults(t *testing.T) {
	s, err := Start(Options{})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	img, err := Big(Owner{}, 1, 100_000)
	must(t, err)
	must(t, s.Push("x:1", img))

	s.AddFault(Blob(""), 1, Corrupt(777))
	if _, differs, err := get(t, s, img); err != nil || differs != 777 {
		t.Errorf("corrupt: byte %d, %v", differs, err)
	}
	if n, differs, err := get(t, s, img); err != nil || differs != -1 || n < 100_000 {
		t.Errorf("after the fault: %d bytes, byte %d, %v", n, differs, err)
	}
	s.AddFault(Blob(""), 1, Reset(5000))
	if n, _, err := get(t, s, img); n > 5000 || !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("reset: %d bytes, %v", n, err)
	}
	s.AddFault(Any, 1, Status(http.StatusTeapot))
	resp, err := http.Get("http://" + s.Addr() + "/v2/")
	must(t, err)
	must(t, resp.Body.Close())
	if resp.StatusCode != http.StatusTeapot {
		t.Errorf("status: %s", resp.Status)
	}
	if got := s.Count("GET", "/blobs/"); got != 3 {
		t.Errorf("%d blobs counted", got)
	}
}

func TestRegistriesConf(t *testing.T) {
	s, _ := serve(t, Options{})
	path := filepath.Join(t.TempDir(), "new", "registries.conf")
	must(t, s.WriteRegistriesConf(path))
	conf, err := os.ReadFile(path)
	must(t, err)
	if !strings.Contains(string(conf), s.Addr()) || !strings.Contains(string(conf), `prefix = "docker.io"`) {
		t.Errorf("%s", conf)
	}
	must(t, s.WriteRegistriesConf(path, "a.example", "b.example"))
	conf, err = os.ReadFile(path)
	must(t, err)
	if n := strings.Count(string(conf), fmt.Sprintf("location = %q", s.Addr())); n != 2 || strings.Contains(string(conf), "docker.io") {
		t.Errorf("for two other hosts:\n%s", conf)
	}
}
