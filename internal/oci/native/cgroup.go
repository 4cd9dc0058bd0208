package native

import (
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // teaches the managers to restrict devices
	devicerules "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/cgroups/fs2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/cgroup"
)

// Cgroups makes containers' cgroups.
type Cgroups struct{ tree *cgroup.Tree }

// NewCgroups looks at the machine's hierarchies.
func NewCgroups() (*Cgroups, error) {
	tree, err := cgroup.Open()
	if err != nil {
		return nil, err
	}
	return &Cgroups{tree: tree}, nil
}

// Create makes the cgroup and sets its limits and device rules. It is idempotent.
func (c *Cgroups) Create(path string, r *specs.LinuxResources) error {
	m, err := c.manager(path, r)
	if err != nil {
		return err
	}
	const nobody = -1
	if err := m.Apply(nobody); err != nil {
		return notMade(path, err)
	}
	if err := m.Set(resources(r)); err != nil {
		return fmt.Errorf("set the limits of the cgroup %s: %w", path, err)
	}
	return nil
}

// notMade says why a cgroup could not be made. What the kernel keeps of it counts as memory of the cgroup above.
func notMade(path string, err error) error {
	if errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("make the cgroup %s: the memory limit is too low for that (was a unit, such as Mi, left out?): %w", path, err)
	}
	return fmt.Errorf("make the cgroup %s: %w", path, err)
}

// Update sets the limits in r, and no others, of a cgroup that exists.
func (c *Cgroups) Update(path string, r *specs.LinuxResources) error {
	m, err := c.manager(path, r)
	if err != nil {
		return err
	}
	changed := resources(r)
	changed.SkipDevices, changed.Devices = true, nil
	if err := m.Set(changed); err != nil {
		return fmt.Errorf("set the limits of the cgroup %s: %w", path, err)
	}
	return nil
}

// Remove removes a cgroup that was created in vain.
func (c *Cgroups) Remove(path string) error {
	const patience = time.Second
	return c.tree.Remove(path, patience)
}

type manager interface {
	Apply(pid int) error
	Set(r *cgroups.Resources) error
}

func (c *Cgroups) manager(path string, r *specs.LinuxResources) (manager, error) {
	config := &cgroups.Cgroup{Path: path, Resources: resources(r)}
	if dir := c.tree.UnifiedOnly(path); dir != "" {
		return fs2.NewManager(config, dir)
	}
	return fs.NewManager(config, c.tree.Paths(path))
}

// resources translates limits. Devices: what the specification says, then those that every container may use.
func resources(r *specs.LinuxResources) *cgroups.Resources {
	out := &cgroups.Resources{}
	if r == nil {
		r = &specs.LinuxResources{}
	}
	for _, d := range r.Devices {
		out.Devices = append(out.Devices, deviceRule(d))
	}
	out.Devices = append(out.Devices, usualDevices...)
	if m := r.Memory; m != nil {
		out.Memory, out.MemoryReservation, out.MemorySwap = value(m.Limit), value(m.Reservation), value(m.Swap)
		out.MemorySwappiness, out.OomKillDisable = m.Swappiness, value(m.DisableOOMKiller)
		out.MemoryCheckBeforeUpdate = value(m.CheckBeforeUpdate)
	}
	if c := r.CPU; c != nil {
		out.CpuShares, out.CpuQuota, out.CpuPeriod = value(c.Shares), value(c.Quota), value(c.Period)
		out.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(out.CpuShares)
		out.CpuBurst, out.CPUIdle, out.CpusetCpus, out.CpusetMems = c.Burst, c.Idle, c.Cpus, c.Mems
	}
	if r.Pids != nil {
		out.PidsLimit = r.Pids.Limit
	}
	for _, l := range r.HugepageLimits {
		out.HugetlbLimit = append(out.HugetlbLimit, &cgroups.HugepageLimit{Pagesize: l.Pagesize, Limit: l.Limit})
	}
	out.Unified = r.Unified
	return out
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func deviceRule(d specs.LinuxDeviceCgroup) *devicerules.Rule {
	rule := &devicerules.Rule{
		Type: devicerules.WildcardDevice, Major: devicerules.Wildcard, Minor: devicerules.Wildcard,
		Permissions: devicerules.Permissions(d.Access), Allow: d.Allow,
	}
	if d.Type != "" {
		rule.Type = devicerules.Type(d.Type[0])
	}
	if d.Major != nil {
		rule.Major = *d.Major
	}
	if d.Minor != nil {
		rule.Minor = *d.Minor
	}
	return rule
}

// usualDevices may be used by every container: any device node may be made, and those of the OCI runtime specification,
// terminals, and tunnels (as other runtimes have it) opened.
var usualDevices = []*devicerules.Rule{
	allow(devicerules.CharDevice, devicerules.Wildcard, devicerules.Wildcard, "m"),
	allow(devicerules.BlockDevice, devicerules.Wildcard, devicerules.Wildcard, "m"),
	allow(devicerules.CharDevice, 1, 3, "rwm"),                      // /dev/null
	allow(devicerules.CharDevice, 1, 5, "rwm"),                      // /dev/zero
	allow(devicerules.CharDevice, 1, 7, "rwm"),                      // /dev/full
	allow(devicerules.CharDevice, 1, 8, "rwm"),                      // /dev/random
	allow(devicerules.CharDevice, 1, 9, "rwm"),                      // /dev/urandom
	allow(devicerules.CharDevice, 5, 0, "rwm"),                      // /dev/tty
	allow(devicerules.CharDevice, 5, 2, "rwm"),                      // /dev/ptmx
	allow(devicerules.CharDevice, 136, devicerules.Wildcard, "rwm"), // /dev/pts/*
	allow(devicerules.CharDevice, 10, 200, "rwm"),                   // /dev/net/tun
}

func allow(t devicerules.Type, major, minor int64, access devicerules.Permissions) *devicerules.Rule {
	return &devicerules.Rule{Type: t, Major: major, Minor: minor, Permissions: access, Allow: true}
}
