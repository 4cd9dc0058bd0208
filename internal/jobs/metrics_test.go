package jobs

import (
	"bytes"
	"slices"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kmetrics "k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/testutil"
)

// measured makes the engine's metrics count and returns what gathers them.
func (w *world) measured() kmetrics.KubeRegistry {
	w.t.Helper()
	registry := kmetrics.NewKubeRegistry()
	if err := w.engine.metrics.register(registry.Register); err != nil {
		w.t.Fatal(err)
	}
	return registry
}

// sample is what a counter shows for some labels.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

// compareSamples fails the test unless the registry has just these samples of each counter that is named.
func compareSamples(t *testing.T, registry kmetrics.KubeRegistry, want ...sample) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	left := slices.Clone(want)
	for _, f := range families {
		if !slices.ContainsFunc(want, func(s sample) bool { return s.name == f.GetName() }) {
			continue
		}
		for _, m := range f.GetMetric() {
			i := slices.IndexFunc(left, func(s sample) bool { return s.name == f.GetName() && testutil.LabelsMatch(m, s.labels) })
			switch {
			case i < 0:
				t.Errorf("%s has %v", f.GetName(), m)
			case m.GetCounter().GetValue() != left[i].value:
				t.Errorf("%s: %v, want %v", f.GetName(), m, left[i].value)
				fallthrough
			default:
				left = slices.Delete(left, i, i+1)
			}
		}
	}
	for _, s := range left {
		t.Errorf("%s%v is missing", s.name, s.labels)
	}
}

func handledBy(action string, n float64) sample {
	return sample{"job_controller_pod_failures_handled_by_failure_policy_total", map[string]string{"action": action}, n}
}

func finishedIndexes(status, limit string, n float64) sample {
	return sample{"job_controller_job_finished_indexes_total", map[string]string{"status": status, "backoffLimit": limit}, n}
}

// Indexes are counted once they have succeeded or been given up, by whose limit it is.
func TestIndexMetrics(t *testing.T) {
	w := newWorld(t)
	registry := w.measured()
	global := w.create(makeJob("global").indexed(4).parallelism(4).obj())
	perIndex := w.create(makeJob("per-index").indexed(3).parallelism(3).limitPerIndex(1).obj())
	w.settle()
	w.end(w.ofIndex(global, 0), corev1.PodSucceeded)
	w.end(w.ofIndex(global, 1), corev1.PodFailed) // runs again
	w.end(w.ofIndex(perIndex, 0), corev1.PodSucceeded)
	w.end(w.ofIndex(perIndex, 1), corev1.PodFailed) // runs again
	w.pass(time.Minute)
	w.end(w.ofIndex(perIndex, 1), corev1.PodFailed)
	w.settle()
	w.boot(0, 0) // what was counted isn't counted again
	again := w.measured()
	w.endAll(global, corev1.PodSucceeded)
	w.endAll(perIndex, corev1.PodSucceeded)
	w.settle()
	compareSamples(t, registry,
		finishedIndexes("succeeded", "global", 1), finishedIndexes("succeeded", "perIndex", 1), finishedIndexes("failed", "perIndex", 1))
	compareSamples(t, again,
		finishedIndexes("succeeded", "global", 3), finishedIndexes("succeeded", "perIndex", 1), finishedIndexes("failed", "perIndex", 0),
		sample{"job_controller_jobs_finished_total", map[string]string{"completion_mode": "Indexed", "result": "succeeded", "reason": "CompletionsReached"}, 1},
		sample{"job_controller_jobs_finished_total", map[string]string{"completion_mode": "Indexed", "result": "failed", "reason": "FailedIndexes"}, 1},
	)
}

// An index that has gone with the Job's size is nothing that has finished, nor does the counter fall for it.
func TestIndexMetricsOfAnElasticJob(t *testing.T) {
	w := newWorld(t)
	registry := w.measured()
	job := w.create(makeJob("job").indexed(3).parallelism(3).obj())
	w.settle()
	w.end(w.ofIndex(job, 2), corev1.PodSucceeded)
	w.settle()
	w.resize(2)
	w.settle()
	compareSamples(t, registry, finishedIndexes("succeeded", "global", 1))
	w.endAll(job, corev1.PodSucceeded)
	w.settle()
	compareSamples(t, registry, finishedIndexes("succeeded", "global", 3))
}

// Each failed pod is counted once under the action of the rule that matched, and under none if none did.
func TestPolicyMetrics(t *testing.T) {
	w := newWorld(t)
	registry := w.measured()
	job := w.create(makeJob("job").indexed(6).parallelism(6).limitPerIndex(3).failureRules(
		onExit(batchv1.PodFailurePolicyActionIgnore, 2), onExit(batchv1.PodFailurePolicyActionCount, 3),
		onExit(batchv1.PodFailurePolicyActionFailJob, 4), onExit(batchv1.PodFailurePolicyActionFailIndex, 5),
	).obj())
	w.settle()
	for index, code := range []int32{1, 2, 3, 5, 2} {
		w.fail(w.ofIndex(job, int32(index)), code)
	}
	w.pass(9 * time.Second) // what is handed on to a pod not yet created isn't handled yet
	compareSamples(t, registry, handledBy("FailIndex", 1))
	w.pass(time.Second)
	compareSamples(t, registry, handledBy("Ignore", 2), handledBy("Count", 1), handledBy("FailIndex", 1))
	w.fail(w.ofIndex(job, 5), 4)
	w.settle()
	compareSamples(t, registry, handledBy("Ignore", 2), handledBy("Count", 1), handledBy("FailIndex", 1), handledBy("FailJob", 1))
}

// A pod whose release needs a second try is counted all the same.
func TestPolicyMetricsAfterAFailedRelease(t *testing.T) {
	w := newWorld(t)
	registry := w.measured()
	job := w.create(makeJob("job").failureRules(onExit(batchv1.PodFailurePolicyActionCount, 3)).obj())
	w.settle()
	w.fail(w.active(job)[0], 3)
	w.api.hook = func(verb, _, _ string) fault {
		if verb == "patch" {
			return fault{err: apierrors.NewTooManyRequests("busy", 1)}
		}
		return fault{}
	}
	w.settle()
	w.api.hook = nil
	w.pass(time.Minute)
	compareSamples(t, registry, handledBy("Count", 1))
}

// disliked are the metrics that break one of Prometheus' rules, and why.
var disliked = map[string]string{
	"job_controller_job_finished_indexes_total": "the label backoffLimit is upstream's",
}

// All metrics keep Prometheus' rules for names and help texts.
func TestMetricsLint(t *testing.T) {
	w := newWorld(t)
	registry := w.measured()
	m := w.engine.metrics
	// A metric shows once it has a value.
	m.syncDuration.WithLabelValues("", "", "").Observe(1)
	m.syncs.WithLabelValues("", "", "").Inc()
	m.finished.WithLabelValues("", "", "").Inc()
	m.external.WithLabelValues("").Inc()
	m.podsFinished.WithLabelValues("", "").Inc()
	m.indexesFinished.WithLabelValues("", "").Inc()
	m.policyHandled.WithLabelValues("").Inc()
	m.terminatedPods.WithLabelValues("").Inc()
	m.podsCreated.WithLabelValues("", "").Inc()
	m.deletionDuration.Observe(1)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) != 10 {
		t.Errorf("%d metrics are checked", len(families))
	}
	var text bytes.Buffer
	for _, f := range families {
		if _, err := testutil.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	problems, err := testutil.NewPromLinter(&text).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if disliked[p.Metric] == "" {
			t.Error(p.String())
		}
	}
}
