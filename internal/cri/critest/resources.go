//go:build node

package critest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	utilexec "k8s.io/utils/exec"
)

// limitsShown prints the container's limits under either version of cgroups.
const limitsShown = `cd /sys/fs/cgroup
if [ -f cgroup.controllers ]; then cat memory.max; cat cpu.max; else cat memory/memory.limit_in_bytes; echo $(cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us); fi`

func limits(p *Pod) {
	p.wantRun("33554432\n25000 50000", limitsShown, func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, CpuQuota: 25_000, CpuPeriod: 50_000, CpuShares: 512, OomScoreAdj: 900}
	})
	p.wantRun("900", "cat /proc/self/oom_score_adj", func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{OomScoreAdj: 900}
	})
}

func outOfMemory(p *Pod) {
	st := p.wait(p.start("exec tail /dev/zero", func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources.MemoryLimitInBytes = 16 << 20
	}))
	if st.GetReason() != "OOMKilled" || st.GetExitCode() != 137 {
		p.Errorf("status %v", st)
	}
}

func updateResources(p *Pod) {
	limit := func(n int64) *runtimeapi.ContainerResources {
		return &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: n}}
	}
	set := func(c *runtimeapi.ContainerConfig) { c.Linux.Resources.MemoryLimitInBytes = 32 << 20 }
	shown := func(id string) string {
		p.Helper()
		out, _, err := p.Runtime.ExecSync(p.Ctx, id, []string{"sh", "-c", limitsShown}, 0)
		p.must(err)
		return strings.SplitN(string(out), "\n", 2)[0]
	}
	running, created := p.start(forever, set), p.create(forever, set)
	p.must(p.Runtime.UpdateContainerResources(p.Ctx, running, limit(64<<20)))
	p.must(p.Runtime.UpdateContainerResources(p.Ctx, created, limit(48<<20)))
	p.must(p.Runtime.StartContainer(p.Ctx, created))
	for id, want := range map[string]int64{running: 64 << 20, created: 48 << 20} {
		if got := shown(id); got != fmt.Sprint(want) {
			p.Errorf("limit %s, want %d", got, want)
		}
		if got := p.status(id).GetResources().GetLinux().GetMemoryLimitInBytes(); got != want {
			p.Errorf("the status tells of %d, want %d", got, want)
		}
	}
	_, err := p.Runtime.UpdatePodSandboxResources(p.Ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{
		PodSandboxId: p.ID(), Resources: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 256 << 20},
	})
	p.must(err)
}

func stats(p *Pod) {
	id := p.start("dd if=/dev/zero of=/file bs=1024 count=100 2>/dev/null; echo up; while :; do :; done")
	p.ready(id)
	s, err := p.Runtime.ContainerStats(p.Ctx, id)
	p.must(err)
	if s.GetCpu().GetUsageCoreNanoSeconds().GetValue() == 0 || s.GetMemory().GetUsageBytes().GetValue() == 0 {
		p.Errorf("usage %v", s)
	}
	// containerd measures it every ten seconds.
	if !p.Foreign && s.GetWritableLayer().GetUsedBytes().GetValue() < 100<<10 {
		p.Errorf("writable layer %v", s.GetWritableLayer())
	}
	pod, err := p.Runtime.PodSandboxStats(p.Ctx, p.ID())
	p.must(err)
	l := pod.GetLinux()
	if l.GetCpu().GetUsageCoreNanoSeconds().GetValue() == 0 || l.GetProcess().GetProcessCount().GetValue() == 0 || len(l.GetContainers()) != 1 || l.GetNetwork().GetDefaultInterface().GetName() != "eth0" {
		p.Errorf("usage of the pod %v", l)
	}
	list, err := p.Runtime.ListContainerStats(p.Ctx, &runtimeapi.ContainerStatsFilter{PodSandboxId: p.ID()})
	p.must(err)
	pods, err := p.Runtime.ListPodSandboxStats(p.Ctx, &runtimeapi.PodSandboxStatsFilter{Id: p.ID()})
	p.must(err)
	if len(list) != 1 || len(pods) != 1 {
		p.Errorf("%d containers, %d pods", len(list), len(pods))
	}
}

func execSync(p *Pod) {
	id := p.start(forever)
	out, stderr, err := p.Runtime.ExecSync(p.Ctx, id, []string{"sh", "-c", "echo out; echo err >&2"}, 0)
	if err != nil || string(out) != "out\n" || string(stderr) != "err\n" {
		p.Errorf("got %q, %q, %v", out, stderr, err)
	}
	_, _, err = p.Runtime.ExecSync(p.Ctx, id, []string{"sh", "-c", "exit 9"}, 0)
	var exit utilexec.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 9 {
		p.Errorf("a command that failed: %v", err)
	}
	if _, _, err = p.Runtime.ExecSync(p.Ctx, id, []string{"no-such-command"}, 0); err == nil {
		p.Error("a command that doesn't exist ran")
	}
	if p.Foreign {
		return // containerd fails for more than it keeps, and waits for whoever has the output open
	}
	// More than is kept: the rest is dropped, and the command goes on to its end.
	out, _, err = p.Runtime.ExecSync(p.Ctx, id, []string{"sh", "-c", "head -c 20000000 /dev/zero"}, 0)
	if err != nil || len(out) > 16<<20 || len(out) < 15<<20 { // over a socket the message has to fit as a whole
		p.Errorf("got %d bytes, %v", len(out), err)
	}
	// A child that keeps the output open holds nobody up.
	out, _, err = p.Runtime.ExecSync(p.Ctx, id, []string{"sh", "-c", "sleep 1000 & echo done"}, 0)
	if err != nil || string(out) != "done\n" {
		p.Errorf("got %q, %v", out, err)
	}
}

