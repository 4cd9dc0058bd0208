//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// churn makes Jobs of all kinds, one after the other, while the API comes and
// goes. What their containers did stands in its ledger, on the host. Of the Jobs
// that have ended most are judged and deleted at once, so that there are never many.
type churn struct {
	t          *testing.T
	ledger     string // a directory
	kubeconfig string
	rate       float64 // pods a second
	random     *rand.Rand
	hits       *hits

	enough func() // makes no more Jobs
	over   sync.WaitGroup
	// backlog is how many of the Jobs that are to end haven't been seen to.
	backlog atomic.Int64

	mu   sync.Mutex
	jobs map[string]churnKind // by name
	// sleeping are the Jobs that have been made, and go on until they are deleted.
	sleeping []string

	// The rest is its goroutines' until over is done.

	pods int // as many as the Jobs need if nothing is killed
	// held is for how long the backlog was too long to make more.
	held time.Duration
	// settled are the Jobs that have ended and were judged; all but those that are
	// kept have been deleted then.
	settled, kept map[string]bool
	// lost counts containers that did not end by themselves, by what became of them.
	lost map[string]int
}

// churnKind is a kind of Job and what must become of it, whatever is killed.
type churnKind struct {
	name string
	pods int
	// spec is the Job's, without its template; pod is the template's spec.
	spec, pod string
	// ends is the condition that it ends with; "" for a Job that goes on until it
	// is deleted.
	ends batchv1.JobConditionType
	// succeeded is how many of its pods do then.
	succeeded int32
}

// churnCode is how the containers end that fail for good.
const churnCode = 42

// churnScript is what a container's shell begins with: it enters its start into
// the ledger, and its end with the code that it ends with.
const churnScript = `me=$HOSTNAME/$NAME; echo "start $me" >> /ledger/lines; end() { echo "end $me $1" >> /ledger/lines; exit $1; }; `

// churnContainer writes a container; more are its other fields.
func churnContainer(name, script, more string) string {
	return fmt.Sprintf(`{name: %s, image: "busybox:latest", imagePullPolicy: IfNotPresent, command: [sh, -c, %q], env: [{name: NAME, value: %s}],
    volumeMounts: [{name: ledger, mountPath: /ledger}]%s}`, name, churnScript+script, name, more)
}

const (
	// churnOften makes a Job outlast any number of its pods' being killed.
	churnOften = "backoffLimit: 1000000"
	churnWait  = `trap 'end 143' TERM; sleep 3600 & wait; end 1`
)

// churnKinds are made in equal numbers.
var churnKinds = []churnKind{
	{
		name: "echo", pods: 2, spec: "completions: 2\nparallelism: 2\n" + churnOften, ends: batchv1.JobComplete, succeeded: 2,
		pod: "restartPolicy: Never\ncontainers: [" + churnContainer("work", "echo hello; end 0", "") + "]",
	},
	{
		name: "fails", pods: 1, ends: batchv1.JobFailed,
		spec: churnOften + fmt.Sprintf("\npodFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [%d]}}]}", churnCode),
		pod:  "restartPolicy: Never\ncontainers: [" + churnContainer("work", fmt.Sprintf("end %d", churnCode), "") + "]",
	},
	{
		name: "again", pods: 1, spec: churnOften, ends: batchv1.JobComplete, succeeded: 1,
		pod: "restartPolicy: OnFailure\ncontainers: [" + churnContainer("work", "mkdir /ledger/$HOSTNAME && end 3; end 0", "") + "]",
	},
	{
		name: "sleeps", pods: 2, spec: "completions: 2\nparallelism: 2\n" + churnOften,
		pod: "restartPolicy: Never\nterminationGracePeriodSeconds: 2\ncontainers: [" + churnContainer("work", churnWait, "") + "]",
	},
	{
		name: "inits", pods: 1, spec: churnOften, ends: batchv1.JobComplete, succeeded: 1,
		pod: "restartPolicy: Never\nterminationGracePeriodSeconds: 5\n" +
			"initContainers: [" + churnContainer("first", "end 0", "") + ", " + churnContainer("beside", churnWait, ", restartPolicy: Always") + "]\n" +
			"containers: [" + churnContainer("work", "end 0", "") + "]",
	},
	{
		// errand leaves these to the OCI runtime.
		name: "shares", pods: 2, spec: "completions: 2\nparallelism: 2\n" + churnOften, ends: batchv1.JobComplete, succeeded: 2,
		pod: "restartPolicy: Never\nshareProcessNamespace: true\ncontainers: [" + churnContainer("work", "end 0", "") + "]",
	},
	{
		name: "privileged", pods: 1, spec: churnOften, ends: batchv1.JobComplete, succeeded: 1,
		pod: "restartPolicy: Never\ncontainers: [" + churnContainer("work", "end 0", ", securityContext: {privileged: true}") + "]",
	},
}

