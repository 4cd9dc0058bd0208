//go:build node

package ocitest

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci"
	"errand.dev/errand/internal/slowness"
)

func (f *Fixture) pipe() (r, w *os.File) {
	f.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		f.Fatal(err)
	}
	f.T.Cleanup(func() {
		r.Close()
		w.Close()
	})
	return r, w
}

func (f *Fixture) attach(id string, req oci.AttachRequest) oci.Attachment {
	f.Helper()
	a, err := f.Attach(f.Ctx, id, req)
	if err != nil {
		f.Fatal(err)
	}
	f.T.Cleanup(func() { a.Close() })
	return a
}

func (f *Fixture) wait(p oci.Process) int {
	f.Helper()
	code, err := p.Wait(f.Ctx)
	if err != nil {
		f.Fatal(err)
	}
	return code
}

// terminal: the container's terminal is logged, read and written through Attach, and resized by whoever is attached.
func terminal(f *Fixture) {
	id := f.Start([]string{"sh", "-c", `stty -echo; echo ready; read line; stty size; echo "got $line"; exit 4`},
		func(r *oci.RunRequest) { r.Terminal = true }, Terminal)
	f.waitLog(id, "ready\r")
	r, w := f.pipe()
	a := f.attach(id, oci.AttachRequest{Stdin: true, Stdout: w})
	w.Close()
	master := a.Input()
	defer master.Close()
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}); err != nil {
		f.Fatal(err)
	}
	if _, err := master.WriteString("hello\n"); err != nil {
		f.Fatal(err)
	}
	if e := f.WaitExit(id); e.ExitCode != 4 {
		f.Errorf("%+v", e)
	}
	out, err := io.ReadAll(r)
	if err != nil || !contains(out, "33 77") || !contains(out, "got hello") {
		f.Errorf("attached: %q, %v", out, err)
	}
	if err := a.Wait(f.Ctx); err != nil {
		f.Error(err)
	}
	f.waitLog(id, "got hello\r")
}

func stdin(f *Fixture) {
	// StdinOnce: it ends with the first client.
	id := f.Start([]string{"cat"}, func(r *oci.RunRequest) { r.Stdin, r.StdinOnce = true, true })
	a := f.attach(id, oci.AttachRequest{Stdin: true})
	if _, err := a.Input().WriteString("once\n"); err != nil {
		f.Fatal(err)
	}
	a.Input().Close()
	if e := f.WaitExit(id); e.ExitCode != 0 {
		f.Errorf("%+v", e)
	}
	f.waitLog(id, "once")

	// Without, it stays open for the next one.
	id = f.Start([]string{"sh", "-c", "read a; read b; echo $a $b"}, func(r *oci.RunRequest) { r.Stdin = true })
	for _, line := range []string{"first\n", "second\n"} {
		a := f.attach(id, oci.AttachRequest{Stdin: true})
		if _, err := a.Input().WriteString(line); err != nil {
			f.Fatal(err)
		}
		a.Input().Close()
		a.Close()
	}
	f.WaitExit(id)
	f.waitLog(id, "first second")

	// Not asked for, it is empty.
	if e, _ := f.Sh("cat; exit 6", nil); e.ExitCode != 6 {
		f.Errorf("%+v", e)
	}
}

func attachOutput(f *Fixture) {
	id := f.Start([]string{"sh", "-c", "read x; echo out; echo err >&2; printf end"}, func(r *oci.RunRequest) { r.Stdin = true })
	outR, outW := f.pipe()
	errR, errW := f.pipe()
	a := f.attach(id, oci.AttachRequest{Stdin: true, Stdout: outW, Stderr: errW})
	outW.Close()
	errW.Close()
	if _, err := a.Input().WriteString("go\n"); err != nil {
		f.Fatal(err)
	}
	a.Input().Close()
	out, err1 := io.ReadAll(outR)
	stderr, err2 := io.ReadAll(errR)
	if err := errors.Join(err1, err2, a.Wait(f.Ctx)); err != nil || string(out) != "out\nend" || string(stderr) != "err\n" {
		f.Errorf("attached: %q, %q, %v", out, stderr, err)
	}
	f.WaitExit(id)
	if _, err := f.Attach(f.Ctx, id, oci.AttachRequest{}); !errors.Is(err, oci.ErrNotRunning) {
		f.Errorf("attach to an exited container: %v", err)
	}
}

