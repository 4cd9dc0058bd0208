//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/moby/sys/mountinfo"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"errand.dev/errand/test/harness"
	"errand.dev/errand/test/registry"
)

// command is a call of the built errand.
type command struct {
	args  []string
	stdin []byte
	env   []string
}

// runErrand runs errand with a data directory that its arguments name.
func runErrand(t *testing.T, args ...string) harness.Result {
	t.Helper()
	return command{args: args}.run(t)
}

func (c command) run(t *testing.T) harness.Result {
	t.Helper()
	return c.runAs(t, filepath.Join(bin, "errand"), nil)
}

// runAs runs a copy of errand, with what edit changes.
func (c command) runAs(t *testing.T, path string, edit func(*exec.Cmd)) harness.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, c.args...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdin = bytes.NewReader(c.stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if edit != nil {
		edit(cmd)
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("errand %s: %v", strings.Join(c.args, " "), err)
	}
	if ctx.Err() != nil {
		t.Fatalf("errand %s hangs; it said:\n%s%s", strings.Join(c.args, " "), &stdout, &stderr)
	}
	return harness.Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
}

// wantResult checks an exit code, and that what was printed has the words.
func wantResult(t *testing.T, r harness.Result, code int, words ...string) {
	t.Helper()
	if r.Code != code {
		t.Errorf("exit code %d, want %d; it printed:\n%s%s", r.Code, code, r.Stdout, r.Stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.Stdout+r.Stderr, w) {
			t.Errorf("it doesn't say %q:\n%s%s", w, r.Stdout, r.Stderr)
		}
	}
}

// Whoever deletes the data directory first and thinks of errand drain then has
// lost nothing but the objects: all else is found by its names.
func TestDrainWithoutTheDataDirectory(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *errand){
		"deleted": func(t *testing.T, e *errand) { removeData(t, e.cfg.DataDir) },
		"deleted, the shim killed": func(t *testing.T, e *errand) {
			removeData(t, e.cfg.DataDir)
			killShim(t, e)
		},
		"deleted and made anew": func(t *testing.T, e *errand) {
			removeData(t, e.cfg.DataDir)
			wantResult(t, runErrand(t, "image", "pull", "busybox", "--data-dir", e.cfg.DataDir, "--registries-conf", registriesConf), 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t)
			e.apply(job("sleeper", "sleep 3600"))
			e.wait("jsonpath={.status.ready}=1", "job/sleeper")

			// As long as errand serve runs, nothing is taken from under it.
			if name == "deleted" {
				aside := e.cfg.DataDir + ".aside"
				if err := os.Rename(e.cfg.DataDir, aside); err != nil {
					t.Fatal(err)
				}
				wantResult(t, runErrand(t, "drain", "--data-dir", e.cfg.DataDir), 1, "still runs")
				if err := os.Rename(aside, e.cfg.DataDir); err != nil {
					t.Fatal(err)
				}
			}

			if err := e.Kill(); err != nil {
				t.Fatal(err)
			}
			end(t, e)
			r := runErrand(t, "drain", "--data-dir", e.cfg.DataDir)
			wantResult(t, r, 0)
			names, err := e.Names()
			if err != nil {
				t.Fatal(err)
			}
			if name == "deleted" {
				wantResult(t, r, 0, "its errand left: errand-shim; ", "processes in the cgroup "+names.CgroupParent, names.Bridge, names.NFTable, names.RuntimeDir)
			}
			if name != "deleted and made anew" {
				wantResult(t, runErrand(t, "drain", "--data-dir", e.cfg.DataDir), 1, "there is no errand at "+e.cfg.DataDir)
			}
			e.Errand = nil // nothing to end any more; that nothing is left is checked by start
		})
	}
}

// removeData deletes a data directory as a user would, but for what is mounted
// there.
func removeData(t *testing.T, dir string) {
	t.Helper()
	out, err := exec.Command("rm", "-rf", "--one-file-system", dir).CombinedOutput()
	if err != nil {
		t.Logf("rm -rf: %v\n%s", err, out)
	}
}

func killShim(t *testing.T, e *errand) {
	t.Helper()
	pid, err := e.ShimPID()
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("kill", "-9", strconv.Itoa(pid)).Run(); err != nil {
		t.Fatal(err)
	}
}