// manifest is the kind's Job of that name.
func (k churnKind) manifest(name, ledger string) (*batchv1.Job, error) {
	indent := func(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n  ") }
	text := fmt.Sprintf("metadata: {name: %s, labels: {churn: %s}}\nspec:\n  %s\n  template:\n    spec:\n      %s\n      volumes: [{name: ledger, hostPath: {path: %q}}]\n",
		name, k.name, indent(k.spec), strings.ReplaceAll(indent(k.pod), "\n", "\n    "), ledger)
	job := &batchv1.Job{}
	if err := yaml.UnmarshalStrict([]byte(text), job); err != nil {
		return nil, fmt.Errorf("%w in:\n%s", err, text)
	}
	return job, nil
}

// startChurn begins with so many pods a second, some of which are hit.
func (e *errand) startChurn(rate float64, seed uint64, hits *hits) *churn {
	e.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	enough := make(chan struct{})
	c := &churn{
		t: e.t, ledger: e.t.TempDir(), kubeconfig: e.Kubeconfig(), rate: rate, random: rand.New(rand.NewPCG(seed, 1)), hits: hits,
		enough: sync.OnceFunc(func() { close(enough) }), jobs: map[string]churnKind{},
		settled: map[string]bool{}, kept: map[string]bool{}, lost: map[string]int{},
	}
	c.over.Go(func() { c.run(ctx, enough) })
	c.over.Go(func() { c.settle(ctx, enough) })
	e.t.Cleanup(func() {
		cancel()
		c.end()
	})
	return c
}

// end stops it, once the Job that it is making is made: there must be an API.
func (c *churn) end() {
	c.enough()
	c.over.Wait()
}

const (
	// churnBacklog is for how long the Jobs may have been made that are unfinished:
	// a machine that can't do the rate isn't to drown, but errand may be away for a
	// while.
	churnBacklog = 8 * time.Second
	// churnPause is how long no more are made then, and how often Jobs are looked at.
	churnPause = time.Second / 2
	// churnClients is how many Jobs are made at a time: what was due while the API was
	// away is a lot.
	churnClients = 4
	// churnKeeps: one in so many of the Jobs that have ended stays to the end, through
	// all the restarts.
	churnKeeps = 8
)

func (c *churn) run(ctx context.Context, enough <-chan struct{}) {
	perJob := 0.0
	for _, k := range churnKinds {
		perJob += float64(k.pods) / float64(len(churnKinds))
	}
	every := time.Duration(float64(time.Second) * perJob / c.rate)
	next := time.NewTimer(0)
	defer next.Stop()
	calls := make(chan func(*insistent))
	var clients sync.WaitGroup
	defer clients.Wait()
	defer close(calls)
	for range churnClients {
		clients.Go(func() {
			api := &insistent{t: c.t, kubeconfig: c.kubeconfig}
			for call := range calls {
				call(api)
			}
		})
	}
	for n, due := 0, time.Now(); ; {
		select {
		case <-next.C:
		case <-enough:
			return
		}
		// What was due while the API was away is made up for, what the machine can't do isn't.
		if time.Duration(c.backlog.Load())*every > churnBacklog {
			c.held += churnPause
			due = time.Now().Add(churnPause)
			next.Reset(time.Until(due))
			continue
		}
		due = due.Add(every)
		next.Reset(time.Until(due))
		kind := churnKinds[n%len(churnKinds)]
		name := fmt.Sprintf("%s-%d", kind.name, n)
		n++
		job, err := kind.manifest(name, c.ledger)
		if err != nil {
			c.t.Error(err)
			return
		}
		c.add(name, kind)
		calls <- func(api *insistent) {
			api.create(ctx, job)
			if kind.ends == "" {
				c.sleeps(name)
			}
		}
		// Some of these go before they have started, some after.
		if c.random.IntN(len(churnKinds)) < 2 {
			if oldest, ok := c.wake(); ok {
				calls <- func(api *insistent) { api.delete(ctx, oldest) }
			}
		}
	}
}

// sleeps takes that a Job has been made that goes on until it is deleted. A deletion
// that came before would find nothing, and the Job stay for ever.
func (c *churn) sleeps(job string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sleeping = append(c.sleeping, job)
}

// wake returns the oldest of them, which is to be deleted.
func (c *churn) wake() (job string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sleeping) == 0 {
		return "", false
	}
	job, c.sleeping = c.sleeping[0], c.sleeping[1:]
	return job, true
}

