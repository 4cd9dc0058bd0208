package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"errand.dev/errand/internal/oci/shimapi"
)

// What the shim keeps of a container, in <dir>/containers/<id>/. A directory without runFile is nothing: it is written before
// the runtime is executed, and removed first when the container is deleted.
const (
	runFile     = "run.json"     // shimapi.Run
	startedFile = "started.json" // started
	exitFile    = "exit.json"    // shimapi.Exit
	pidFile     = "pid"          // the runtime's; gone once the start is over
	logFile     = "runtime.log"  // the runtime's; gone once the start is over
)

type started struct {
	shimapi.Started
	// Birth tells the process from a later one with the same pid.
	Birth string `json:"birth"`
}

func save(dir, name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), data, 0o600)
}

// saveDurably replaces the file as a whole or not at all, even if the machine loses power.
func saveDurably(dir, name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// load reports false if the file doesn't exist or isn't complete.
func load(dir, name string, v any) bool {
	data, err := os.ReadFile(filepath.Join(dir, name))
	return err == nil && json.Unmarshal(data, v) == nil
}

// forget removes a container's directory, runFile first.
func forget(dir string) error {
	if err := os.Remove(filepath.Join(dir, runFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(dir)
}

// validID keeps identifiers within what is safe as a file name and what OCI runtimes take.
func validID(id string) error {
	ok := len(id) > 0 && len(id) <= 128 && id[0] != '.' && id[0] != '-'
	for _, c := range []byte(id) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-')
	}
	if !ok {
		return errorf(shimapi.CodeInvalid, "container ID %q: must be 1-128 letters, digits, '_', '.' or '-', and begin with neither '.' nor '-'", id)
	}
	return nil
}

func validRun(r *shimapi.Run) error {
	if err := validID(r.ID); err != nil {
		return err
	}
	paths := map[string]string{"bundle": r.Bundle, "cgroups path": r.CgroupsPath}
	if r.Launch == nil || r.Handler.Path != "" { // else it is launched without a runtime
		paths["runtime's binary"], paths["runtime's root"] = r.Handler.Path, r.Handler.Root
	}
	if r.LogPath != "" {
		paths["log path"] = r.LogPath
	}
	for what, path := range paths {
		if !filepath.IsAbs(path) || path == "/" {
			return errorf(shimapi.CodeInvalid, "%s %q: must be absolute", what, path)
		}
	}
	if r.LogMaxLine < 0 || r.LogMaxLine > maxLogLine {
		return errorf(shimapi.CodeInvalid, "longest log line of %d bytes: must be 0 (16 KiB) to %d, as it is held in memory", r.LogMaxLine, maxLogLine)
	}
	if r.LogMaxSize < 0 || r.LogMaxSize > 0 && r.LogMaxFiles < 2 {
		return errorf(shimapi.CodeInvalid, "a log of %d files of %d bytes: must be at least 2 files of 1 byte, or 0 bytes for a log without limit", r.LogMaxFiles, r.LogMaxSize)
	}
	return nil
}

const maxLogLine = 1 << 20

// birth identifies a process by boot and start time, "" if it doesn't exist.
func birth(pid int) string {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return ""
	}
	// The second field, the command's name, may contain anything, but is the last one with a parenthesis.
	_, rest, ok := strings.Cut(string(stat[max(0, strings.LastIndexByte(string(stat), ')')):]), " ")
	fields := strings.Fields(rest)
	const startTime = 22 - 3 // proc(5); rest begins with field 3
	if !ok || len(fields) <= startTime {
		return ""
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(boot)) + " " + fields[startTime]
}

func readPid(dir string) (int, error) {
	data, err := os.ReadFile(filepath.Join(dir, pidFile))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("the runtime's pid file says %q", data)
	}
	return pid, nil
}

// record makes the exit known to the disk before anybody else.
func (c *container) record(code int, at time.Time, oom bool, reason string) (*shimapi.Exit, error) {
	exit := &shimapi.Exit{Code: code, At: at, OOMKilled: oom, Reason: reason}
	if err := saveDurably(c.dir, exitFile, exit); err != nil {
		return exit, fmt.Errorf("record exit of %s: %w", c.run.ID, err)
	}
	return exit, nil
}
