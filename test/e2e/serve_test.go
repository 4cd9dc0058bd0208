//go:build e2e

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"errand.dev/errand/internal/leakcheck"
	"errand.dev/errand/test/registry"
)

// What errand serve says where it can't start.
func TestServeRefuses(t *testing.T) {
	serve := func(t *testing.T, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "errand"), append([]string{"serve"}, args...)...).CombinedOutput()
		if err == nil {
			t.Fatalf("errand serve %s ended without an error:\n%s", strings.Join(args, " "), out)
		}
		return string(out)
	}
	want := func(t *testing.T, out string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("it does not say %q:\n%s", w, out)
			}
		}
	}

	t.Run("a data directory in use", func(t *testing.T) {
		e := start(t, "--node=false")
		want(t, serve(t, "--data-dir", e.cfg.DataDir, "--node=false"), e.cfg.DataDir, fmt.Sprintf("process %d", e.PID()))
	})

	t.Run("a port in use", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		dir := t.TempDir()
		leakcheck.Check(t, dir)
		want(t, serve(t, "--data-dir", dir, "--listen", l.Addr().String()), l.Addr().String(), "in use", "--listen")
	})

	t.Run("images that can't be kept", func(t *testing.T) {
		dir := shortDir(t)
		leakcheck.Check(t, dir)
		path := filepath.Join(dir, "images")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		want(t, serve(t, "--data-dir", dir, "--listen", "127.0.0.1:0"), path)
	})

	t.Run("a data directory of a newer errand", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "format"), []byte("99\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		want(t, serve(t, "--data-dir", dir, "--node=false"), "newer errand", "99")
	})

	t.Run("a configuration with an unknown field", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "errand.yaml")
		if err := os.WriteFile(path, []byte("node: false\nlissen: x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		want(t, serve(t, "--config", path), path, "line 2", "lissen")
	})

	t.Run("flags that are wrong", func(t *testing.T) {
		want(t, serve(t, "--listen", "nowhere", "--max-pods", "0"), "--listen", "--max-pods")
	})
}

// A stop is clean and quick, by a service manager or by Ctrl-C; containers go
// on, and the next start finds everything.
func TestStopAndStart(t *testing.T) {
	e := start(t)
	g := newGate(t)
	e.apply(job("goes-on", passGate+"; echo survived") + g.mount())
	e.wait("jsonpath={.status.ready}=1", "job/goes-on")
	pod := e.pods("goes-on")[0].Name

	for _, sig := range []os.Signal{unix.SIGTERM, unix.SIGINT} {
		took, err := e.StopBy(t.Context(), sig)
		if err != nil {
			t.Fatal(err)
		}
		if took > 2*time.Second {
			t.Errorf("it took %s to stop by signal %s", took, sig)
		}
		if sig == unix.SIGINT {
			g.open(1) // while no errand serve is there to see it
		}
		e.start()
	}
	e.wait("condition=complete", "job/goes-on")
	wantLines(t, e.kubectl("logs", pod), "survived")
	if restarts := e.kubectl("get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].restartCount}"); restarts != "0" {
		t.Errorf("the container was restarted %s times", restarts)
	}
}

