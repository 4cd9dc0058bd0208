//go:build node

package ocitest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"errand.dev/errand/internal/oci"
)

func exitCodes(f *Fixture) {
	for _, code := range []int{0, 1, 42, 255} {
		before := time.Now()
		e, _ := f.Sh(fmt.Sprintf("exit %d", code), nil)
		if e.ExitCode != code || e.State != oci.Exited || e.OOMKilled || e.Reason != "" {
			f.Errorf("exit %d: %+v", code, e)
		}
		if e.StartedAt.Before(before) || e.ExitedAt.Before(before) || e.ExitedAt.After(time.Now()) {
			f.Errorf("exit %d: implausible times %+v", code, e)
		}
	}
}

func signals(f *Fixture) {
	trap := []string{"sh", "-c", `trap "exit 7" TERM; echo ready; while :; do sleep 0.01; done`}
	id := f.Start(trap, nil)
	f.waitLog(id, "ready")
	f.signal(id, syscall.SIGTERM, false)
	if e := f.WaitExit(id); e.ExitCode != 7 {
		f.Errorf("trapped SIGTERM: exit code %d", e.ExitCode)
	}
	f.signal(id, syscall.SIGTERM, false) // has exited: no error

	id = f.Start([]string{"sleep", "1000"}, nil)
	f.signal(id, syscall.SIGKILL, false)
	if e := f.WaitExit(id); e.ExitCode != 137 || e.OOMKilled {
		f.Errorf("SIGKILL: %+v", e)
	}

	// Not the first process of a PID namespace, which has no signals that it doesn't handle.
	id = f.Start([]string{"sh", "-c", "sleep 1000 & sleep 1000"}, nil, HostPID)
	f.signal(id, syscall.SIGTERM, true)
	if e := f.WaitExit(id); e.ExitCode != 143 {
		f.Errorf("SIGTERM to all: %+v", e)
	}
}

func (f *Fixture) signal(id string, sig syscall.Signal, all bool) {
	f.Helper()
	if err := f.Signal(f.Ctx, id, sig, all); err != nil {
		f.Errorf("signal %s: %v", id, err)
	}
}

func startErrors(f *Fixture) {
	mount := func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/nonexistent", Options: []string{"bind"}})
	}
	for _, tc := range []struct {
		args []string
		edit func(*specs.Spec)
		own  bool // the container's own fault
		want string
	}{
		{[]string{"nosuch"}, nil, true, `unable to start container process: error during container init: exec: "nosuch": executable file not found in $PATH`},
		{[]string{"/bin/nosuch"}, nil, true, `exec: "/bin/nosuch": stat /bin/nosuch: no such file or directory`},
		{[]string{"notexec"}, nil, true, `exec: "notexec": executable file not found in $PATH`},
		{[]string{"/bin/notexec"}, nil, true, `exec: "/bin/notexec": permission denied`},
		{[]string{"true"}, mount, false, `/nonexistent`},
	} {
		if tc.edit == nil {
			tc.edit = func(*specs.Spec) {}
		}
		id := f.ID()
		_, err := f.TryStart(id, tc.args, nil, tc.edit)
		var start *oci.StartError
		var runtime *oci.RuntimeError
		switch {
		case err == nil || !strings.Contains(err.Error(), tc.want):
			f.Errorf("%v: error %v, want %s", tc.args, err, tc.want)
		case errors.As(err, &start) != tc.own || errors.As(err, &runtime) == tc.own:
			f.Errorf("%v: error %v is a %T", tc.args, err, err)
		}
		if data, _ := os.ReadFile(f.Host.Log(id)); len(data) > 0 {
			f.Errorf("%v: the runtime's words are in the container's log: %s", tc.args, data)
		}
	}
	for _, l := range f.Leaks(f.Dir + "/run") {
		if strings.Contains(l, "/containers/") || strings.Contains(l, "/runc/") {
			f.Errorf("left of failed starts: %v", l)
		}
	}
}

