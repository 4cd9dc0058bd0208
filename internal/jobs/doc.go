// Package jobs is the Job engine: it runs batch/v1 Jobs by creating, counting and removing their pods through the Kubernetes API, in errand's
// own process or against any cluster.
//
// It owns what a Job promises: how many pods run, which ends are counted, when the Job is Complete or Failed, and when a finished Job is
// deleted (TTL). It owns no container, no node and no server: it sees only a kubernetes.Interface and two informers.
//
// # One decision
//
// decide(job, view, now) → plan is pure. A view is the pods as the engine knows them: counters, and the small sets of what has changed. A plan
// is data: pods to create, to delete, to claim, finalizers to release, the status to write, events, and when to look again. Each policy
// (completions, indexes, backoff limits, failure and success policies, deadline, suspension, TTL …) is a pure function in a file of its own. The executor
// carries out a plan and merges what the API answered into the state of the Job; then the Job is decided again, until the plan is empty.
//
// # A view that is never behind the engine's own writes
//
// Informers lag. The engine doesn't wait for them: each answer of the API (a pod created or patched, a status written) is merged at once into the
// Job's state, by resource version, so that an older event that arrives later changes nothing. A pod counts as being deleted from the moment
// that its deletion was accepted. There are no expectations that could time out.
//
// Others' writes are the other half (after a restart, or when another replica led meanwhile). A status that the engine didn't write itself is
// trusted only together with pods at least as new, for it may count pods that a stale cache shows as uncounted; and a release that it didn't
// make only together with a status at least as new, for it may follow a count. Where an informer hasn't come that far, the API is read. A
// Job that had a life before this process knew it is read live once.
//
// # Exactly-once creation
//
// The name of a pod is chosen by the engine, not by the server: the n-th pod of a Job has the n-th name of a walk through all suffixes that depends
// on the Job's UID alone. Creating pod n is thereby a compare-and-swap: a creator with a stale view, a second leader, or a retry of a request whose
// answer was lost meets AlreadyExists, looks, and learns of the pod instead of adding one. Each index of an Indexed Job has such a walk of its own.
//
// # Exactly-once counting, and what it costs
//
// Every pod carries the finalizer batch.kubernetes.io/job-tracking. An ended pod is counted in three steps, each of which may be the last before a crash:
//
//  1. a status write adds its UID to status.uncountedTerminatedPods;
//  2. the finalizer is removed;
//  3. a status write removes the UID and raises the counter.
//
// The success of an Indexed Job's pod needs no UID: the status write that puts its index among the completed ones counts it. A failed pod
// whose index is tried again isn't counted before the next pod of the index exists, which carries the number of failures.
//
// Step 1 of some pods and step 3 of earlier ones share a status write, so a busy Job costs about one status write a sync however many pods end.
// A Job of one pod takes five writes, and none can be saved without giving up a promise: the pod's creation; startTime and active=1 (what users and
// deadlines see of a running Job); the UID together with SuccessCriteriaMet; the finalizer's removal; the counter together with
// Complete. A sixth is written if the pod is seen to be ready in between. Creation isn't delayed by any of them.
//
// # Reaction
//
// Every change is decided at once. There is no batching window: what arrives while a Job's plan is carried out is the next plan's. Pods are
// created in parallel without slow start; the first failure stops the batch, and until one creation succeeds again, single creations probe with
// exponential delays.
package jobs
