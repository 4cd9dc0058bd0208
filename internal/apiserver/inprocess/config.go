package inprocess

import (
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
)

const (
	// defaultMaxRequestBytes is the API server's own limit for a request body.
	defaultMaxRequestBytes = 3 << 20

	// writeTimeout and readTimeout are the limits that the API server sets to a request whatever its caller's deadline.
	writeTimeout = 34 * time.Second
	readTimeout  = 60 * time.Second
)

// Config says where the registries are and what stands in front of them. Storage, Scheme and Fallback are required.
type Config struct {
	// Storage returns the registry that serves a resource ("" as subresource) or one of its subresources, as found in the
	// VersionedResourcesStorageMap of the group's APIGroupInfo. False sends that resource to Fallback. It is called by New only.
	Storage func(resource schema.GroupVersionResource, subresource string) (rest.Storage, bool)

	// Scheme knows the v1 and internal types of the groups served, with their defaulting and conversions: legacyscheme.Scheme.
	Scheme *runtime.Scheme

	// Codecs is what the server decodes JSON patches with. Defaults to the codecs of Scheme.
	Codecs runtime.NegotiatedSerializer

	// Fallback serves every call that isn't served in-process. It must talk to the same server.
	Fallback kubernetes.Interface

	// Admission is the chain that HTTP requests pass. Nil admits everything.
	Admission admission.Interface

	// Equivalents is the server's registry of resources under several groups, which webhooks with matchPolicy Equivalent consult.
	// Defaults to an empty one.
	Equivalents runtime.EquivalentResourceMapper

	// User is whom admission sees. Requests aren't authorized: whoever holds the client may do anything that this user, one of
	// system:masters, could. Defaults to system:apiserver.
	User user.Info

	// Warnings receives what the HTTP path would send as Warning headers. Nil drops them, and saves finding out about unknown fields.
	Warnings warning.Recorder

	// MaxRequestBytes bounds an object or patch sent, in bytes of its wire form. Defaults to 3 MiB.
	MaxRequestBytes int64

	// MaxWrites is how many writes of this client run at once; a further one waits for its turn, which doesn't count against its timeout.
	// What an API server's limit of mutating requests in flight is for callers by HTTP: some of upstream's controllers begin thousands of
	// deletions together, and etcd refuses everybody's writes when some thousands wait for it. 0 is no limit. Admission must not write
	// with a client that has one: a write that waits for another's turn may be what the other waits for.
	MaxWrites int

	// Clock times the waiting before a request is tried again. Defaults to the real one.
	Clock clock.Clock
}

// New returns a clientset over the registries of cfg. It is safe for concurrent use, and so are all clients got from it.
// Errors are those of an incomplete cfg or of a registry whose kind Scheme doesn't know.
func New(cfg Config) (kubernetes.Interface, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("in-process client: %w", err)
	}
	b := newBackend(cfg.withDefaults())
	c, err := newClientset(b, cfg.Fallback)
	if err != nil {
		return nil, fmt.Errorf("in-process client: %w", err)
	}
	return c, nil
}

func (c Config) validate() error {
	var errs []error
	if c.Storage == nil {
		errs = append(errs, errors.New("the field Storage is required"))
	}
	if c.Scheme == nil {
		errs = append(errs, errors.New("the field Scheme is required"))
	}
	if c.Fallback == nil {
		errs = append(errs, errors.New("the field Fallback is required"))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.Codecs == nil {
		c.Codecs = serializer.NewCodecFactory(c.Scheme)
	}
	if c.Equivalents == nil {
		c.Equivalents = runtime.NewEquivalentResourceRegistry()
	}
	if c.User == nil {
		c.User = &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}
	}
	if c.MaxRequestBytes == 0 {
		c.MaxRequestBytes = defaultMaxRequestBytes
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	return c
}