// Without a node of its own errand serve makes a Job's pods and leaves them to
// whoever has one.
func TestWithoutNode(t *testing.T) {
	e := start(t, "--node=false")
	e.apply(job("elsewhere", "true", "completions: 2", "parallelism: 2"))
	e.until("elsewhere", func(j *batchv1.Job) bool { return j.Status.Active == 2 })
	if r := e.try("", "get", "nodes"); r.Stderr != "No resources found\n" {
		t.Errorf("there is a node:\n%s%s", r.Stdout, r.Stderr)
	}
	if pid, err := e.ShimPID(); err == nil {
		t.Errorf("errand-shim runs as process %d", pid)
	}

	// One pod is taken by a node of the test's; the other stays as it was.
	pods := e.pods("elsewhere")
	e.kubectlIn("apiVersion: v1\nkind: Node\nmetadata: {name: mine}\n", "create", "-f", "-")
	binding := &v1.Binding{ObjectMeta: metav1.ObjectMeta{Name: pods[0].Name}, Target: v1.ObjectReference{Kind: "Node", Name: "mine"}}
	if err := e.client.CoreV1().Pods("default").Bind(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	e.kubectl("patch", "pod", pods[0].Name, "--subresource=status", "--patch", `{"status":{"phase":"Succeeded"}}`)
	e.until("elsewhere", func(j *batchv1.Job) bool { return j.Status.Succeeded == 1 && j.Status.Active == 1 })
	wantLines(t, e.kubectl("get", "pod", pods[1].Name, "-o", "wide", "--no-headers"), pods[1].Name+" 0/1 Pending 0 <age> <none> <none> <none> <none>")
}

// Nobody on the network can reach what errand listens on, the API, the store
// and the node included. Pods can reach the server of names, at the address that
// the bridge gives them as their gateway, and the API, where it takes only what
// comes by the bridge.
func TestListensOnLoopbackOnly(t *testing.T) {
	e := start(t)
	e.apply(job("served", "sleep 3600"))
	e.wait("jsonpath={.status.ready}=1", "job/served")
	shim, err := e.ShimPID()
	if err != nil {
		t.Fatal(err)
	}
	listening := 0
	for _, pid := range []int{e.PID(), shim} {
		addresses, err := listeners(pid)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addresses {
			listening++
			names := pid == e.PID() && a == netip.AddrPortFrom(gateway(t, e), 53)
			if !a.Addr().IsLoopback() && !names && !onBridgeOnly(t, e, a) {
				t.Errorf("process %d listens on %s", pid, a)
			}
		}
	}
	if listening == 0 {
		t.Error("no listening socket was found, not even the API's")
	}
}

// onBridgeOnly says whether the socket that listens there takes only what comes
// by errand's bridge.
func onBridgeOnly(t *testing.T, e *errand, at netip.AddrPort) bool {
	t.Helper()
	names, err := e.Names()
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := net.InterfaceByName(names.Bridge)
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := netlink.SocketDiagTCP(unix.AF_INET)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		t.Fatal(err)
	}
	return slices.ContainsFunc(sockets, func(s *netlink.Socket) bool {
		return s.State == netlink.TCP_LISTEN && s.ID.Source.Equal(at.Addr().AsSlice()) && s.ID.SourcePort == at.Port() &&
			s.ID.Interface == uint32(bridge.Index)
	})
}

// gateway is the first address of the pods' range, which the bridge has.
func gateway(t *testing.T, e *errand) netip.Addr {
	t.Helper()
	nodes, err := e.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 {
		t.Fatal(len(nodes.Items), err)
	}
	return netip.MustParsePrefix(nodes.Items[0].Spec.PodCIDR).Addr().Next()
}

// Whoever reads errand's log may go, as in errand serve 2>&1 | head.
func TestLogReaderGoes(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	leakcheck.Check(t, dir)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	serve := exec.CommandContext(t.Context(), filepath.Join(bin, "errand"), "serve", "--node=false", "--listen", "127.0.0.1:0", "--data-dir", dir, "-v", "6")
	serve.Stderr = w
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve.Wait() }()
	w.Close()
	for lines := bufio.NewScanner(r); lines.Scan() && !strings.Contains(lines.Text(), "KUBECONFIG="); {
	}
	r.Close()
	for range 3 { // each is logged
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "kubectl"), "--kubeconfig", filepath.Join(dir, "kubeconfig"), "get", "namespaces").CombinedOutput()
		if err != nil {
			t.Errorf("kubectl: %v\n%s", err, out)
		}
	}
	if err := serve.Process.Signal(unix.SIGTERM); err != nil {
		t.Errorf("errand serve has ended: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("errand serve ended with %v", err)
	}
}

// An etcd log whose last write was cut off by a power loss.
func TestTruncatedWAL(t *testing.T) {
	e := start(t, "--node=false")
	e.apply(job("kept", "true", "suspend: true"))
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(e.cfg.DataDir, "etcd", "member", "wal", "*.wal"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("no log segments: %v", err)
	}
	last := segments[len(segments)-1]
	if err := tearTail(last); err != nil {
		t.Fatal(err)
	}
	e.start()
	wantLines(t, e.kubectl("get", "job", "kept", "-o", "name"), "job.batch/kept")
}

