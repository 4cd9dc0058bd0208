// Package jobrun is what commands do with one Job as clients of any cluster:
// make it from a few words, follow it to its end with its logs and with what holds
// it up, wait for its end alone, and make it anew. It owns no Job and decides
// nothing about one; it knows neither errand's server nor its command line.
//
// Everything is told by watches, whose events one goroutine takes in order; a
// connection that is lost is found again by client-go.
package jobrun
