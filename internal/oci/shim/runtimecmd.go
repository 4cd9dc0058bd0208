package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shimapi"
)

// runtimeTimeout bounds an execution of the OCI runtime, which takes some 40 ms: past it the runtime is taken to hang,
// on a dead network file system for instance.
const runtimeTimeout = 2 * time.Minute

// command is one execution of an OCI runtime.
type command struct {
	handler shimapi.Handler
	dir     string // for its log
	name    string // run, exec, ...
	args    []string
	files   [3]int          // stdin, stdout, stderr; -1 = /dev/null
	started func(pid int)   // may be nil
	log     string          // unless "", another name for its log than logFile
	timeout time.Duration   // unless 0, another than runtimeTimeout
	stop    <-chan struct{} // kills it; may be nil
}

// execute runs the command to its end. Errors: CodeStart or CodeRuntime, with the runtime's own message.
func (s *Shim) execute(cmd command) error {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(null)
	logPath := filepath.Join(cmd.dir, logFile)
	if cmd.log != "" {
		logPath = cmd.log
	}
	defer os.Remove(logPath)
	argv := append([]string{cmd.handler.Path, "--root", cmd.handler.Root, "--log", logPath, "--log-format", "json", cmd.name}, cmd.args...)
	var files [3]uintptr
	for i, fd := range cmd.files {
		if fd < 0 {
			fd = null
		}
		files[i] = uintptr(fd)
	}
	pid, done, err := s.reaper.spawn(argv, files)
	if err != nil {
		return errorf(shimapi.CodeRuntime, "OCI runtime %s: %s: %v", cmd.handler.Name, cmd.handler.Path, err)
	}
	if cmd.started != nil {
		cmd.started(pid)
	}
	if s.await(pid, done, cmd) == 0 {
		return nil
	}
	return runtimeError(cmd.name, logPath)
}

func (s *Shim) await(pid int, done <-chan ended, cmd command) int {
	limit := runtimeTimeout
	if cmd.timeout > 0 {
		limit = cmd.timeout
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case e := <-done:
		return e.code
	case <-timer.C:
		s.log.Printf("%s %s hangs, killed after %v", cmd.handler.Path, cmd.name, limit)
	case <-cmd.stop:
	}
	_ = s.reaper.kill(pid, syscall.SIGKILL)
	return (<-done).code
}

// runtimeError makes an error of the last thing that the runtime logged.
func runtimeError(name, logPath string) error {
	data, err := os.ReadFile(logPath)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	message := lastError(data)
	if message == "" {
		message = "the runtime was killed or failed without a message"
	}
	// runc names its command, or begins with "exec failed"; crun doesn't.
	if !strings.HasPrefix(message, "runc ") && !strings.HasPrefix(message, name+" ") {
		message = name + ": " + message
	}
	what := "create"
	if name != "run" {
		what = name
	}
	return errorf(classify(message), "OCI runtime %s failed: %s", what, message)
}

// lastError finds the message of the last error in a runtime's JSON log.
func lastError(log []byte) (message string) {
	for line := range bytes.Lines(log) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && entry.Msg != "" && (entry.Level == "error" || entry.Level == "fatal") {
			message = entry.Msg
		}
	}
	return strings.TrimSpace(message)
}

// classify tells errors that the container's author can mend from others. The runtimes have no codes for them.
func classify(message string) shimapi.Code {
	for _, sign := range []string{
		`exec: "`,            // runc: exec: "x": executable file not found in $PATH, … permission denied, … is a directory
		"executable file",    // crun: executable file `x` not found
		"exec format error",  // a foreign architecture
		"chdir to cwd",       // runc, process.cwd
		"chdir",              // crun
		"open executable",    // crun: not executable
		"exec user process",  // older runc
		"No such executable", // youki
	} {
		if strings.Contains(message, sign) {
			return shimapi.CodeStart
		}
	}
	return shimapi.CodeRuntime
}

// cleanUp removes what a container that has ended left outside our own directory.
func (s *Shim) cleanUp(c *container) error {
	h := c.run.Handler
	var errs []error
	if c.native != nil {
		// Nobody but the kernel knows of it.
	} else if h.OwnDelete && !c.run.Poststop {
		errs = append(errs, os.RemoveAll(filepath.Join(h.Root, c.run.ID)))
	} else {
		errs = append(errs, s.deleteByRuntime(c))
	}
	errs = append(errs, s.tree.Remove(c.run.CgroupsPath, patience))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up after %s: %w", c.run.ID, err)
	}
	c.clean = true
	return nil
}

// deleteByRuntime executes the runtime's delete, and takes it as done if the runtime doesn't know the container (any more).
func (s *Shim) deleteByRuntime(c *container) error {
	cmd := command{handler: c.run.Handler, dir: c.dir, name: "delete", args: []string{"--force", c.run.ID}, files: [3]int{-1, -1, -1}}
	err := s.execute(cmd)
	if err != nil && strings.Contains(err.Error(), "does not exist") {
		return nil
	}
	return err
}

// patience bounds the wait for killed processes to be gone: it passes only if they hang in the kernel.
const patience = 10 * time.Second
