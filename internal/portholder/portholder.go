// Package portholder finds out which process listens on a TCP port of this
// machine, for messages that say what is in the way. It knows /proc only.
package portholder

import (
	"fmt"
	"net"
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

// Find returns the process that listens on the port of a host:port. root is the
// directory that holds /proc, "/" for this machine's own.
func Find(root, address string) Holder {
	_, service, err := net.SplitHostPort(address)
	if err != nil {
		return Holder{}
	}
	port, err := net.LookupPort("tcp", service)
	if err != nil {
		return Holder{}
	}
	// The kernel's table isn't read at one moment: while other sockets come and go, a line may be passed over.
	var sockets []string
	for tries := 3; tries > 0 && len(sockets) == 0; tries-- {
		sockets = listening(root, port)
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

// listening returns the sockets that listen on the port, as the links in
// /proc/PID/fd name them.
func listening(root string, port int) []string {
	const localField, stateField, inodeField, listen = 1, 3, 9, "0A"
	suffix := fmt.Sprintf(":%04X", port)
	var found []string
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(filepath.Join(root, table))
		if err != nil {
			continue // no such protocol
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) > inodeField && f[stateField] == listen && strings.HasSuffix(f[localField], suffix) {
				found = append(found, "socket:["+f[inodeField]+"]")
			}
		}
	}
	return found
}
