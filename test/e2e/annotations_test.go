//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// What a Job may ask for by annotations, beyond Kubernetes' API (docs/jobs.md).
func TestAnnotations(t *testing.T) {
	e := start(t)
	annotated := func(manifest, annotation, value string) string {
		return strings.Replace(manifest, "metadata:", "metadata:\n  annotations: {errand.dev/"+annotation+": '"+value+"'}", 1)
	}

	t.Run("KK122300_an image that can't be pulled", func(t *testing.T) {
		e := e.with(t)
		e.apply(annotated(strings.Replace(job("imageless", "true", "parallelism: 2", "completions: 2"), "image: busybox:latest", "image: nosuch:latest", 1),
			"image-pull-deadline", "1s"))
		e.wait("condition=failed", "job/imageless")
		out := e.kubectl("describe", "job", "imageless")
		for _, want := range []string{"Warning  ImagePullFailed", "Job has waited too long for an image: container", "nosuch:latest"} {
			if !strings.Contains(out, want) {
				t.Errorf("kubectl describe doesn't say %q:\n%s", want, out)
			}
		}
	})

	t.Run("KK94012_a back-off of one's own", func(t *testing.T) {
		e := e.with(t)
		// With Kubernetes' delays, ten failures take over an hour.
		e.apply(annotated(job("hasty", "exit 1", "backoffLimit: 10"), "pod-failure-backoff", "0s"))
		e.wait("condition=failed", "job/hasty")
		if n := e.kubectl("get", "job", "hasty", "-o", "jsonpath={.status.failed}"); n != "11" {
			t.Errorf("it failed %s times", n)
		}
	})

	t.Run("a TTL by outcome", func(t *testing.T) {
		e := e.with(t)
		for name, script := range map[string]string{"fine": "true", "broken": "exit 1"} {
			e.apply(annotated(job(name, script, "backoffLimit: 0"), "ttl-seconds-after-success", "0"))
		}
		e.wait("condition=failed", "job/broken")
		e.wait("delete", "job/fine")
		e.kubectl("get", "job", "broken")
	})

	t.Run("one that means nothing", func(t *testing.T) {
		said := e.with(t).refused(annotated(job("wrong", "true"), "image-pull-deadline", "5 minutes"), "apply", "-f", "-")
		for _, want := range []string{"metadata.annotations[errand.dev/image-pull-deadline]", `"5 minutes"`, "must be a duration such as 500ms"} {
			if !strings.Contains(said, want) {
				t.Errorf("%q isn't in %s", want, said)
			}
		}
	})
}
