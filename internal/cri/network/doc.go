// Package network gives every pod sandbox an address of its own: one bridge,
// one veth a sandbox, an address from a host-local range, and one nftables
// table that masquerades what leaves the range.
//
// Everything happens in-process by netlink; there is no plugin to execute. A
// sandbox's side is set up from a socket in its namespace, so no thread of the
// caller changes namespaces here. What was given to a sandbox ends with its
// network namespace: nothing is unplugged by hand, since the kernel removes a
// veth with its namespace in the background while deleting the link would make
// the caller wait for it.
//
// The package owns the bridge, the table and the addresses. It doesn't own the
// network namespaces (package namespace), nor the record of which sandbox
// holds which address: the caller writes that down between Reserve and Attach
// and hands it back by Restore after a restart.
package network