func (c *churn) add(name string, kind churnKind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jobs[name] = kind
	c.pods += kind.pods
	if kind.ends != "" {
		c.backlog.Add(1)
	}
}

func (c *churn) kind(job string) churnKind {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.jobs[job]
}

// settle judges the Jobs that have ended, and deletes most of them, until enough.
func (c *churn) settle(ctx context.Context, enough <-chan struct{}) {
	api := &insistent{t: c.t, kubeconfig: c.kubeconfig}
	next := time.NewTicker(churnPause)
	defer next.Stop()
	for {
		select {
		case <-next.C:
		case <-enough:
			return
		}
		var jobs *batchv1.JobList
		var pods *v1.PodList
		api.insist(ctx, func(ctx context.Context, client kubernetes.Interface) (err error) {
			if jobs, err = client.BatchV1().Jobs("default").List(ctx, metav1.ListOptions{LabelSelector: "churn"}); err == nil {
				pods, err = client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
			}
			return err
		})
		if ctx.Err() != nil {
			return
		}
		of := map[string][]v1.Pod{}
		for _, p := range pods.Items {
			of[p.Labels[batchv1.JobNameLabel]] = append(of[p.Labels[batchv1.JobNameLabel]], p)
		}
		ledger := c.entries()
		for i := range jobs.Items {
			if j := &jobs.Items[i]; finished(j) && !c.settled[j.Name] {
				c.settleOne(ctx, api, j, of[j.Name], ledger)
			}
		}
	}
}

func (c *churn) settleOne(ctx context.Context, api *insistent, j *batchv1.Job, pods []v1.Pod, ledger map[string]ledgerEntry) {
	c.judge(j, pods, ledger)
	c.settled[j.Name] = true
	c.backlog.Add(-1)
	if len(c.settled)%churnKeeps == 0 {
		c.kept[j.Name] = true
		return
	}
	api.delete(ctx, j.Name)
}

// insistent asks an API that comes and goes. It is one goroutine's.
type insistent struct {
	t          *testing.T
	kubeconfig string
	client     kubernetes.Interface // nil if it is to connect anew
}

func (a *insistent) create(ctx context.Context, job *batchv1.Job) {
	a.insist(ctx, func(ctx context.Context, client kubernetes.Interface) error {
		_, err := client.BatchV1().Jobs("default").Create(ctx, job, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil // by the try that had no answer
		}
		return err
	})
}

func (a *insistent) delete(ctx context.Context, job string) {
	background := metav1.DeletePropagationBackground
	a.insist(ctx, func(ctx context.Context, client kubernetes.Interface) error {
		err := client.BatchV1().Jobs("default").Delete(ctx, job, metav1.DeleteOptions{PropagationPolicy: &background})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
}

// insist asks the API until it answers: meanwhile it is killed, and comes back
// at another port. The API's refusal is not to be had.
func (a *insistent) insist(ctx context.Context, ask func(context.Context, kubernetes.Interface) error) {
	for {
		err := a.connect()
		if err == nil {
			limited, cancel := context.WithTimeout(ctx, 10*time.Second)
			err = ask(limited, a.client)
			cancel()
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
			a.t.Errorf("the churn was refused: %v", err)
			return
		}
		a.client = nil
		// Nothing tells that a file will be written by a process that isn't there yet.
		pause := time.NewTimer(50 * time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

func (a *insistent) connect() error {
	if a.client != nil {
		return nil
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", a.kubeconfig)
	if err != nil {
		return err
	}
	cfg.QPS = -1
	cfg.ContentType = runtime.ContentTypeProtobuf // the lists are long
	a.client, err = kubernetes.NewForConfig(cfg)
	return err
}

// ledgerEntry is what one container of one pod, in all its runs, has written.
type ledgerEntry struct {
	starts int
	codes  []int32 // of its ends, in order
}

// entries reads the ledger, by "pod/container".
func (c *churn) entries() map[string]ledgerEntry {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.ledger, "lines"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.t.Error(err)
	}
	entries := map[string]ledgerEntry{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		var code int32
		switch {
		case len(f) == 2 && f[0] == "start":
			e := entries[f[1]]
			e.starts++
			entries[f[1]] = e
			continue
		case len(f) == 3 && f[0] == "end":
			if _, err := fmt.Sscan(f[2], &code); err == nil {
				e := entries[f[1]]
				e.codes = append(e.codes, code)
				entries[f[1]] = e
				continue
			}
		}
		c.t.Errorf("the ledger has a line %q", line)
	}
	return entries
}
