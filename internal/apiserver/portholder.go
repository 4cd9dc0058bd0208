package apiserver

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// portHolder names the process that listens on a TCP port, as "kubectl (pid
// 12)", or returns "another process": it isn't shown to users other than its own
// and root, and may be in another container.
func portHolder(port int) string {
	const unknown = "another process"
	inodes := listeningInodes(port)
	if len(inodes) == 0 {
		return unknown
	}
	// Those that can't be read are somebody else's.
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !inodes[target] {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		name, err := os.ReadFile(filepath.Join("/proc", pid, "comm"))
		if err != nil {
			continue
		}
		return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), pid)
	}
	return unknown
}

// listeningInodes returns the sockets that listen on the port, as the targets
// of links to them.
func listeningInodes(port int) map[string]bool {
	const (
		localField, stateField, inodeField = 1, 3, 9
		listening                          = "0A"
	)
	suffix := fmt.Sprintf(":%04X", port)
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue // no such protocol
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) > inodeField && fields[stateField] == listening && strings.HasSuffix(fields[localField], suffix) {
				if inode, err := strconv.Atoi(fields[inodeField]); err == nil {
					inodes[fmt.Sprintf("socket:[%d]", inode)] = true
				}
			}
		}
		_ = f.Close() // only read from
	}
	return inodes
}
