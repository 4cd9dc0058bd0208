// Package direct lets a client in the server's own process send HTTP requests
// to its handler without a connection: no TLS, no framing, no socket.
//
// Everything else about a request is as it would be over the network: it is
// authenticated, authorized and answered by the same handlers. Upgrades (exec,
// attach, port-forward) need a connection and don't work.
package direct