func execTimeout(p *Pod) {
	id := p.start(forever)
	began := time.Now()
	_, stderr, err := p.Runtime.ExecSync(p.Ctx, id, []string{"sleep", "1000"}, time.Second)
	if p.CRIO { // it has the command fail, which is as good to a probe
		var exit utilexec.ExitError
		if !errors.As(err, &exit) || exit.ExitStatus() != -1 || string(stderr) != "command timed out" {
			p.Errorf("got %q, %v", stderr, err)
		}
	} else {
		p.wantCode(err, codes.DeadlineExceeded)
	}
	if d := time.Since(began); d > 20*time.Second {
		p.Errorf("a timeout of one second took %v", d)
	}
	if p.Foreign {
		return // containerd kills the command alone
	}
	// What a shell waits for ends with it.
	_, _, err = p.Runtime.ExecSync(p.Ctx, id, []string{"sh", "-c", "sleep 1234; true"}, time.Second)
	p.wantCode(err, codes.DeadlineExceeded)
	for p.Ctx.Err() == nil { // nobody tells when a process of another's is gone
		out, _, err := p.Runtime.ExecSync(p.Ctx, id, []string{"ps"}, 0)
		p.must(err)
		if !strings.Contains(string(out), "sleep 1234") {
			return
		}
	}
	p.Error("a process of a command whose time was over goes on")
}

func logReopen(p *Pod) {
	id := p.start("echo up; read x < /gate; echo second; sleep 1000", func(c *runtimeapi.ContainerConfig) {
		c.Command = []string{"sh", "-c", "mkfifo /gate; echo up; read x < /gate; echo second; sleep 1000"}
	})
	p.ready(id)
	path := p.status(id).GetLogPath()
	p.must(os.Rename(path, path+".1"))
	p.must(p.Runtime.ReopenContainerLog(p.Ctx, id))
	_, _, err := p.Runtime.ExecSync(p.Ctx, id, []string{"sh", "-c", "echo > /gate"}, 0)
	p.must(err)
	for p.Ctx.Err() == nil && !strings.Contains(p.log(p.status(id)), "second") {
		time.Sleep(time.Millisecond) // a log tells nobody when it grows
	}
	if got := p.log(p.status(id)); got != "second\n" {
		p.Errorf("the new log holds %q", got)
	}
}

// streams only checks that URLs are handed out and served; what goes through
// them is tested by whoever has a client for the protocol.
func streams(p *Pod) {
	id := p.start(forever)
	exec, err := p.Runtime.Exec(p.Ctx, &runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"true"}, Stdout: true})
	p.must(err)
	attach, err := p.Runtime.Attach(p.Ctx, &runtimeapi.AttachRequest{ContainerId: id, Stdout: true})
	p.must(err)
	forward, err := p.Runtime.PortForward(p.Ctx, &runtimeapi.PortForwardRequest{PodSandboxId: p.ID(), Port: []int32{80}})
	p.must(err)
	for _, url := range []string{exec.GetUrl(), attach.GetUrl(), forward.GetUrl()} {
		resp, err := http.Get(url)
		p.must(err)
		body, _ := io.ReadAll(bufio.NewReader(resp.Body))
		p.must(resp.Body.Close())
		// Not an upgrade: refused, but by the one who would serve it.
		if resp.StatusCode == http.StatusNotFound {
			p.Errorf("%s: %s %s", url, resp.Status, body)
		}
	}
	if _, err := p.Runtime.Exec(p.Ctx, &runtimeapi.ExecRequest{ContainerId: "none", Stdout: true}); err == nil {
		p.Error("a stream to no container was prepared")
	}
}

func information(p *Pod) {
	v, err := p.Runtime.Version(p.Ctx, "v1")
	p.must(err)
	if v.GetRuntimeName() == "" || v.GetRuntimeApiVersion() != "v1" {
		p.Errorf("version %v", v)
	}
	st, err := p.Runtime.Status(p.Ctx, true)
	p.must(err)
	for _, required := range []string{runtimeapi.RuntimeReady, runtimeapi.NetworkReady} {
		if !slices.ContainsFunc(st.GetStatus().GetConditions(), func(c *runtimeapi.RuntimeCondition) bool { return c.GetType() == required && c.GetStatus() }) {
			p.Errorf("%s isn't told: %v", required, st.GetStatus())
		}
	}
	_, err = p.Runtime.RuntimeConfig(p.Ctx)
	p.must(err)
	p.must(p.Runtime.UpdateRuntimeConfig(p.Ctx, &runtimeapi.RuntimeConfig{}))
	id := p.create("true")
	resp, err := p.Runtime.ContainerStatus(p.Ctx, id, true)
	p.must(err)
	if len(resp.GetInfo()) == 0 {
		p.Error("a verbose status has no info")
	}
	_, err = p.Runtime.PodSandboxStatus(context.Background(), p.ID(), true)
	p.must(err)
}

func unsupported(p *Pod) {
	p.wantCode(p.Runtime.CheckpointContainer(p.Ctx, &runtimeapi.CheckpointContainerRequest{ContainerId: "x"}), codes.Unimplemented)
}
