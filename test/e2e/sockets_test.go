//go:build e2e

package e2e

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// listeners are the addresses at which a process awaits TCP connections or UDP
// datagrams.
func listeners(pid int) ([]netip.AddrPort, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return nil, err
	}
	own := map[string]bool{}
	for _, fd := range fds {
		if link, err := os.Readlink(filepath.Join(dir, "fd", fd.Name())); err == nil { // else it was closed meanwhile
			own[link] = true
		}
	}
	var found []netip.AddrPort
	// In these tables a TCP socket that listens is in state 0A, a UDP socket
	// without a peer in state 07.
	for table, state := range map[string]string{"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"} {
		b, err := os.ReadFile(filepath.Join(dir, "net", table))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != state || !own["socket:["+f[9]+"]"] {
				continue
			}
			address, err := socketAddress(f[1])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", table, err)
			}
			found = append(found, address)
		}
	}
	return found, nil
}

// socketAddress reads an address as /proc/net writes it: words of 4 bytes, each
// in the machine's order (little-endian on all that errand is built for), and a
// port.
func socketAddress(s string) (netip.AddrPort, error) {
	address, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	ip, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", s)
	}
	p, err := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(ip.Unmap(), uint16(p)), err
}