// The image commands do the same whether errand serve does the work or the
// store is opened directly.
// A drained data directory can be removed without the removal coming upon the
// user's own files, which a subPath mounts below it.
func TestDrainTakesVolumesDown(t *testing.T) {
	e := start(t)
	host := t.TempDir()
	precious := filepath.Join(host, "sub", "precious")
	if err := os.MkdirAll(filepath.Dir(precious), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(precious, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.apply(job("holds", "sleep 3600") + fmt.Sprintf(`        volumeMounts: [{name: host, mountPath: /host, subPath: sub}]
      volumes: [{name: host, hostPath: {path: %s}}]
`, host))
	e.wait("jsonpath={.status.ready}=1", "job/holds")
	wantLines(t, e.kubectl("exec", "job/holds", "--", "cat", "/host/precious"), "kept")
	mounted := func() int {
		list, err := mountinfo.GetMounts(mountinfo.PrefixFilter(e.cfg.DataDir))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if _, err := e.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if mounted() == 0 {
		t.Error("nothing is mounted in the data directory: what does this test show?")
	}
	if err := e.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := mounted(); n > 0 {
		t.Errorf("%d mounts are left in the data directory", n)
	}
	if err := os.RemoveAll(e.cfg.DataDir); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(precious); err != nil || string(b) != "kept" {
		t.Errorf("the user's file holds %q, %v", b, err)
	}
	e.Errand = nil // nothing to end
}

// On a terminal, a pull shows how far it is in one line, and takes it off at the end.
func TestPullOnATerminal(t *testing.T) {
	big, err := registry.Big(registry.Owner{}, 1, 1_500_000)
	if err != nil {
		t.Fatal(err)
	}
	if err := images.Push("library/watched:1", big); err != nil {
		t.Fatal(err)
	}
	images.AddFault(func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/watched/blobs/") }, registry.Always, registry.Slow(1_000_000))
	t.Cleanup(images.ClearFaults)
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "errand"), "image", "pull", "watched:1",
		"--data-dir", filepath.Join(shortDir(t), "data"), "--registries-conf", registriesConf)
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	shown, _ := io.ReadAll(terminal) // it ends with an error when the terminal hangs up
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %q", err, shown)
	}
	line, rest, _ := strings.Cut(string(shown), "\n")
	steps := strings.Split(line, "\r")
	var amounts []string
	for _, step := range steps {
		if _, amount, ok := strings.Cut(step, "pulling watched:1: "); ok {
			amounts = append(amounts, strings.TrimSpace(amount))
		}
	}
	amounts = slices.Compact(amounts)
	if len(amounts) < 3 || amounts[len(amounts)-1] != "1.5 MB of 1.5 MB" {
		t.Errorf("shown are %q, want several amounts up to the whole", amounts)
	}
	// Before the result the line is blank again.
	if rest != "" || len(steps) < 3 || steps[len(steps)-2] != "pulled docker.io/library/watched:1" || strings.TrimSpace(steps[len(steps)-3]) != "" {
		t.Errorf("it ends with %q", steps[max(0, len(steps)-4):])
	}
}

func TestImageCommands(t *testing.T) {
	slow, err := registry.Big(registry.Owner{}, 2, 1_500_000)
	if err != nil {
		t.Fatal(err)
	}
	if err := images.Push("library/slow:1", slow); err != nil {
		t.Fatal(err)
	}
	images.AddFault(func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/slow/blobs/") }, registry.Always, registry.Slow(700_000))
	for name, serving := range map[string]bool{"with errand serve": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			dataDir := filepath.Join(shortDir(t), "data")
			if serving {
				startIn(t, dataDir)
			}
			image := func(args ...string) harness.Result {
				t.Helper()
				return runErrand(t, append([]string{"image", "--data-dir", dataDir, "--registries-conf", registriesConf}, args...)...)
			}
			archives := t.TempDir()
			oci, docker := filepath.Join(archives, "oci.tar"), filepath.Join(archives, "docker.tar")
			writeOCIArchive(t, oci, "docker.io/library/from-oci:1")
			writeDockerArchive(t, docker, "docker.io/library/from-docker:1")

			r := image("load", oci, docker)
			wantResult(t, r, 0, "unpacking docker.io/library/from-oci:1")
			if want := "loaded docker.io/library/from-oci:1\nloaded docker.io/library/from-docker:1\n"; r.Stdout != want {
				t.Errorf("load printed %q, want %q", r.Stdout, want)
			}
			r = image("pull", "slow:1", "busybox")
			wantResult(t, r, 0, "pulling slow:1\npulling slow:1: ", " MB of 3.0 MB\n", "pulling busybox\n")
			if want := "pulled docker.io/library/slow:1\npulled docker.io/library/busybox:latest\n"; r.Stdout != want {
				t.Errorf("pull printed %q, want %q", r.Stdout, want)
			}
			wantResult(t, image("list"), 0, "IMAGE", "PULLED", "docker.io/library/from-oci:1")

			want := []string{"docker.io/library/busybox:latest", "docker.io/library/from-docker:1", "docker.io/library/slow:1", "docker.io/library/from-oci:1"}
			slices.Sort(want)
			if got := tagsIn(t, image("list", "-o", "json")); !slices.Equal(got, want) {
				t.Errorf("list -o json has %q, want %q", got, want)
			}
			wantResult(t, image("rm", "from-oci:1"), 0, "removed from-oci:1")
			wantResult(t, image("rm", "from-oci:1"), 1, "from-oci:1", "not found")
			if got := tagsIn(t, image("list", "-o", "json")); slices.Contains(got, "docker.io/library/from-oci:1") || len(got) != len(want)-1 {
				t.Errorf("after rm, list -o json has %q, before it had %q", got, want)
			}
			wantResult(t, image("pull", "no-such-image"), 1, "no-such-image", "not found")
			wantResult(t, image("load", filepath.Join(archives, "missing.tar")), 1, "read the archive", "missing.tar")
			r = command{args: []string{"image", "load", "-", "--data-dir", dataDir}, stdin: []byte("no archive")}.run(t)
			wantResult(t, r, 1, "load -: ")
		})
	}
}

