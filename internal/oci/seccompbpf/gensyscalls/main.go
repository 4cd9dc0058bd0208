// Command gensyscalls writes syscalls.csv: which number each system call has on
// each architecture that seccompbpf knows. Most are golang.org/x/sys's, in the
// version that go.mod has; x/sys has neither x32's nor ARM's private calls, so
// those, which the kernel has closed for new ones, stand here.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const target = "syscalls.csv"

// architectures are the columns, by Go's names; x32 is no port of Go's.
var architectures = []string{"amd64", "386", "x32", "arm", "arm64"}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gensyscalls:", err)
		os.Exit(1)
	}
}

func run() error {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		return fmt.Errorf("find golang.org/x/sys: %w", err)
	}
	var table bytes.Buffer
	if err := generate(&table, strings.TrimSpace(string(out))); err != nil {
		return err
	}
	return os.WriteFile(target, table.Bytes(), 0o644)
}

// generate writes the table from the module golang.org/x/sys in dir.
func generate(w io.Writer, dir string) error {
	tables := map[string]map[string]int{}
	names := map[string]bool{}
	for _, arch := range architectures {
		var err error
		if arch == "x32" {
			tables[arch], err = x32(tables["amd64"])
		} else {
			tables[arch], err = read(filepath.Join(dir, "unix", "zsysnum_linux_"+arch+".go"))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", arch, err)
		}
		if arch == "arm" {
			maps.Copy(tables[arch], armPrivate)
		}
		for name := range tables[arch] {
			names[name] = true
		}
	}
	fmt.Fprintf(w, "name,%s\n", strings.Join(architectures, ","))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		row := []string{name}
		for _, arch := range architectures {
			number := ""
			if n, ok := tables[arch][name]; ok {
				number = strconv.Itoa(n)
			}
			row = append(row, number)
		}
		if _, err := fmt.Fprintln(w, strings.Join(row, ",")); err != nil {
			return err
		}
	}
	return nil
}

var constant = regexp.MustCompile(`^\s*SYS_(\w+)\s*=\s*(\d+)`)

// notCalls are constants of x/sys that stand beside the calls' numbers in the
// kernel's headers and are none.
var notCalls = []string{"syscall_mask", "arch_specific_syscall"}

func read(path string) (map[string]int, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	table := map[string]int{}
	for s := bufio.NewScanner(f); s.Scan(); {
		m := constant.FindStringSubmatch(s.Text())
		if m == nil {
			continue
		}
		name := strings.ToLower(m[1])
		if slices.Contains(notCalls, name) {
			continue
		}
		if table[name], err = strconv.Atoi(m[2]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(table) == 0 {
		return nil, errors.New("no system calls found in " + path)
	}
	return table, nil
}

// armPrivate are those of arch/arm/include/uapi/asm/unistd.h.
var armPrivate = map[string]int{
	"breakpoint": 0xf0001, "cacheflush": 0xf0002, "usr26": 0xf0003, "usr32": 0xf0004, "set_tls": 0xf0005, "get_tls": 0xf0006,
}

// x32 is amd64's table but for the calls that the kernel's syscall_64.tbl marks
// as x32 or 64.
func x32(amd64 map[string]int) (map[string]int, error) {
	table := maps.Clone(amd64)
	for _, name := range only64 {
		delete(table, name)
	}
	for i, name := range x32Own {
		if _, ok := table[name]; !ok {
			return nil, fmt.Errorf("%s isn't among amd64's calls", name)
		}
		table[name] = firstX32Own + i
	}
	return table, nil
}

var only64 = []string{
	"uselib", "_sysctl", "create_module", "get_kernel_syms", "query_module", "nfsservctl", "set_thread_area", "get_thread_area",
	"epoll_ctl_old", "epoll_wait_old", "vserver", "uretprobe", "uprobe", "map_shadow_stack",
}

const firstX32Own = 512

// x32Own are the calls that have another number on x32, in the order of those
// numbers.
var x32Own = []string{
	"rt_sigaction", "rt_sigreturn", "ioctl", "readv", "writev", "recvfrom", "sendmsg", "recvmsg", "execve", "ptrace",
	"rt_sigpending", "rt_sigtimedwait", "rt_sigqueueinfo", "sigaltstack", "timer_create", "mq_notify", "kexec_load", "waitid",
	"set_robust_list", "get_robust_list", "vmsplice", "move_pages", "preadv", "pwritev", "rt_tgsigqueueinfo", "recvmmsg",
	"sendmmsg", "process_vm_readv", "process_vm_writev", "setsockopt", "getsockopt", "io_setup", "io_submit", "execveat",
	"preadv2", "pwritev2",
}