// tearTail cuts a log off in the middle of its last record. Behind the records
// a log is preallocated with zeros.
func tearTail(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	end := len(b)
	for end > 0 && b[end-1] == 0 {
		end--
	}
	return os.Truncate(path, int64(end-3))
}

// A data directory on a file system that fills up: the store lives on what it
// reserved, a pod's events say what is wrong, and with room again everything
// goes on. The log's segments of 64 MiB, one in use and one ahead, need room.
func TestNoSpaceLeft(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=192m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	e := startIn(t, filepath.Join(dir, "data"), "--eviction-hard=") // or the pod would be evicted
	filler := filepath.Join(dir, "filler")
	fill(t, filler)
	e.kubectl("run", "nospace", "--image=busybox:latest", "--restart=Never", "--", "true")
	e.wait(`jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff`, "pod/nospace")
	if out := e.kubectl("describe", "pod", "nospace"); !strings.Contains(out, "no space left on device") {
		t.Errorf("kubectl describe does not say what is wrong:\n%s", out)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	e.wait("jsonpath={.status.phase}=Succeeded", "pod/nospace")
}

// fill takes all but a little of a file system: etcd's log is preallocated, and
// goes on for a while; an image has no room.
func fill(t *testing.T, path string) {
	t.Helper()
	var s unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &s); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(s.Bavail)*s.Bsize-(256<<10)); err != nil {
		t.Fatal(err)
	}
}

// A kubeconfig of another errand is refused, not taken.
func TestWrongKubeconfig(t *testing.T) {
	one, other := start(t, "--node=false"), start(t, "--node=false")
	stolen, err := os.ReadFile(one.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile(other.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	mixed := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(mixed, []byte(withServerOf(string(stolen), string(theirs))), 0o600); err != nil {
		t.Fatal(err)
	}
	msg := other.refused("", "--kubeconfig", mixed, "get", "jobs")
	if !strings.Contains(msg, "x509") && !strings.Contains(msg, "certificate") {
		t.Errorf("kubectl says:\n%s", msg)
	}
	msg = other.refused("", "--kubeconfig", mixed, "--insecure-skip-tls-verify", "get", "jobs")
	if !strings.Contains(msg, "Unauthorized") && !strings.Contains(msg, "must be logged in") {
		t.Errorf("a certificate of another CA: kubectl says:\n%s", msg)
	}
}

func withServerOf(kubeconfig, other string) string {
	line := func(s string) string {
		for l := range strings.Lines(s) {
			if strings.Contains(l, "server:") {
				return l
			}
		}
		return ""
	}
	return strings.Replace(kubeconfig, line(kubeconfig), line(other), 1)
}

// A layer of some kilobytes that unpacks to more than the disk holds fills it,
// and that is all: the API goes on, nothing of the image is left, and the next
// pod finds the room that there was.
func TestZipBomb(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	layer, err := registry.Layer(registry.Owner{}, registry.File{Name: "zeros", Body: make([]byte, 256<<20)})
	if err != nil {
		t.Fatal(err)
	}
	bomb, err := registry.ImageOf("", nil, layer)
	if err != nil {
		t.Fatal(err)
	}
	if err := images.Push("library/zipbomb:latest", bomb); err != nil {
		t.Fatal(err)
	}
	e := startIn(t, filepath.Join(dir, "data"))
	free := func() uint64 {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		return st.Bfree * uint64(st.Bsize)
	}
	before := free()
	e.kubectl("run", "zipbomb", "--image=zipbomb:latest", "--restart=Never", "--", "true")
	e.wait(`jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff`, "pod/zipbomb")
	if out := e.kubectl("describe", "pod", "zipbomb"); !strings.Contains(out, "no space left on device") {
		t.Errorf("kubectl describe does not say what is wrong:\n%s", out)
	}
	e.kubectl("delete", "pod", "zipbomb")
	// The objects' store may have grown meanwhile.
	if after := free(); after+16<<20 < before {
		t.Errorf("of %d MiB there are %d left", before>>20, after>>20)
	}
	e.runPod("after", `
  containers: [{name: work, image: "busybox:latest", command: ["true"]}]
`)
}
