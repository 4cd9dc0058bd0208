package spec

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	profile "github.com/containerd/containerd/v2/contrib/apparmor"
	"github.com/containerd/containerd/v2/pkg/apparmor"
	"github.com/containerd/containerd/v2/pkg/cap"
)

// Host is what the specification needs to know of the machine. It is read once.
type Host struct {
	// CgroupV2 says that the unified hierarchy is the one in use.
	CgroupV2 bool
	// SwapAccounting says that a limit of memory and swap can be set.
	SwapAccounting bool
	// Hugepages are the page sizes that can be limited, as the kernel names
	// them: "2MB", "1GB".
	Hugepages []string
	// Capabilities that this process has and so can pass on.
	Capabilities []string
	// MinOOMScoreAdj is the lowest oom_score_adj that may be set.
	MinOOMScoreAdj int
	// AppArmor says that the kernel confines by AppArmor profiles, and that
	// there is an apparmor_parser to load one with.
	AppArmor bool
	// LoadProfile loads the default AppArmor profile under a name, if that isn't
	// loaded yet.
	LoadProfile func(name string) error `json:"-"` // the rest is shown in verbose statuses
	// SELinux says that the kernel confines by SELinux labels.
	SELinux bool
	// Compat32 says that the kernel runs 32-bit programs.
	Compat32 bool
}

// ReadHost looks at the machine. cgroupRoot is where cgroups are mounted.
func ReadHost(cgroupRoot string, cgroupV2 bool) (*Host, error) {
	h := &Host{CgroupV2: cgroupV2, AppArmor: apparmor.HostSupports(), LoadProfile: profile.LoadDefaultProfile, SELinux: exists("/sys/fs/selinux/enforce")}
	var err error
	if h.Capabilities, err = cap.Current(); err != nil {
		return nil, fmt.Errorf("read this process's capabilities: %w", err)
	}
	if h.MinOOMScoreAdj, err = minOOMScoreAdj(h.Capabilities); err != nil {
		return nil, err
	}
	h.SwapAccounting = cgroupV2 || exists(cgroupRoot+"/memory/memory.memsw.limit_in_bytes")
	if h.Hugepages, err = hugepages(cgroupRoot, cgroupV2); err != nil {
		return nil, err
	}
	// The file comes with the kernel's 32-bit entry points on x86; elsewhere
	// libseccomp's cost of the second architecture is small.
	h.Compat32 = exists("/proc/sys/abi/vsyscall32") || !onX86
	return h, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// minOOMScoreAdj is this process's own value for lack of CAP_SYS_RESOURCE: the
// kernel lets a process without it raise the value only.
func minOOMScoreAdj(caps []string) (int, error) {
	const lowest = -1000
	if slices.Contains(caps, "CAP_SYS_RESOURCE") {
		return lowest, nil
	}
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0, fmt.Errorf("read the OOM score adjustment: %w", err)
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil {
		return 0, fmt.Errorf("read the OOM score adjustment: %w", err)
	}
	return n, nil
}

// hugepages lists the sizes that both the kernel and the cgroups know.
func hugepages(cgroupRoot string, v2 bool) ([]string, error) {
	if !v2 && !exists(cgroupRoot+"/hugetlb") {
		return nil, nil
	}
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the sizes of huge pages: %w", err)
	}
	var out []string
	for _, e := range entries {
		kb, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB"))
		if err == nil {
			out = append(out, pageSize(kb))
		}
	}
	return out, nil
}

func pageSize(kb int) string {
	for _, u := range []struct {
		kb   int
		name string
	}{{1 << 20, "GB"}, {1 << 10, "MB"}} {
		if kb >= u.kb {
			return strconv.Itoa(kb/u.kb) + u.name
		}
	}
	return strconv.Itoa(kb) + "KB"
}