// tagsIn are the names in the JSON that image list printed, sorted.
func tagsIn(t *testing.T, r harness.Result) []string {
	t.Helper()
	var list []struct {
		ID       string   `json:"id"`
		RepoTags []string `json:"repoTags"`
		Size     int64    `json:"size"`
	}
	if err := json.Unmarshal([]byte(r.Stdout), &list); err != nil {
		t.Fatalf("image list -o json: %v\n%s%s", err, r.Stdout, r.Stderr)
	}
	var tags []string
	for _, img := range list {
		if !strings.HasPrefix(img.ID, "sha256:") || img.Size <= 0 {
			t.Errorf("incomplete image %+v", img)
		}
		tags = append(tags, img.RepoTags...)
	}
	slices.Sort(tags)
	return tags
}

func smallImage(t *testing.T, text string) v1.Image {
	t.Helper()
	img, err := registry.Small(registry.Owner{}, text)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// writeOCIArchive writes an image as podman save --format oci-archive does.
func writeOCIArchive(t *testing.T, path, ref string) {
	t.Helper()
	dir := t.TempDir()
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.AppendImage(smallImage(t, ref), layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": ref})); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-cf", path, "-C", dir, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
}

// writeDockerArchive writes an image as docker save does.
func writeDockerArchive(t *testing.T, path, ref string) {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(path, tag, smallImage(t, ref)); err != nil {
		t.Fatal(err)
	}
}

// shortDir is a folder whose paths are short enough for sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Who can't have the image store hears why.
func TestWhoHoldsTheImages(t *testing.T) {
	t.Run("nobody has been there", func(t *testing.T) {
		typo := filepath.Join(t.TempDir(), "typo")
		for _, args := range [][]string{{"image", "list"}, {"image", "rm", "x"}, {"drain"}} {
			wantResult(t, runErrand(t, append(args, "--data-dir", typo)...), 1, "there is no errand at "+typo)
		}
		if _, err := os.Stat(typo); err == nil {
			t.Error("they made the directory")
		}
	})
	t.Run("an errand serve without a node", func(t *testing.T) {
		e := start(t, "--node=false")
		wantResult(t, runErrand(t, "image", "list", "--data-dir", e.cfg.DataDir), 1,
			"held by process "+strconv.Itoa(e.PID())+" (errand serve)", "--node=false")
	})
	t.Run("another image command", func(t *testing.T) {
		dataDir := filepath.Join(shortDir(t), "data")
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		// It waits for its archive.
		load := exec.CommandContext(ctx, filepath.Join(bin, "errand"), "image", "load", "-", "--data-dir", dataDir)
		stdin, err := load.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stderr, err := load.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := load.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(stderr).ReadString('\n'); line != "reading the archive\n" {
			t.Errorf("it began with %q, %v", line, err)
		}
		who := "process " + strconv.Itoa(load.Process.Pid) + " (errand image load)"
		wantResult(t, runErrand(t, "image", "list", "--data-dir", dataDir), 1, "held by "+who, "wait for its end")
		wantResult(t, runErrand(t, "serve", "--listen", "127.0.0.1:0", "--data-dir", dataDir), 1, "held by "+who)
		stdin.Close()
		if err := load.Wait(); err == nil {
			t.Error("nothing was loaded, without a word")
		}
	})
}

func TestDoctorHere(t *testing.T) {
	e := start(t)
	names, err := e.Names()
	if err != nil {
		t.Fatal(err)
	}
	listen := strings.TrimPrefix(e.server(), "https://")
	args := []string{"doctor", "--data-dir", e.cfg.DataDir, "--listen", listen}
	r := runErrand(t, args...)
	wantResult(t, r, 0, "privileges", "pod network", "bridge, veth and nftables work",
		"held by process "+strconv.Itoa(e.PID())+" (errand serve)", listen+" is in use by the running errand")
	if strings.Contains(r.Stdout, "FAIL") {
		t.Errorf("errand runs here, but the doctor says:\n%s", r.Stdout)
	}
	var found []struct{ Check, Status, Detail, Remedy string }
	r = runErrand(t, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(r.Stdout), &found); err != nil || len(found) < 10 {
		t.Errorf("doctor -o json: %v\n%s", err, r.Stdout)
	}
	// What it tried leaves the running errand its bridge.
	if _, err := os.Stat("/sys/class/net/" + names.Bridge); err != nil {
		t.Error(err)
	}
	// Somebody else's port is named as theirs.
	wantResult(t, runErrand(t, "doctor", "--data-dir", filepath.Join(t.TempDir(), "other"), "--listen", listen), 1,
		"FAIL", listen+" is taken by errand (pid "+strconv.Itoa(e.PID())+")")
}

// server is the URL in the kubeconfig.
func (e *errand) server() string {
	e.t.Helper()
	cfg, err := clientcmd.LoadFromFile(e.Kubeconfig())
	if err != nil {
		e.t.Fatal(err)
	}
	return cfg.Clusters["errand"].Server
}

func TestVersionAndCompletion(t *testing.T) {
	var info struct{ Version, Kubernetes, Go, Platform string }
	r := runErrand(t, "version", "-o", "json")
	if err := json.Unmarshal([]byte(r.Stdout), &info); err != nil || info.Version == "" || !strings.HasPrefix(info.Kubernetes, "v1.") || info.Go == "" || info.Platform == "" {
		t.Errorf("version -o json: %v\n%s", err, r.Stdout)
	}
	r = runErrand(t, "completion", "bash")
	wantResult(t, r, 0, "__start_errand")
	bash := exec.Command("bash", "-n")
	bash.Stdin = strings.NewReader(r.Stdout)
	if out, err := bash.CombinedOutput(); err != nil {
		t.Errorf("bash doesn't read it: %v\n%s", err, out)
	}
}

func TestErrandKubectl(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	e := start(t, "--node=false", "--kubeconfig", elsewhere)
	env := []string{"ERRAND_DATA_DIR=" + e.cfg.DataDir}
	t.Run("serve --kubeconfig elsewhere", func(t *testing.T) {
		wantResult(t, command{args: []string{"kubectl", "get", "namespaces", "default"}, env: env}.run(t), 0, "default   Active")
		wantResult(t, command{args: []string{"kubectl", "version", "--kubeconfig", elsewhere}, env: env}.run(t), 0, "Server Version")
	})
	t.Run("completion asks the API", func(t *testing.T) {
		wantResult(t, command{args: []string{"__complete", "kubectl", "get", "namespace", "kube-s"}, env: env}.run(t), 0, "kube-system")
	})
	t.Run("the first Ctrl-C ends it", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		proxy := exec.CommandContext(ctx, filepath.Join(bin, "errand"), "kubectl", "proxy", "--port=0")
		proxy.Env = append(os.Environ(), env...)
		stdout, err := proxy.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := proxy.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
			t.Errorf("it said %q, %v", line, err)
		}
		if err := proxy.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		err = proxy.Wait()
		if ctx.Err() != nil || !proxy.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
			t.Errorf("it ended with %v (%v)", err, ctx.Err())
		}
	})
}

