//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// dashboard is what of a Grafana dashboard is checked.
type dashboard struct {
	Title      string `json:"title"`
	UID        string `json:"uid"`
	Templating struct {
		List []struct {
			Name       string `json:"name"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
	Panels []struct {
		ID      int    `json:"id"`
		Type    string `json:"type"`
		Title   string `json:"title"`
		Targets []struct {
			Expr         string `json:"expr"`
			LegendFormat string `json:"legendFormat"`
		} `json:"targets"`
	} `json:"panels"`
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	b, err := os.ReadFile("../../deploy/grafana/errand-jobs.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&d); err != nil {
		t.Fatal(err)
	}
	return d
}

// exposed are the values of each label of each metric that a process shows.
type exposed map[string]map[string][]string

var (
	sampleLine = regexp.MustCompile(`(?m)^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$`)
	labelPair  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"`)
)

func parseMetrics(text string) exposed {
	e := exposed{}
	for _, m := range sampleLine.FindAllStringSubmatch(text, -1) {
		if e[m[1]] == nil {
			e[m[1]] = map[string][]string{}
		}
		for _, l := range labelPair.FindAllStringSubmatch(m[2], -1) {
			e[m[1]][l[1]] = append(e[m[1]][l[1]], l[2])
		}
	}
	return e
}

var (
	selector   = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}`)
	grouping   = regexp.MustCompile(`\bby \(([^)]*)\)`)
	matcher    = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)!?="([^"]*)"`)
	duration   = regexp.MustCompile(`\[[^\]]*\]`)
	legend     = regexp.MustCompile(`\{\{(\w+)\}\}`)
	identifier = regexp.MustCompile(`[a-zA-Z_][a-zA-Z0-9_:]*`)
)

// ofScrape are the labels that Prometheus itself adds.
var ofScrape = []string{"job", "instance"}

// flaws says what of a query this process doesn't show.
func (e exposed) flaws(expr, legendFormat string) []string {
	var flaws []string
	var groups []string
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for l := range strings.SplitSeq(g[1], ",") {
			groups = append(groups, strings.TrimSpace(l))
		}
	}
	for _, l := range legend.FindAllStringSubmatch(legendFormat, -1) {
		if !slices.Contains(groups, l[1]) {
			flaws = append(flaws, fmt.Sprintf("the legend's %s isn't what it groups by", l[1]))
		}
	}
	selectors := selector.FindAllStringSubmatch(expr, -1)
	if len(selectors) == 0 {
		flaws = append(flaws, "it asks for nothing")
	}
	for _, s := range selectors {
		labels, ok := e[s[1]]
		if !ok {
			flaws = append(flaws, "there is no "+s[1])
			continue
		}
		for _, g := range groups {
			if labels[g] == nil && !slices.Contains(ofScrape, g) {
				flaws = append(flaws, fmt.Sprintf("%s has no label %s", s[1], g))
			}
		}
		for _, scrape := range ofScrape {
			if !strings.Contains(s[2], scrape+`=~"$`+scrape+`"`) {
				flaws = append(flaws, fmt.Sprintf("%s isn't narrowed to $%s", s[1], scrape))
			}
		}
		for _, l := range matcher.FindAllStringSubmatch(s[2], -1) { // not those of a scrape, which match with =~
			if !slices.Contains(labels[l[1]], l[2]) {
				flaws = append(flaws, fmt.Sprintf("%s has no %s=%q", s[1], l[1], l[2]))
			}
		}
	}
	rest := duration.ReplaceAllString(grouping.ReplaceAllString(selector.ReplaceAllString(expr, ""), ""), "")
	for _, word := range identifier.FindAllString(rest, -1) {
		if !slices.Contains([]string{"sum", "max", "rate", "increase", "clamp_min", "histogram_quantile"}, word) {
			flaws = append(flaws, word+" is neither a metric with a selector nor a known function")
		}
	}
	return flaws
}

// notServed are metrics that errand serve does without: nobody competes with it, and to measure a work queue wakes the process twice a second
// (internal/apiserver/quietqueues).
var notServed = regexp.MustCompile(`\b(workqueue|leader_election)_`)

// Every query of the dashboard asks for what errand-controller shows, and, but for those, for what errand serve shows.
func TestDashboard(t *testing.T) {
	e := start(t, "--node=false")
	c := e.controllerOf("a", "errand-controller") // with metrics of its queues, which errand does without
	c.awaitLead()
	for _, manager := range []string{"", "errand.dev/job-controller"} {
		e.touchEveryMetric(manager)
	}
	e.awaitCompleted()
	_, text := c.get("/metrics")
	processes := map[string]exposed{"errand-controller": parseMetrics(text), "errand serve": parseMetrics(e.kubectl("get", "--raw", "/metrics"))}
	d := readDashboard(t)
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s asks for nothing", p.Title)
		}
		for _, target := range p.Targets {
			for process, shows := range processes {
				if process == "errand serve" && notServed.MatchString(target.Expr) {
					continue
				}
				for _, flaw := range shows.flaws(target.Expr, target.LegendFormat) {
					t.Errorf("%s, of %s: %s: %s", p.Title, process, flaw, target.Expr)
				}
			}
		}
	}
	if len(ids) < 20 || d.UID == "" || d.Title == "" {
		t.Errorf("%q has %d panels: is it the dashboard?", d.Title, len(ids))
	}
	for _, v := range d.Templating.List {
		if v.Name == "datasource" {
			continue
		}
		metric := identifier.FindString(strings.TrimPrefix(v.Definition, "label_values("))
		for process, shows := range processes {
			if shows[metric] == nil {
				t.Errorf("$%s comes from %q, which %s doesn't show", v.Name, v.Definition, process)
			}
		}
	}
}

