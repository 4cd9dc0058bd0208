// Package quietqueues keeps work queues from measuring themselves.
//
// A named queue with metrics wakes twice a second, for as long as it exists, to
// publish how long its items have been worked on. A process with the API server
// and controllers has some twenty of them: two thirds of all that wakes an idle
// errand. The API server's packages turn these metrics on when they are loaded,
// and nothing turns them off.
//
// It owns that one switch. The first provider that is set stays, and until one
// is set there are no metrics: the package sets what is there already, and is
// loaded before the API server's packages. Go loads packages in the order of
// their paths as far as their imports allow, and this one imports hardly more
// than the queues. A test says whether all this still holds.
package quietqueues

import (
	_ "unsafe" // for go:linkname

	"k8s.io/client-go/util/workqueue"
)

// current is the provider in use: at this point the one without metrics, whose
// type isn't exported.
//
//go:linkname current k8s.io/client-go/util/workqueue.globalMetricsProvider
var current workqueue.MetricsProvider

func init() { workqueue.SetProvider(current) }
