// Package apiserver serves the Kubernetes API of one errand.
//
// The API is upstream's: registries, defaulting, validation, printers, admission
// plugins and OpenAPI come from k8s.io/kubernetes, the server from
// k8s.io/apiserver. The package owns which of them are assembled and how: the
// groups (groups.go, core.go), the store behind them (storage.go, package etcd),
// who gets in (authn.go, authz.go, package pki), admission (admission.go), what
// every fresh server must hold (bootstrap.go, rbac.go) and its life (server.go).
//
// It knows nothing of what runs the Jobs. The node agent's private server is
// reached through [Config.NodeDialer].
//
// Decisions that differ from a cluster's API server:
//
//   - Only stable API versions are served, and only the groups that a Job can
//     touch. There is no aggregator; a server for custom resources can be put
//     behind this one as its delegation target.
//   - Services are stored and get addresses, so that manifests and operators
//     work, but nothing routes to them; creating one warns. There is no
//     "kubernetes" Service for that reason: a pod that is to reach the API is
//     given its address by the node agent.
//   - Priority and fairness is off; a plain limit of requests in flight stays.
package apiserver