// touchEveryMetric runs Jobs of a manager by whose ends everything is counted that a Job engine counts.
func (e *errand) touchEveryMetric(manager string) {
	e.t.Helper()
	name, managed := "of-serve", "backoffLimit: 3"
	if manager != "" {
		name, managed = "of-controller", "managedBy: "+manager
	}
	e.apply(job(name+"-indexed", "true", managed, "completionMode: Indexed", "completions: 2", "parallelism: 2", "backoffLimitPerIndex: 0"))
	e.apply(job(name+"-judged", "true", managed, "podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]}"))
	e.apply(job(name+"-brief", "true", managed, "ttlSecondsAfterFinished: 0"))
	e.endPods(name+"-indexed", 2, func(n int) int { return n })
	e.endPods(name+"-judged", 1, func(int) int { return 42 })
	e.until(name+"-indexed", finished)
	e.until(name+"-judged", finished)
	ctx := e.t.Context()
	w, err := e.client.BatchV1().Jobs("default").Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name + "-brief"})
	if err != nil {
		e.t.Fatal(err)
	}
	defer w.Stop()
	e.endPods(name+"-brief", 1, func(int) int { return 0 })
	for ev := range w.ResultChan() {
		if ev.Type == "DELETED" {
			return
		}
	}
	e.t.Error("the watch ended before the Job was deleted")
}

// endPods ends the first n pods of a Job, as a node would say it, with exit codes.
func (e *errand) endPods(jobName string, n int, code func(int) int) {
	e.t.Helper()
	w, err := e.client.CoreV1().Pods("default").Watch(e.t.Context(), metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + jobName})
	if err != nil {
		e.t.Fatal(err)
	}
	defer w.Stop()
	ended := map[string]bool{}
	for ev := range w.ResultChan() {
		pod, ok := ev.Object.(*v1.Pod)
		if !ok || ended[pod.Name] {
			continue
		}
		c := code(len(ended))
		ended[pod.Name] = true
		phase := v1.PodSucceeded
		if c != 0 {
			phase = v1.PodFailed
		}
		patch := fmt.Appendf(nil, `{"status":{"phase":%q,"containerStatuses":[{"name":"work","image":"busybox","imageID":"busybox",
			"state":{"terminated":{"exitCode":%d,"finishedAt":%q}}}]}}`, phase, c, metav1.Now().UTC().Format("2006-01-02T15:04:05Z"))
		if _, err := e.client.CoreV1().Pods("default").Patch(e.t.Context(), pod.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
			e.t.Fatalf("end pod %s: %v", pod.Name, err)
		}
		if len(ended) == n {
			return
		}
	}
	e.t.Fatalf("the watch ended after %d pods of Job %s", len(ended), jobName)
}

// A query that asks for what isn't there is found out.
func TestFlawsOfQueries(t *testing.T) {
	shows := parseMetrics("# TYPE a counter\na{x=\"1\",y=\"p\\\"q\"} 3\na{x=\"2\",y=\"\"} 4e-05\nb 5\n")
	const scrape = `job=~"$job",instance=~"$instance"`
	for _, tc := range []struct{ expr, legend, want string }{
		{`sum by (x, instance) (rate(a{` + scrape + `,x="2"}[$__rate_interval])) / sum(b{` + scrape + `})`, "{{instance}}", "b has no label x"},
		{`sum by (x) (rate(a{` + scrape + `}[5m]))`, "{{x}}", ""},
		{`sum by (z) (a{` + scrape + `})`, "", "a has no label z"},
		{`sum by (x) (a{` + scrape + `})`, "{{y}}", "the legend's y"},
		{`sum(c{` + scrape + `})`, "", "there is no c"},
		{`sum(a{` + scrape + `,x="3"})`, "", `a has no x="3"`},
		{`sum(a{` + scrape + `,x!="3"})`, "", `a has no x="3"`},
		{`sum(a{job=~"$job"})`, "", "a isn't narrowed to $instance"},
		{`sum(a{` + scrape + `}) + b`, "", "b is neither"},
		{`1`, "", "asks for nothing"},
	} {
		got := strings.Join(shows.flaws(tc.expr, tc.legend), "; ")
		if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.expr, got, tc.want)
		}
	}
}
