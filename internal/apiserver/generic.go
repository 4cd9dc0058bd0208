package apiserver

import (
	"net"
	"time"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/filters"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"

	"errand.dev/errand/internal/apiserver/pki"
)

const (
	// maxInFlight and maxMutatingInFlight are upstream's defaults.
	maxInFlight, maxMutatingInFlight = 400, 200

	// watchGrace bounds how long watches are given to end when the server stops.
	watchGrace = 200 * time.Millisecond
	// stopTimeout bounds how long requests in flight hold up a stop.
	stopTimeout = 500 * time.Millisecond
)

// newGenericConfig fills in all that doesn't depend on clients: who may enter
// and what is admitted come later.
func newGenericConfig(done *completedConfig, listener net.Listener, certs *pki.Store) *genericapiserver.Config {
	c := genericapiserver.NewConfig(legacyscheme.Codecs)
	c.EffectiveVersion = newEffectiveVersion(done.Version)
	c.FeatureGate = utilfeature.DefaultFeatureGate
	c.MergedResourceConfig = servedResources()
	c.SecureServing = &genericapiserver.SecureServingInfo{
		Listener:                     listener,
		Cert:                         certs.Serving(),
		ClientCA:                     certs.Authority(),
		HTTP2MaxStreamsPerConnection: 1000,
	}
	c.ExternalAddress = reachableAddr(listener)
	c.LoopbackClientConfig = loopbackConfig(reachableAddr(listener), certs)
	c.LongRunningFunc = filters.BasicLongRunningRequestCheck(
		sets.NewString("watch", "proxy"),
		sets.NewString("attach", "exec", "proxy", "log", "portforward"),
	)
	c.MaxRequestsInFlight = maxInFlight
	c.MaxMutatingRequestsInFlight = maxMutatingInFlight
	c.ShutdownWatchTerminationGracePeriod = watchGrace
	// Both serve priority and fairness, which is off; each would tick forever.
	c.StorageObjectCountTracker = nil
	c.DisabledPostStartHooks.Insert("max-in-flight-filter")
	return c
}

// loopbackConfig is a client of the server's own, with every right and without
// limits, as long as the process lives.
func loopbackConfig(addr string, certs *pki.Store) *rest.Config {
	return &rest.Config{
		Host:        "https://" + addr,
		BearerToken: uuid.NewString(),
		TLSClientConfig: rest.TLSClientConfig{
			CAData:     certs.CA(),
			ServerName: "localhost",
		},
		ContentConfig: rest.ContentConfig{
			ContentType: runtime.ContentTypeProtobuf,
			// Kinds without protobuf, those of OpenAPI and of CRDs, come as JSON.
			AcceptContentTypes: runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON,
		},
		DisableCompression: true,
		QPS:                -1,
	}
}
