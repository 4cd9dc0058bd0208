// Package upstream names what upstream's critest and crictl are made of, and nothing else: its module pins the version of cri-tools
// from which `make critest` compiles both.
//
// It is a module of its own, so that what only critest needs doesn't get into errand's go.mod. The versions of all else are those
// that this version of cri-tools was released with.
package upstream

import (
	// critest itself is a package of tests alone, which can't be imported; this is what it runs, and what it needs besides.
	_ "sigs.k8s.io/cri-tools/pkg/benchmark"
	_ "sigs.k8s.io/cri-tools/pkg/framework"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
)