func TestKubeconfigMerge(t *testing.T) {
	e := start(t, "--node=false")
	dir := t.TempDir()
	theirs := clientcmdapi.NewConfig()
	theirs.Clusters["work"] = &clientcmdapi.Cluster{Server: "https://work"}
	theirs.Contexts["work"] = &clientcmdapi.Context{Cluster: "work"}
	theirs.CurrentContext = "work"
	plain, target := filepath.Join(dir, "plain"), filepath.Join(dir, "target")
	for _, path := range []string{plain, target} {
		if err := clientcmd.WriteToFile(*theirs, path); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, 1234, 1234); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	for into, written := range map[string]string{plain: plain, link: target} {
		r := command{args: []string{"kubeconfig", "--merge", "--into", into, "--data-dir", e.cfg.DataDir}, env: []string{"SUDO_UID=4321", "SUDO_GID=4321"}}.run(t)
		wantResult(t, r, 0, "Merged into "+into)
		cfg, err := clientcmd.LoadFromFile(written)
		if err != nil {
			t.Fatal(err)
		}
		if cfg.CurrentContext != "work" || cfg.Contexts["work"] == nil || cfg.Clusters["errand"] == nil || cfg.Clusters["errand"].Server != e.server() {
			t.Errorf("%s: merged %+v", into, cfg)
		}
		wantOwner(t, written, 1234)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info.Mode(), err)
	}
	made := filepath.Join(dir, "new", "config")
	r := command{args: []string{"kubeconfig", "--merge", "--into", made, "--data-dir", e.cfg.DataDir}, env: []string{"SUDO_UID=4321", "SUDO_GID=4321"}}.run(t)
	wantResult(t, r, 0)
	wantOwner(t, made, 4321)
	wantOwner(t, filepath.Dir(made), 4321)
}

