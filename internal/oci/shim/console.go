package shim

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// console receives a terminal's master from the OCI runtime (--console-socket).
type console struct {
	path string
	fd   int
}

func newConsole(path string) (*console, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	c := &console{path: path, fd: fd}
	if err := bindAndListen(fd, path); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func bindAndListen(fd int, path string) error {
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return fmt.Errorf("bind %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	return os.NewSyscallError("listen", unix.Listen(fd, unix.SOMAXCONN))
}

// master returns the terminal that the runtime, which has exited by now, has left in the socket.
func (c *console) master() (int, error) {
	conn, _, err := unix.Accept4(c.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("the runtime sent no terminal: %w", err)
	}
	defer unix.Close(conn)
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(conn, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("the runtime sent no terminal: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return -1, errors.New("the runtime sent no terminal")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.New("the runtime sent no terminal")
	}
	// Its readers and writers, here and in errand, wait in epoll.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		return -1, err
	}
	return fds[0], nil
}

func (c *console) close() {
	_ = os.Remove(c.path)
	_ = unix.Close(c.fd)
}
