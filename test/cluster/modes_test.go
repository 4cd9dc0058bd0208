//go:build cluster

package cluster_test

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"errand.dev/errand/test/cluster"
)

// errand controller runs the Jobs that name it beside upstream's controller, which runs the others. Neither touches the other's.
func TestBesideUpstream(t *testing.T) {
	c := startCluster(t, "*")
	startController(t, c)
	ours := newWorld(t, c, "ours", managedByErrand)
	theirs := newWorld(t, c, "theirs", "")
	doomed := newWorld(t, c, "doomed", managedByErrand)
	t.Run("tries", func(t *testing.T) {
		t.Run("errand", func(t *testing.T) { t.Parallel(); tryFeatures(t, ours) })
		t.Run("upstream", func(t *testing.T) { t.Parallel(); tryFeatures(t, theirs) })
		t.Run("namespace", func(t *testing.T) { t.Parallel(); doomed.with(t).namespaceEnds() })
		t.Run("handing over", func(t *testing.T) { t.Parallel(); handingOver(t, ours.with(t)) })
	})
	wantApart(t, c)
}

// errand controller runs all Jobs of a cluster in which upstream's controller doesn't.
func TestInsteadOfUpstream(t *testing.T) {
	c := startCluster(t, withoutJobs)
	startController(t, c, "--managed-by", "kubernetes.io/job-controller")
	unnamed := newWorld(t, c, "unnamed", "")
	named := newWorld(t, c, "named", "kubernetes.io/job-controller")
	doomed := newWorld(t, c, "doomed", "")
	t.Run("tries", func(t *testing.T) {
		t.Run("unnamed", func(t *testing.T) { t.Parallel(); tryFeatures(t, unnamed) })
		t.Run("named", func(t *testing.T) { t.Parallel(); nonIndexed(named.with(t)) })
		t.Run("namespace", func(t *testing.T) { t.Parallel(); doomed.with(t).namespaceEnds() })
	})
	for _, e := range writes(t, c) {
		if e.user == cluster.UpstreamUser {
			t.Errorf("upstream's controller runs, and wrote: %s", e)
		}
	}
}

// handingOver shows that a Job stays whose it is (KEP-4368): only one made anew, of the same name, may be another's.
func handingOver(t *testing.T, w *world) {
	w.run("handed", spec{Suspend: ptr.To(true)}, succeed)
	for _, to := range []*string{nil, ptr.To("kubernetes.io/job-controller"), ptr.To("example.com/other")} {
		// Not even while it is suspended.
		if err := w.tryUpdate("handed", func(s *spec) { s.ManagedBy = to }); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "immutable") {
			t.Errorf("to be managed by %q instead: %v", ptr.Deref(to, ""), err)
		}
	}
	w.delete("handed", metav1.DeletePropagationForeground)
	w.untilGone("handed")
	w.manager = "example.com/nobody"
	w.create("handed", spec{})
	w.delete("handed", metav1.DeletePropagationForeground)
	w.untilGone("handed")
	if pods := w.pods("handed"); len(pods) > 0 {
		t.Errorf("a Job that another manages has got %d pods", len(pods))
	}
	w.manager = managedByErrand
	w.create("handed", spec{})
	w.ends("handed", result{end: "Complete", reason: "CompletionsReached", succeeded: 1})
}

// write is one in the audit log.
type write struct{ user, verb, resource, namespace, name string }

func (w write) String() string {
	return strings.Join([]string{w.user, w.verb, w.resource, w.namespace + "/" + w.name}, " ")
}

func writes(t *testing.T, c *cluster.Cluster) []write {
	t.Helper()
	events, err := c.Writes()
	must(t, err)
	var all []write
	for _, e := range events {
		resource := e.ObjectRef.Resource
		if e.ObjectRef.Subresource != "" {
			resource += "/" + e.ObjectRef.Subresource
		}
		all = append(all, write{e.User.Username, e.Verb, resource, e.ObjectRef.Namespace, e.ObjectRef.Name})
	}
	return all
}

// wantApart wants each controller to have written in its own namespaces only, and to have written there. A pod whose Job is gone is
// nobody's: whoever comes first takes the finalizer off, so that it can go.
func wantApart(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	counts, gone := map[string]int{}, map[string]bool{}
	for _, w := range writes(t, c) {
		counts[w.user]++
		if w.resource == "jobs" && w.verb == "delete" {
			gone[w.namespace+"/"+w.name] = true
		}
		if w.verb == "deletecollection" {
			gone[w.namespace] = true // with the namespace
		}
		foreign := w.namespace == "theirs"
		orphan := w.verb == "patch" && w.resource == "pods" && (gone[w.namespace] || gone[w.namespace+"/"+w.name[:strings.LastIndex(w.name, "-")]])
		if !orphan && (w.user == cluster.ErrandUser && foreign || w.user == cluster.UpstreamUser && !foreign) {
			t.Errorf("a foreign object was written: %s", w)
		}
	}
	if counts[cluster.ErrandUser] == 0 || counts[cluster.UpstreamUser] == 0 {
		t.Errorf("the audit log knows of these writes only: %v", counts)
	}
	t.Logf("writes: %d by errand controller, %d by upstream's", counts[cluster.ErrandUser], counts[cluster.UpstreamUser])
}