func wantOwner(t *testing.T, path string, uid uint32) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Sys().(*syscall.Stat_t).Uid; got != uid {
		t.Errorf("%s belongs to user %d, want %d", path, got, uid)
	}
}

// Who isn't root hears what to do about it.
func TestWithoutRoot(t *testing.T) {
	e := start(t, "--node=false")
	// bin may stand where others can't look.
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "errand")
	if out, err := exec.Command("cp", filepath.Join(bin, "errand"), program).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	nobody := func(cmd *exec.Cmd) {
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	// Only root may look into this errand's folder, or write there.
	if err := os.Chmod(filepath.Dir(e.cfg.DataDir), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args  []string
		words []string
	}{
		{[]string{"serve"}, []string{"running pods needs root", "sudo errand serve", "--node=false"}},
		{[]string{"serve", "--node=false"}, []string{"permission denied", "run this with sudo, or give it a --data-dir of your own"}},
		{[]string{"serve", "--node=false", "--data-dir", dir + "/new"}, []string{"permission denied", "run this with sudo, or give it a --data-dir of your own"}},
		{[]string{"drain"}, []string{"run this with sudo"}},
		{[]string{"image", "list"}, []string{"run this with sudo"}},
		{[]string{"image", "pull", "busybox"}, []string{"run this with sudo"}},
		{[]string{"kubectl", "get", "jobs"}, []string{"is its owner's alone", "sudo"}},
		{[]string{"wait", "job/x"}, []string{"is its owner's alone", "sudo"}},
		{[]string{"kubeconfig"}, []string{"is its owner's alone", "sudo"}},
		{[]string{"doctor"}, []string{"FAIL", "privileges", "run it as root"}},
	} {
		r := command{args: tc.args, env: []string{"ERRAND_DATA_DIR=" + e.cfg.DataDir, "HOME=/"}}.runAs(t, program, nobody)
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) { wantResult(t, r, 1, tc.words...) })
	}
}