// attachSlowReader: a reader that doesn't read holds up its own container only, and gets everything once it reads; one that
// leaves holds up nobody.
func attachSlowReader(f *Fixture) {
	script := "read x; seq 100000; exit 3"
	withStdin := func(r *oci.RunRequest) { r.Stdin = true }
	slow := f.Start([]string{"sh", "-c", script}, withStdin)
	r, w := f.pipe()
	a := f.attach(slow, oci.AttachRequest{Stdin: true, Stdout: w})
	w.Close()
	if _, err := a.Input().WriteString("go\n"); err != nil {
		f.Fatal(err)
	}
	left := f.Start([]string{"sh", "-c", script}, withStdin)
	_, w2 := f.pipe()
	a2 := f.attach(left, oci.AttachRequest{Stdin: true, Stdout: w2})
	if _, err := a2.Input().WriteString("go\n"); err != nil {
		f.Fatal(err)
	}
	f.waitLog(left, "1")
	if e, _ := f.Sh("seq 1000; exit 2", nil); e.ExitCode != 2 {
		f.Errorf("neighbour: %+v", e)
	}
	a2.Close()
	if e := f.WaitExit(left); e.ExitCode != 3 {
		f.Errorf("%+v", e)
	}
	lines := 0
	for scan := bufio.NewScanner(r); scan.Scan(); lines++ {
	}
	if e := f.WaitExit(slow); e.ExitCode != 3 || lines != 100000 {
		f.Errorf("%+v, %d lines read", e, lines)
	}
	if n := len(f.Records(f.Host.Log(left))); n != 100000 {
		f.Errorf("%d lines logged", n)
	}
}

func execPipes(f *Fixture) {
	id := f.Start([]string{"sleep", "1000"}, nil)
	inR, inW := f.pipe()
	outR, outW := f.pipe()
	errR, errW := f.pipe()
	p, err := f.Exec(f.Ctx, id, oci.ExecRequest{Process: Process("sh", "-c", "cat; echo err >&2; exit 9"), Stdin: inR, Stdout: outW, Stderr: errW})
	if err != nil {
		f.Fatal(err)
	}
	inR.Close()
	outW.Close()
	errW.Close()
	if _, err := inW.WriteString("in\n"); err != nil {
		f.Fatal(err)
	}
	inW.Close()
	out, err1 := io.ReadAll(outR)
	stderr, err2 := io.ReadAll(errR)
	if err := errors.Join(err1, err2); err != nil || string(out) != "in\n" || string(stderr) != "err\n" {
		f.Errorf("%q, %q, %v", out, stderr, err)
	}
	if code := f.wait(p); code != 9 || p.Terminal() != nil {
		f.Errorf("exit code %d", code)
	}

	p, err = f.Exec(f.Ctx, id, oci.ExecRequest{Process: Process("sleep", "1000")})
	if err != nil {
		f.Fatal(err)
	}
	if err := p.Signal(f.Ctx, syscall.SIGTERM); err != nil {
		f.Error(err)
	}
	if code := f.wait(p); code != 143 {
		f.Errorf("exit code %d", code)
	}
	if err := p.Signal(f.Ctx, syscall.SIGTERM); err != nil {
		f.Errorf("signal after the end: %v", err)
	}
	// Short ones, whose end may come before their pid is known.
	for range 10 {
		p, err = f.Exec(f.Ctx, id, oci.ExecRequest{Process: Process("true")})
		if err != nil {
			f.Fatal(err)
		}
		if code := f.wait(p); code != 0 {
			f.Errorf("exit code %d", code)
		}
	}
}

