//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	batchv1 "k8s.io/api/batch/v1"
)

// A reboot ends every process and empties /run; the data directory stays. A pod
// that isn't to be restarted has failed, and its Job replaces it; one that is
// goes on with the volumes that it had: disks with what they held, memory empty.
func TestReboot(t *testing.T) {
	e := start(t)
	e.apply(job("never", "sleep 3600"))
	e.apply(claim("data") + strings.Replace(job("onfailure", `
[ -e /data/ran ] || { echo init > /disk/ran; echo init > /memory/ran; touch /data/ran /data/up; sleep 3600; }
ls /disk /memory > /data/found; hostname > /data/host`), "Never", "OnFailure", 1) + `        volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}, {name: data, mountPath: /data}]
      initContainers:
      - {name: first, image: "busybox:latest", imagePullPolicy: IfNotPresent, command: [sh, -c, "echo first >> /data/inits"], volumeMounts: [{name: data, mountPath: /data}]}
      - {name: beside, restartPolicy: Always, image: "busybox:latest", imagePullPolicy: IfNotPresent, command: [sh, -c, "echo beside >> /data/inits; sleep 3600"], volumeMounts: [{name: data, mountPath: /data}],
         startupProbe: {exec: {command: [grep, beside, /data/inits]}, periodSeconds: 1}}
      volumes: [{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}, {name: data, persistentVolumeClaim: {claimName: data}}]
`)
	e.apply(job("done", "exit 0"))
	e.wait("condition=complete", "job/done")
	e.wait("jsonpath={.status.ready}=1", "job/never", "job/onfailure")
	_, data := e.volumeOf("data")
	e.until("onfailure", func(*batchv1.Job) bool {
		_, err := os.Stat(filepath.Join(data, "up"))
		return err == nil
	})
	never, onFailure := e.pods("never")[0], e.pods("onfailure")[0]

	e.reboot()
	e.start()
	e.until("never", func(j *batchv1.Job) bool { return j.Status.Failed == 1 && j.Status.Active == 1 })
	want(t, e.kubectl("describe", "pod", never.Name), "Status: Failed", "Exit Code: 137", "The container was lost when the machine restarted")
	j := e.until("onfailure", finished)
	if j.Status.Succeeded != 1 || j.Status.Failed != 0 {
		t.Errorf("the Job whose pod restarts: %+v", j.Status)
	}
	for name, want := range map[string]string{
		"inits": "first\nbeside\nfirst\nbeside\n",
		"found": "/disk:\nran\n\n/memory:\n",
		"host":  onFailure.Name + "\n",
	} {
		if got, err := os.ReadFile(filepath.Join(data, name)); string(got) != want {
			t.Errorf("%s is %q, %v, want %q", name, got, err, want)
		}
	}
	pods := e.pods("onfailure")
	if len(pods) != 1 || pods[0].UID != onFailure.UID || pods[0].Status.ContainerStatuses[0].RestartCount != 1 {
		t.Errorf("the pod that restarts is now %+v", pods)
	}
	if p := e.pods("done"); len(p) != 1 || p[0].Status.ContainerStatuses[0].State.Terminated.ExitCode != 0 {
		t.Errorf("the pod that had ended before is now %+v", p)
	}
}

// reboot does to the host what a reboot does, which tells the data directory
// nothing: errand, its shim and the containers die, mounts and what is in /run
// are gone. The records in the data directory are of another boot then.
func (e *errand) reboot() {
	e.t.Helper()
	try := func(err error) {
		e.t.Helper()
		if err != nil {
			e.t.Fatal(err)
		}
	}
	shim, err := e.ShimPID()
	try(err)
	try(e.Kill())
	try(syscall.Kill(shim, syscall.SIGKILL))
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(e.cfg.DataDir))
	try(err)
	for _, m := range mounts {
		try(unix.Unmount(m.Mountpoint, unix.MNT_DETACH))
	}
	// A drain without the data directory ends all that is there by the names that it has on the host.
	aside := e.cfg.DataDir + ".aside"
	try(os.Rename(e.cfg.DataDir, aside))
	try(e.Drain(e.t.Context()))
	try(os.RemoveAll(e.cfg.DataDir))
	try(os.Rename(aside, e.cfg.DataDir))
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	try(err)
	try(replaceIn(filepath.Join(e.cfg.DataDir, "cri"), bytes.TrimSpace(boot), []byte("an-earlier-boot")))
}

// replaceIn replaces what each file in a directory has of before; one must.
func replaceIn(dir string, before, after []byte) error {
	found := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(b, before) {
			return err
		}
		found = true
		return os.WriteFile(path, bytes.ReplaceAll(b, before, after), 0o600)
	})
	if err == nil && !found {
		err = fmt.Errorf("nothing in %s speaks of %s", dir, before)
	}
	return err
}