func invalidRequests(f *Fixture) {
	id := f.Start([]string{"sleep", "1000"}, nil)
	if _, err := f.TryStart(id, []string{"true"}, nil); !errors.Is(err, oci.ErrExists) {
		f.Errorf("taken ID: %v", err)
	}
	for what, edit := range map[string]func(*oci.RunRequest){
		"ID":       func(r *oci.RunRequest) { r.ID = "../x" },
		"handler":  func(r *oci.RunRequest) { r.Handler = "nosuch" },
		"terminal": func(r *oci.RunRequest) { r.Terminal = true },
		"log line": func(r *oci.RunRequest) { r.LogMaxLine = 1 << 30 },
		"log path": func(r *oci.RunRequest) { r.LogPath = "relative" },
	} {
		if _, err := f.TryStart(f.ID(), []string{"true"}, edit); !errors.Is(err, oci.ErrInvalid) {
			f.Errorf("%s: %v", what, err)
		}
	}
	noCgroup := func(s *specs.Spec) { s.Linux.CgroupsPath = "" }
	if _, err := f.TryStart(f.ID(), []string{"true"}, nil, noCgroup); !errors.Is(err, oci.ErrInvalid) {
		f.Errorf("no cgroup: %v", err)
	}
}

func cancelledRun(f *Fixture) {
	for delay := time.Duration(0); delay < 60*time.Millisecond; delay += 6 * time.Millisecond {
		ctx, cancel := context.WithTimeout(f.Ctx, delay)
		id := f.ID()
		_, err := f.Run(ctx, oci.RunRequest{ID: id, Bundle: f.Bundle(id, []string{"sleep", "1000"})})
		cancel()
		list, listErr := f.List(f.Ctx)
		if listErr != nil {
			f.Fatal(listErr)
		}
		switch {
		case err == nil && len(list) == 1: // was faster
			f.DeleteAll()
		case err == nil || !errors.Is(err, context.DeadlineExceeded) || len(list) != 0:
			f.Errorf("after %v: %v, and there are %v", delay, err, list)
		}
	}
}

func deleteKills(f *Fixture) {
	id := f.ID()
	pid, err := f.TryStart(id, []string{"sh", "-c", `trap "" TERM; sleep 1000 & sleep 1000`}, nil)
	if err != nil {
		f.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 3 { // at once, and again
		wg.Go(func() {
			if err := f.Delete(f.Ctx, id); err != nil {
				f.Error(err)
			}
		})
	}
	wg.Wait()
	f.gone(pid)
	if err := f.Delete(f.Ctx, id); err != nil {
		f.Error(err)
	}
	if _, err := f.TryStart(id, []string{"true"}, nil); err != nil {
		f.Errorf("the ID isn't free: %v", err)
	}
}

func notFound(f *Fixture) {
	for what, err := range map[string]error{
		"signal": f.Signal(f.Ctx, "x", syscall.SIGTERM, false),
		"update": f.Update(f.Ctx, "x", &specs.LinuxResources{}),
		"reopen": f.ReopenLog(f.Ctx, "x"),
	} {
		if !errors.Is(err, oci.ErrNotFound) {
			f.Errorf("%s: %v", what, err)
		}
	}
	if _, err := f.Exec(f.Ctx, "x", oci.ExecRequest{Process: Process("true")}); !errors.Is(err, oci.ErrNotFound) {
		f.Errorf("exec: %v", err)
	}
	if _, err := f.Attach(f.Ctx, "x", oci.AttachRequest{}); !errors.Is(err, oci.ErrNotFound) {
		f.Errorf("attach: %v", err)
	}
	if err := f.Delete(f.Ctx, "x"); err != nil {
		f.Errorf("delete: %v", err)
	}
}

// eventsReplay: each subscription gets all exits that aren't deleted, and none other.
func eventsReplay(f *Fixture) {
	var ids []string
	for i := range 3 {
		ids = append(ids, f.Start([]string{"sh", "-c", "exit " + strconv.Itoa(i)}, nil))
		f.WaitExit(ids[i])
	}
	alive := f.Start([]string{"sleep", "1000"}, nil)
	if err := f.Delete(f.Ctx, ids[1]); err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(f.Ctx)
	events, err := f.Events(ctx)
	if err != nil {
		f.Fatal(err)
	}
	for _, i := range []int{0, 2} {
		if e := <-events; e.ID != ids[i] || e.ExitCode != i || e != f.seen[e.ID] {
			f.Errorf("got %+v, want that of %s", e, ids[i])
		}
	}
	f.signal(alive, syscall.SIGKILL, false)
	if e := <-events; e.ID != alive {
		f.Errorf("got %+v", e)
	}
	cancel()
	if e, ok := <-events; ok {
		f.Errorf("after the end: %+v", e)
	}
	if !errors.Is(f.Err(), context.Canceled) {
		f.Errorf("Err is %v", f.Err())
	}
}

func many(f *Fixture) {
	const n = 50
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	ids := make([]string, n)
	for i := range n {
		ids[i] = f.ID()
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if _, err := f.TryStart(ids[i], []string{"sh", "-c", fmt.Sprintf("echo out%d; exit %d", i, i)}, nil); err != nil {
				f.Error(err)
			}
		})
	}
	wg.Wait()
	for i, id := range ids {
		if e := f.WaitExit(id); e.ExitCode != i {
			f.Errorf("container %d: %+v", i, e)
		}
		if got := f.Records(f.Host.Log(id)); len(got) != 1 || got[0] != (Record{"stdout", "F", fmt.Sprintf("out%d", i)}) {
			f.Errorf("container %d: log %v", i, got)
		}
	}
	list, err := f.List(f.Ctx)
	if err != nil || len(list) != n {
		f.Errorf("%d containers in the list, %v", len(list), err)
	}
}