func execTerminal(f *Fixture) {
	id := f.Start([]string{"sleep", "1000"}, nil)
	proc := Process("sh", "-c", `stty size; echo ready; read x; stty size; exit 8`)
	proc.Terminal = true
	p, err := f.Exec(f.Ctx, id, oci.ExecRequest{Process: proc})
	if err != nil {
		f.Fatal(err)
	}
	master := p.Terminal()
	defer master.Close()
	f.must(master.SetDeadline(time.Now().Add(slowness.Times(20 * time.Second))))
	lines := bufio.NewScanner(master)
	for lines.Scan() && !strings.Contains(lines.Text(), "ready") {
	}
	resize(f, master, 20, 60)
	if _, err := master.WriteString("go\n"); err != nil {
		f.Fatal(err)
	}
	found := false
	for lines.Scan() {
		found = found || strings.Contains(lines.Text(), "20 60")
	}
	if code := f.wait(p); code != 8 || !found {
		f.Errorf("exit code %d, resized: %v", code, found)
	}
}

func resize(f *Fixture, master *os.File, rows, cols uint16) {
	f.Helper()
	raw, err := master.SyscallConn()
	f.must(err)
	f.must(raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	}))
	f.must(err)
}

func execErrors(f *Fixture) {
	id := f.Start([]string{"sleep", "1000"}, nil)
	_, err := f.Exec(f.Ctx, id, oci.ExecRequest{Process: Process("nosuch")})
	var start *oci.StartError
	if !errors.As(err, &start) || !strings.Contains(start.Message, `exec: "nosuch": executable file not found in $PATH`) {
		f.Errorf("no such command: %v", err)
	}
	f.signal(id, 9, false)
	f.WaitExit(id)
	if _, err := f.Exec(f.Ctx, id, oci.ExecRequest{Process: Process("true")}); !errors.Is(err, oci.ErrNotRunning) {
		f.Errorf("exec in an exited container: %v", err)
	}
}

func execEndsWithContainer(f *Fixture) {
	id := f.Start([]string{"sleep", "1000"}, nil)
	p, err := f.Exec(f.Ctx, id, oci.ExecRequest{Process: Process("sleep", "1000")})
	if err != nil {
		f.Fatal(err)
	}
	if err := f.Delete(f.Ctx, id); err != nil {
		f.Fatal(err)
	}
	if code := f.wait(p); code != 137 {
		f.Errorf("exit code %d", code)
	}
}

// A bound process goes with who asked for it, and so does what it waits for.
func execBound(f *Fixture) {
	p, out := f.shellWithChild(true)
	f.must(p.Close())
	f.wantEOF(out)
}

// What is killed is killed with what it waits for.
func execKilled(f *Fixture) {
	p, out := f.shellWithChild(false)
	f.must(p.Signal(f.Ctx, syscall.SIGKILL))
	f.wantEOF(out)
	if code := f.wait(p); code != 137 {
		f.Errorf("exit code %d", code)
	}
}

// shellWithChild executes a shell that waits for a child, which holds the pipe
// returned.
func (f *Fixture) shellWithChild(bound bool) (oci.Process, *os.File) {
	f.Helper()
	id := f.Start([]string{"sleep", "1000"}, nil)
	outR, outW := f.pipe()
	p, err := f.Exec(f.Ctx, id, oci.ExecRequest{Process: Process("sh", "-c", "echo up; sleep 1000; true"), Stdout: outW, Bound: bound})
	f.must(err)
	f.must(outW.Close())
	if line, err := bufio.NewReader(outR).ReadString('\n'); err != nil || line != "up\n" {
		f.Fatalf("%q, %v", line, err)
	}
	return p, outR
}

func (f *Fixture) wantEOF(r *os.File) {
	f.Helper()
	f.must(r.SetReadDeadline(time.Now().Add(slowness.Times(20 * time.Second))))
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		f.Errorf("a process goes on: %q, %v", rest, err)
	}
}
