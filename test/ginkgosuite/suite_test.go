package ginkgosuite

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"focus":   {[]string{"-focus", "("}, `-focus "(": error parsing regexp`},
		"flag":    {[]string{"-nosuch"}, "flag provided but not defined: -nosuch"},
		"value":   {[]string{"-bin"}, "flag needs an argument: -bin"},
		"program": {[]string{"-bin", t.TempDir()}, "run make some"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "program" && os.Geteuid() != 0 {
				tc.want = "needs root, for containers"
			}
			_, err := Definition{Name: "some", Programs: []string{"some/tests"}}.Parse(tc.args, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// suite is one whose program is a shell script.
func suite(t *testing.T, script string) *Suite {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tests"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return &Suite{Definition: Definition{Name: "some"}, Tools: dir, Report: dir, Stderr: io.Discard}
}

func TestExec(t *testing.T) {
	s := suite(t, `echo "$@"; exit 1`)
	if err := s.Exec(t.Context(), "tests", "a", "b"); err != nil {
		t.Errorf("tests that fail give %v", err)
	}
	if b, err := os.ReadFile(s.logPath()); err != nil || string(b) != "a b\n" {
		t.Errorf("the log has %q, %v", b, err)
	}
	if err := s.Exec(t.Context(), "nosuch"); err == nil || !strings.Contains(err.Error(), "run nosuch: ") {
		t.Errorf("a program that isn't there gives %v", err)
	}
}

// What the program has started ends with it, whatever that thinks of interrupts.
func TestExecInterrupted(t *testing.T) {
	s := suite(t, `sleep 3600 & echo $! > "$1/pid"; wait`) // sh has it ignore SIGINT
	if err := unix.Mkfifo(filepath.Join(s.Tools, "pid"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Exec(ctx, "tests", s.Tools) }()
	b, err := os.ReadFile(filepath.Join(s.Tools, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupted run gives %v", err)
	}
	const patience = 20 * time.Second
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds())); n != 1 {
		t.Errorf("a process stays: %d, %v", n, err)
	}
}
