//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"errand.dev/errand/test/harness"
)

// What kubectl does with an API, each verb once.
func TestKubectl(t *testing.T) {
	e := start(t)

	t.Run("explain", func(t *testing.T) {
		e := e.with(t)
		out := e.kubectl("explain", "job.spec.suspend")
		for _, want := range []string{"FIELD: suspend <boolean>", "suspend specifies whether the Job controller should create Pods or not"} {
			if !strings.Contains(out, want) {
				t.Errorf("it does not say %q:\n%s", want, out)
			}
		}
	})

	t.Run("apply --server-side", func(t *testing.T) {
		e := e.with(t)
		manifest := job("ssa", "true", "suspend: true")
		wantLines(t, e.kubectlIn(manifest, "apply", "--server-side", "-f", "-"), "job.batch/ssa serverside-applied")
		e.kubectl("patch", "job/ssa", "--field-manager=other", "--patch", `{"spec":{"parallelism":3}}`)
		conflict := e.refused(strings.Replace(manifest, "suspend: true", "suspend: true\n  parallelism: 2", 1), "apply", "--server-side", "-f", "-")
		if !strings.Contains(conflict, `conflict with "other"`) || !strings.Contains(conflict, ".spec.parallelism") {
			t.Errorf("the conflict reads:\n%s", conflict)
		}
		managers := e.kubectl("get", "job", "ssa", "-o", "jsonpath={.metadata.managedFields[*].manager}", "--show-managed-fields")
		if !strings.Contains(managers, "kubectl") || !strings.Contains(managers, "other") {
			t.Errorf("the managers are %q", managers)
		}
	})

	// kubectl looks for such kinds among custom resources, of which there are none.
	t.Run("create of a kind that can only be created", func(t *testing.T) {
		e := e.with(t)
		manifest := "apiVersion: authorization.k8s.io/v1\nkind: SelfSubjectAccessReview\nspec: {resourceAttributes: {verb: create, group: batch, resource: jobs}}\n"
		wantLines(t, e.kubectlIn(manifest, "create", "-f", "-", "-o", "jsonpath={.status.allowed}"), "true")
		if r := e.try("", "get", "crds"); r.Code == 0 || !strings.Contains(r.Stderr, `the server doesn't have a resource type "crds"`) {
			t.Errorf("kubectl get crds: exit code %d, %s", r.Code, r.Stderr)
		}
	})

	t.Run("diff", func(t *testing.T) {
		e := e.with(t)
		manifest := job("diffed", "true", "suspend: true")
		e.apply(manifest)
		if r := e.try(manifest, "diff", "-f", "-"); r.Code != 0 || r.Stdout != "" {
			t.Errorf("no change: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		r := e.try(strings.Replace(manifest, "suspend: true", "suspend: true\n  backoffLimit: 2", 1), "diff", "-f", "-")
		if r.Code != 1 || !strings.Contains(r.Stdout, "-  backoffLimit: 6\n+  backoffLimit: 2\n") {
			t.Errorf("a change: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
	})

	t.Run("auth can-i", func(t *testing.T) {
		e := e.with(t)
		wantLines(t, e.kubectl("auth", "can-i", "create", "jobs"), "yes")
		e.kubectl("create", "serviceaccount", "reader")
		e.kubectl("create", "role", "reader", "--verb=get,list", "--resource=jobs.batch")
		e.kubectl("create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:reader")
		as := "--as=system:serviceaccount:default:reader"
		wantLines(t, e.kubectl("auth", "can-i", "list", "jobs", as), "yes")
		if r := e.try("", "auth", "can-i", "delete", "jobs", as); r.Code != 1 || strings.TrimSpace(r.Stdout) != "no" {
			t.Errorf("a reader may delete: exit code %d, %s%s", r.Code, r.Stdout, r.Stderr)
		}
	})

	t.Run("create token", func(t *testing.T) {
		e := e.with(t)
		e.kubectl("create", "serviceaccount", "bearer")
		token := strings.TrimSpace(e.kubectl("create", "token", "bearer", "--duration=10m"))
		out := e.kubectlAs(token, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
		if out != "system:serviceaccount:default:bearer" {
			t.Errorf("the token's owner is %q", out)
		}
	})

	t.Run("get --watch and wait", func(t *testing.T) {
		e := e.with(t)
		seen := e.watchJob("watched")
		e.apply(job("watched", "echo seen"))
		e.wait("condition=complete", "job/watched")
		statuses := <-seen
		if len(statuses) < 2 || statuses[0] != "Running" || statuses[len(statuses)-1] != "Complete" {
			t.Errorf("the watch saw %q, want Running first and Complete last", statuses)
		}
	})

	t.Run("create job --from=cronjob", func(t *testing.T) {
		e := e.with(t)
		e.kubectl("apply", "-f", "../../examples/cronjob.yaml")
		wantLines(t, e.kubectl("create", "job", "by-hand", "--from=cronjob/every-minute"), "job.batch/by-hand created")
		e.wait("condition=complete", "job/by-hand")
		owner := e.kubectl("get", "job", "by-hand", "-o", "jsonpath={.metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name}")
		if owner != "CronJob/every-minute" {
			t.Errorf("its owner is %q", owner)
		}
		e.kubectl("delete", "cronjob", "every-minute")
	})

	t.Run("delete --cascade", func(t *testing.T) {
		e := e.with(t)
		for cascade, podsLeft := range map[string]int{"orphan": 1, "foreground": 0, "background": 0} {
			name := "cascade-" + cascade
			e.apply(job(name, "sleep 3600"))
			e.wait("jsonpath={.status.ready}=1", "job/"+name)
			e.kubectl("delete", "job", name, "--cascade="+cascade)
			if podsLeft == 0 {
				e.wait("delete", "pod", "-l", "batch.kubernetes.io/job-name="+name)
			}
			pods := strings.Fields(e.kubectl("get", "pods", "-l", "batch.kubernetes.io/job-name="+name, "-o", "jsonpath={.items[*].metadata.name}"))
			if len(pods) != podsLeft {
				t.Errorf("--cascade=%s left the pods %q", cascade, pods)
			}
			for _, pod := range pods {
				owners := e.kubectl("get", "pod", pod, "-o", "jsonpath={.metadata.ownerReferences}{.metadata.finalizers}")
				if owners != "" {
					t.Errorf("the orphan still has %s", owners)
				}
				e.kubectl("delete", "pod", pod)
			}
		}
	})

	t.Run("kinds that aren't served", func(t *testing.T) {
		e := e.with(t)
		msg := e.refused("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n", "apply", "-f", "-")
		if !strings.Contains(msg, `no matches for kind "Deployment" in version "apps/v1"`) {
			t.Errorf("a Deployment: %s", msg)
		}
	})

	t.Run("errand kubectl and errand kubeconfig", func(t *testing.T) {
		e := e.with(t)
		out, err := e.errandCommand("kubectl", "get", "namespaces", "default")
		if err != nil || !strings.Contains(out, "default   Active") {
			t.Errorf("errand kubectl: %v\n%s", err, out)
		}
		into := filepath.Join(t.TempDir(), "config")
		if out, err := e.errandCommand("kubeconfig", "--merge", "--into", into); err != nil {
			t.Fatalf("errand kubeconfig --merge: %v\n%s", err, out)
		}
		cfg, err := clientcmd.LoadFromFile(into)
		if err != nil || cfg.CurrentContext != "errand" || cfg.Contexts["errand"] == nil {
			t.Errorf("the merged kubeconfig: %v, %+v", err, cfg)
		}
	})
}

// kubectlAs runs kubectl with a bearer token as its only credential; it must
// succeed.
func (e *errand) kubectlAs(token string, args ...string) string {
	e.t.Helper()
	r := e.tryAs(token, args...)
	if r.Code != 0 {
		e.t.Fatalf("kubectl %s: exit code %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// tryAs does so and returns what came of it.
func (e *errand) tryAs(token string, args ...string) harness.Result {
	e.t.Helper()
	cfg, err := clientcmd.LoadFromFile(e.Kubeconfig())
	if err != nil {
		e.t.Fatal(err)
	}
	for _, user := range cfg.AuthInfos {
		user.ClientCertificateData, user.ClientKeyData, user.Token = nil, nil, token
	}
	path := filepath.Join(e.t.TempDir(), "bearer")
	if err := clientcmd.WriteToFile(*cfg, path); err != nil {
		e.t.Fatal(err)
	}
	return e.try("", append([]string{"--kubeconfig", path}, args...)...)
}

// errandCommand runs one of errand's own commands.
func (e *errand) errandCommand(args ...string) (string, error) {
	cmd := exec.CommandContext(e.t.Context(), filepath.Join(bin, "errand"), args...)
	cmd.Env = append(os.Environ(), "ERRAND_DATA_DIR="+e.cfg.DataDir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// watchJob returns, once a Job of that name is complete, each STATUS that
// kubectl get --watch printed of it. The watch has begun when it returns: kubectl
// has printed what there was, a Job made for that, and watches from there.
func (e *errand) watchJob(name string) <-chan []string {
	e.t.Helper()
	marker := name + "-before"
	e.apply(job(marker, "true", "suspend: true"))
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "kubectl"), "get", "jobs", "--watch", "--output-watch-events", "-o", "json")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+e.Kubeconfig())
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		e.t.Fatal(err)
	}
	begun, result := make(chan bool, 1), make(chan []string, 1)
	go func() {
		defer func() {
			cancel()
			_ = cmd.Wait() // ended by cancel
		}()
		events := json.NewDecoder(bufio.NewReader(out))
		_, err := nextJob(events, marker)
		if begun <- err == nil; err != nil {
			return
		}
		result <- readStatuses(events, name)
	}()
	if !<-begun {
		e.t.Fatal("kubectl get --watch ended before it printed anything")
	}
	return result
}

// jobEvent is what kubectl get --watch --output-watch-events prints.
type jobEvent struct {
	Object struct {
		Metadata struct{ Name string }
		Status   struct {
			Conditions []struct{ Type, Status string }
		}
	}
}

// nextJob reads up to the next event about a Job.
func nextJob(events *json.Decoder, name string) (jobEvent, error) {
	for {
		var event jobEvent
		if err := events.Decode(&event); err != nil || event.Object.Metadata.Name == name {
			return event, err
		}
	}
}

func readStatuses(events *json.Decoder, name string) []string {
	var statuses []string
	for {
		event, err := nextJob(events, name)
		if err != nil {
			return statuses
		}
		status := "Running"
		for _, c := range event.Object.Status.Conditions {
			if c.Type == "Complete" && c.Status == "True" {
				status = "Complete"
			}
		}
		statuses = append(statuses, status)
		if status == "Complete" {
			return statuses
		}
	}
}
