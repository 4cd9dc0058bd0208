// Package portholder finds out which process listens on a TCP port of this
// machine, for messages that say what is in the way. It knows /proc only.
package portholder

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Holder is a process.
type Holder struct {
	Name string
	// PID is 0 where the process can't be told: it is shown to its own user and
	// to root only, and may be in another container.
	PID int
}

// String is "kubectl (pid 12)", or "another process".
func (h Holder) String() string {
	if h.PID == 0 {
		return "another process"
	}
	return fmt.Sprintf("%s (pid %d)", h.Name, h.PID)
}

// Find returns the process that listens on a host:port, or on its port of all
// addresses: a host that isn't an address, or stands for all of them, is any. root
// is the directory that holds /proc, "/" for this machine's own.
func Find(root, address string) Holder {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return Holder{}
	}
	port, err := net.LookupPort("tcp", service)
	if err != nil {
		return Holder{}
	}
	at, _ := netip.ParseAddr(host) // invalid for any
	// The kernel's table isn't read at one moment: while other sockets come and go, a line may be passed over.
	var sockets []string
	for tries := 3; tries > 0 && len(sockets) == 0; tries-- {
		sockets = listening(root, netip.AddrPortFrom(at, uint16(port)))
	}
	if len(sockets) == 0 {
		return Holder{}
	}
	// Those that can't be read are somebody else's.
	fds, _ := filepath.Glob(filepath.Join(root, "/proc/[0-9]*/fd/*"))
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !slices.Contains(sockets, target) {
			continue
		}
		process := filepath.Dir(filepath.Dir(fd))
		comm, err := os.ReadFile(filepath.Join(process, "comm"))
		if err != nil {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(process)); err == nil {
			return Holder{Name: strings.TrimSpace(string(comm)), PID: pid}
		}
	}
	return Holder{}
}

// listening returns the sockets that are in the way of one that would listen
// there, as the links in /proc/PID/fd name them.
func listening(root string, at netip.AddrPort) []string {
	const localField, stateField, inodeField, listen = 1, 3, 9, "0A"
	suffix := fmt.Sprintf(":%04X", at.Port())
	var found []string
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(filepath.Join(root, table))
		if err != nil {
			continue // no such protocol
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) > inodeField && f[stateField] == listen && strings.HasSuffix(f[localField], suffix) && inTheWay(strings.TrimSuffix(f[localField], suffix), at.Addr()) {
				found = append(found, "socket:["+f[inodeField]+"]")
			}
		}
	}
	return found
}

// inTheWay says whether the address, in the form of the kernel's table, takes the
// place of the one asked for.
func inTheWay(text string, asked netip.Addr) bool {
	b, err := hex.DecodeString(text)
	if err != nil {
		return true // nobody else would be named
	}
	// The table has words of four bytes in this machine's order.
	for word := range slices.Chunk(b, 4) {
		binary.BigEndian.PutUint32(word, binary.NativeEndian.Uint32(word))
	}
	has, ok := netip.AddrFromSlice(b)
	wide := !asked.IsValid() || asked.IsUnspecified()
	return !ok || wide || has.IsUnspecified() || has.Unmap() == asked.Unmap()
}