func memory(limit int64) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
	}
}

func oomKilled(f *Fixture) {
	// The first process itself, and a child of a first process that goes on.
	e, _ := f.Sh("exec tail /dev/zero", nil, memory(16<<20), withZero)
	if e.ExitCode != 137 || !e.OOMKilled {
		f.Errorf("first process: %+v", e)
	}
	if e, _ = f.Sh("tail /dev/zero; exit 3", nil, memory(16<<20), withZero); e.ExitCode != 3 || !e.OOMKilled {
		f.Errorf("child: %+v", e)
	}
}

func withZero(s *specs.Spec) {
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev/zero", Type: "bind", Source: "/dev/zero", Options: []string{"bind"}})
}

func update(f *Fixture) {
	id := f.Start([]string{"sleep", "1000"}, nil, memory(64<<20))
	limit := int64(32 << 20)
	if err := f.Update(f.Ctx, id, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}); err != nil {
		f.Fatal(err)
	}
	var got []byte
	for _, file := range []string{"/sys/fs/cgroup/memory" + f.Cgroup(id) + "/memory.limit_in_bytes", "/sys/fs/cgroup" + f.Cgroup(id) + "/memory.max"} {
		if data, err := os.ReadFile(file); err == nil {
			got = data
		}
	}
	if strings.TrimSpace(string(got)) != strconv.FormatInt(limit, 10) {
		f.Errorf("the limit is %s, want %d", got, limit)
	}
	var runtime *oci.RuntimeError
	tiny := int64(1)
	if err := f.Update(f.Ctx, id, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &tiny}}); !errors.As(err, &runtime) {
		f.Errorf("impossible limit: %v", err)
	}
}

// sharedPIDNamespace: the end of the first process is the end of the container, also where the kernel doesn't see to that.
func sharedPIDNamespace(f *Fixture) {
	id := f.Start([]string{"sh", "-c", "(trap '' HUP TERM; sleep 1000) & echo $!"}, nil, HostPID)
	if e := f.WaitExit(id); e.ExitCode != 0 {
		f.Errorf("%+v", e)
	}
	pid, err := strconv.Atoi(f.Records(f.Host.Log(id))[0].Content)
	if err != nil {
		f.Fatal(err)
	}
	f.gone(pid)
}
