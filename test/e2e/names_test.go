//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

const peersService = `apiVersion: v1
kind: Service
metadata: {name: peers}
spec:
  clusterIP: None
  selector: {job-name: find}
`

// findScript knocks once all pods of the Job were reached by name, through the C
// library's resolver and the pod's own search paths.
const findScript = `for i in 0 1 2; do until ping -c 1 -W 1 find-$i.peers; do sleep 0.1; done; done
` + knockGate + `; exec sleep 3600`

const askingPod = `
  containers: [{name: work, image: "busybox:latest", imagePullPolicy: IfNotPresent, command: [sleep, "3600"]}]
`

// The pods of an Indexed Job find each other by name, at once and again after
// errand was killed; and no name outlives its pod.
func TestPodsFindEachOther(t *testing.T) {
	e := start(t)
	g := newGate(t)
	e.apply(peersService)
	e.applyPod("asks", askingPod)
	e.apply(job("find", findScript, "completions: 3", "parallelism: 3", "completionMode: Indexed") + g.mount() + "      subdomain: peers\n")
	for range 3 {
		g.arrived()
	}
	e.wait("condition=Ready", "pod/asks")
	addresses := map[string]string{}
	for _, pod := range e.pods("find") {
		name := pod.Spec.Hostname + ".peers.default.svc.cluster.local"
		addresses[name] = pod.Status.PodIP
		wantLines(t, e.kubectl("exec", pod.Name, "--", "hostname", "-f"), name)
		if got, want := e.kubectl("exec", pod.Name, "--", "cat", "/etc/resolv.conf"), "search default.svc.cluster.local svc.cluster.local cluster.local"; !strings.Contains(got, want) || !strings.Contains(got, "options ndots:5\n") {
			t.Errorf("the pod's resolv.conf isn't that of a cluster:\n%s", got)
		}
	}
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	e.start()
	for name, address := range addresses {
		if got := e.kubectl("exec", "asks", "--", "nslookup", name); !strings.Contains(got, "Address: "+address) {
			t.Errorf("after errand was killed, %s is not %s:\n%s", name, address, got)
		}
	}
	e.kubectl("delete", "job", "find", "--cascade=foreground")
	for name := range addresses {
		e.forgotten("asks", name)
	}
}

// forgotten waits until a pod finds that there is no such name.
func (e *errand) forgotten(pod, name string) {
	e.t.Helper()
	for late := time.Now().Add(patience); time.Now().Before(late); {
		if r := e.try("", "exec", pod, "--", "nslookup", name); r.Code != 0 && strings.Contains(r.Stdout, "NXDOMAIN") {
			return
		}
	}
	e.t.Errorf("there still is the name %s", name)
}

// Whom a pod asks for names is as its dnsPolicy says.
func TestDNSPolicies(t *testing.T) {
	e := start(t)
	hosts, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, spec string
		ours       bool
	}{
		{"first", "", true},
		{"first-on-host", "\n  hostNetwork: true", false},
		{"with-host-net", "\n  hostNetwork: true\n  dnsPolicy: ClusterFirstWithHostNet", true},
		{"default", "\n  dnsPolicy: Default", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := e.with(t)
			script := "cat /etc/resolv.conf"
			if c.ours {
				script += "; nslookup -type=txt dns-version.cluster.local"
			}
			got := e.runPod(c.name, c.spec+fmt.Sprintf(`
  containers: [{name: work, image: "busybox:latest", imagePullPolicy: IfNotPresent, command: [sh, -c, %q]}]
`, script))
			if c.ours && (!strings.Contains(got, "search default.svc.cluster.local ") || !strings.Contains(got, `"1.1.0"`)) {
				t.Errorf("it doesn't ask errand, or has no answer:\n%s", got)
			}
			for line := range strings.Lines(string(hosts)) {
				if !c.ours && strings.HasPrefix(line, "nameserver") && !strings.Contains(got, line) {
					t.Errorf("it doesn't ask the host's %q but\n%s", line, got)
				}
			}
		})
	}
}

// Without names a pod has the host's resolvers, and who makes a Service is told.
func TestWithoutClusterDNS(t *testing.T) {
	e := start(t, "--cluster-dns=false")
	if r := e.try(peersService, "apply", "-f", "-"); r.Code != 0 || !strings.Contains(r.Stderr, "by address only") {
		t.Errorf("exit code %d, told %q", r.Code, r.Stderr)
	}
	if got := e.runPod("asks", `
  containers: [{name: work, image: "busybox:latest", imagePullPolicy: IfNotPresent, command: [cat, /etc/resolv.conf]}]
`); strings.Contains(got, "cluster.local") {
		t.Errorf("a pod's resolv.conf is\n%s", got)
	}
}

// Where somebody else has the port, errand doctor and errand serve say who, and
// what to do.
func TestPortOfNamesIsTaken(t *testing.T) {
	e := start(t)
	names, err := e.Names()
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := net.InterfaceByName(names.Bridge)
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := bridge.Addrs()
	if err != nil || len(addrs) == 0 {
		t.Fatalf("the bridge's addresses: %v, %v", addrs, err)
	}
	at := net.JoinHostPort(addrs[0].(*net.IPNet).IP.String(), "53")
	if out, err := e.errandCommand("doctor", "--data-dir", e.cfg.DataDir); err != nil || !strings.Contains(out, at+" is in use by the running errand") {
		t.Errorf("doctor beside a running errand: %v\n%s", err, out)
	}
	if _, err := e.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("tcp4", at)
	if err != nil {
		t.Fatal(err)
	}
	taken := fmt.Sprintf("%s (pid %d)", "e2e.test", os.Getpid())
	if out, err := e.errandCommand("doctor", "--data-dir", e.cfg.DataDir); err == nil || !strings.Contains(out, at+" is taken by "+taken) {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	e.launch()
	if err := e.AwaitReady(t.Context()); err == nil {
		t.Error("errand serve started")
	}
	<-e.Done()
	if got := e.Log(); !strings.Contains(got, "serve names to pods at "+at+" by TCP: "+taken) || !strings.Contains(got, "--cluster-dns=false") {
		t.Errorf("errand serve said:\n%s", got)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	e.start()
}
