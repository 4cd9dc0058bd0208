// Package clienttest is the contract that every kubernetes.Interface of errand's API server keeps.
//
// A case is a script of API calls with its expectations. Run plays each case through every client it is given, each time in a namespace of its
// own, and then compares what the clients saw: the same objects, errors and events, but for what is random or a time. A client is thereby held
// both to the contract and to the other clients, of which one ought to be the plain HTTP client.
//
// The package owns the cases about the API's semantics. What depends on a server set up for a test (admission plugins that fail on demand)
// belongs to that server's tests, which play their cases with RunCases.
package clienttest

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	typedbatchv1 "k8s.io/client-go/kubernetes/typed/batch/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// caseTimeout bounds one case with one client.
const caseTimeout = 60 * time.Second

// Server is an API server under test.
type Server struct {
	// Clients are what the cases are played through, by the name that failures show. The first is compared with all others.
	Clients []Client
	// Compact makes the store forget all revisions before the current one. Nil leaves out the cases that need it.
	Compact func(ctx context.Context) error
}

// Client is one way to the server.
type Client struct {
	Name string
	kubernetes.Interface
}

// Case is a script of API calls. It must leave nothing cluster-scoped behind and depend on nothing outside its namespace.
type Case struct {
	Name string
	Run  func(s *Session)
	// Alone keeps a case from disturbing the others, which run in parallel.
	Alone bool
}

// Run plays all cases of this package.
func Run(t *testing.T, server Server) {
	RunCases(t, server, cases()...)
}

func cases() []Case {
	var all []Case
	for _, group := range [][]Case{
		createCases(), updateCases(), patchCases(), patchErrorCases(), deleteCases(), evictCases(), readCases(), selectorCases(), watchCases(), watchListCases(),
		errorCases(), resourceCases(), eventCases(), isolationCases(), concurrencyCases(),
	} {
		all = append(all, group...)
	}
	return all
}

// RunCases plays cases through every client of the server and compares what they saw.
func RunCases(t *testing.T, server Server, cases ...Case) {
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			if !c.Alone {
				t.Parallel()
			}
			var first *Session
			for _, client := range server.Clients {
				s := play(t, server, client, c)
				if first == nil {
					first = s
					continue
				}
				if diff := cmp.Diff(s.trace, first.trace); diff != "" {
					t.Errorf("%s and %s differ (-%s +%s):\n%s", client.Name, first.client, client.Name, first.client, diff)
				}
			}
		})
	}
}

func play(t *testing.T, server Server, client Client, c Case) *Session {
	var s *Session
	t.Run(client.Name, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), caseTimeout)
		t.Cleanup(cancel)
		s = &Session{T: t, Ctx: ctx, Interface: client.Interface, Server: server, client: client.Name, trace: map[string]string{}}
		ns, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "case-"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatalf("create the case's namespace: %v", err)
		}
		s.Namespace = ns.Name
		s.Alias(ns.Name, "<namespace>")
		s.createServiceAccounts("default", "other")
		c.Run(s)
	})
	return s
}

// createServiceAccounts makes what pods may need in the namespace. A server without service accounts doesn't ask for them either.
func (s *Session) createServiceAccounts(names ...string) {
	for _, name := range names {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}, AutomountServiceAccountToken: new(bool)}
		if _, err := s.CoreV1().ServiceAccounts(s.Namespace).Create(s.Ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsNotFound(err) {
			s.Fatalf("create the service account %s: %v", name, err)
		}
	}
}

// Session is one case being played through one client.
type Session struct {
	*testing.T
	kubernetes.Interface
	Server Server
	Ctx    context.Context // ends when the case has lasted too long
	// Namespace is the case's own.
	Namespace string

	client  string
	aliases []alias
	trace   map[string]string
}

// Pods is the client of the pods in the case's namespace.
func (s *Session) Pods() typedcorev1.PodInterface { return s.CoreV1().Pods(s.Namespace) }

// ConfigMaps is the client of the config maps in the case's namespace.
func (s *Session) ConfigMaps() typedcorev1.ConfigMapInterface {
	return s.CoreV1().ConfigMaps(s.Namespace)
}

// Jobs is the client of the jobs in the case's namespace.
func (s *Session) Jobs() typedbatchv1.JobInterface { return s.BatchV1().Jobs(s.Namespace) }

// Must ends the case if a call failed that has to work.
func (s *Session) Must(err error) {
	s.Helper()
	if err != nil {
		s.Fatalf("unexpected error: %v", err)
	}
}

// Want checks that a call failed as it has to, and records the failure under a name.
func (s *Session) Want(name string, is func(error) bool, err error) {
	s.Helper()
	s.RecordError(name, err)
	if err == nil || !is(err) {
		s.Errorf("%s: got error %v, which isn't the kind expected", name, err)
	}
}

// That checks a condition.
func (s *Session) That(ok bool, format string, args ...any) {
	s.Helper()
	if !ok {
		s.Errorf(format, args...)
	}
}
