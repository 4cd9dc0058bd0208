//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"errand.dev/errand/test/harness"
)

// What goes through a pod's streams: commands, files, a terminal, ports.
func TestStreams(t *testing.T) {
	e := start(t)
	e.applyPod("streams", `
  containers:
  - {name: work, image: "busybox:latest", command: [sh, -c, "mkdir /www; echo page > /www/page; exec httpd -f -p 8080 -h /www"]}
  - {name: terminal, image: "busybox:latest", command: [sh], stdin: true, tty: true}
`)
	e.wait("condition=Ready", "pod/streams")

	t.Run("exec", func(t *testing.T) {
		r := e.with(t).try("from the client\n", "exec", "-i", "streams", "-c", "work", "--", "sh", "-c", "cat; echo aside >&2; exit 9")
		if r.Code != 9 || r.Stdout != "from the client\n" || !strings.Contains(r.Stderr, "aside\n") {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("exec of nothing", func(t *testing.T) {
		r := e.with(t).try("", "exec", "streams", "-c", "work", "--", "nosuch")
		want := `OCI runtime exec failed: exec failed: unable to start container process: exec: "nosuch": executable file not found in $PATH`
		if ctrd == nil { // containerd has more to say before that
			want = "error executing command in container: " + want
		}
		if r.Code != 1 || !strings.HasSuffix(r.Stderr, ": "+want+"\n") {
			t.Errorf("got %+v, want %s", r, want)
		}
	})
	t.Run("cp", func(t *testing.T) {
		e := e.with(t)
		dir := t.TempDir()
		there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
		content := strings.Repeat("0123456789abcdef", 1<<16)
		if err := os.WriteFile(there, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		e.kubectl("cp", there, "streams:/tmp/file", "-c", "work")
		e.kubectl("cp", "streams:/tmp/file", back, "-c", "work")
		if got, err := os.ReadFile(back); err != nil || string(got) != content {
			t.Errorf("of %d bytes %d came back: %v", len(content), len(got), err)
		}
	})
	t.Run("port-forward", func(t *testing.T) {
		said := e.with(t).background(t, nil, "port-forward", "pod/streams", ":8080")
		line, err := said.Await(t.Context(), "-> 8080")
		if err != nil {
			t.Fatal(err)
		}
		address := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)
		for range 3 {
			resp, err := http.Get("http://" + address + "/page")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(body) != "page\n" {
				t.Errorf("got %q, %v", body, err)
			}
		}
	})
	t.Run("attach with a terminal", func(t *testing.T) {
		master, slave := terminal(t, 33, 101)
		said := harness.NewTranscript()
		go io.Copy(said, master) // ends with the terminal
		e.with(t).background(t, slave, "attach", "-it", "streams", "-c", "terminal")
		await(t, said, "pressing enter") // kubectl's hint: it is attached
		// kubectl first gives a size that is one too large, to have the screen redrawn.
		const report = `until stty size | grep -q "%d %d"; do usleep 10000; done; echo $((6*7)) of $(stty size)` + "\n"
		fmt.Fprintf(master, report, 33, 101)
		await(t, said, "42 of 33 101")
		resize(t, master, 44, 99)
		fmt.Fprintf(master, report, 44, 99)
		await(t, said, "42 of 44 99")
	})
}

func await(t *testing.T, said *harness.Transcript, words string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := said.Await(ctx, words); err != nil {
		t.Fatal(err)
	}
}

// background runs kubectl until the test's end, on a terminal if one is given, and
// returns what it says.
func (e *errand) background(t *testing.T, tty *os.File, args ...string) *harness.Transcript {
	t.Helper()
	said := harness.NewTranscript()
	cmd := exec.Command(filepath.Join(bin, "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+e.Kubeconfig(), "HOME="+e.cfg.DataDir)
	cmd.Stdout, cmd.Stderr = said, said
	if tty != nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	return said
}

// terminal makes a pseudo-terminal of a size.
func terminal(t *testing.T, rows, columns uint16) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	resize(t, master, rows, columns)
	return master, slave
}

func resize(t *testing.T, master *os.File, rows, columns uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.Fatal(err)
	}
}
