// Package etcd runs the store of one errand: a single etcd member inside the
// process.
//
// It owns the member's life cycle (start, immediate election, stop), what is
// said when the store is full or its files are damaged, and the client that the
// API server uses, which calls the member directly. The only listener is a unix
// socket, for etcdctl. It doesn't know what is stored: keys and encodings are
// the API server's. Clusters of the user's own are dialled by [Dial].
package etcd
