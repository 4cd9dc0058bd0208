package launch

import (
	"bufio"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxPasswd bounds how much of a container's /etc/passwd is looked at.
const maxPasswd = 1 << 20

// withHome adds $HOME to an environment that has none, as OCI runtimes do: what the container's /etc/passwd says of the user,
// else "/".
func (l *Launcher) withHome(root int, env []string, uid uint32) []string {
	for _, e := range env {
		if strings.HasPrefix(e, "HOME=") {
			return env
		}
	}
	return append(env[:len(env):len(env)], "HOME="+l.home(root, uid))
}

func (l *Launcher) home(root int, uid uint32) string {
	const nowhere = "/"
	fd, err := l.open(root, "/etc/passwd", unix.O_RDONLY, func(st *unix.Stat_t, _ *unix.Statfs_t) bool {
		return st.Mode&unix.S_IFMT == unix.S_IFREG
	})
	if err != nil {
		return nowhere
	}
	f := os.NewFile(uintptr(fd), "passwd")
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxPasswd))
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":") // passwd(5): name:password:UID:GID:comment:home:shell
		if len(fields) < 6 || fields[2] != strconv.FormatUint(uint64(uid), 10) {
			continue
		}
		if !path.IsAbs(fields[5]) || strings.ContainsRune(fields[5], 0) {
			return nowhere
		}
		return fields[5]
	}
	return nowhere
}
