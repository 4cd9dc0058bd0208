package spec

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// defaultCapabilities are what an ordinary container has, the same as under
// containerd and Docker.
var defaultCapabilities = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// defaultProfile is the name under which the default AppArmor profile is loaded.
const defaultProfile = "errand-default"

const allCapabilities = "ALL"

func (b *builder) capabilities(context.Context) error {
	caps := slices.Clone(defaultCapabilities[:])
	if b.security.GetPrivileged() {
		caps = slices.Clone(b.Host.Capabilities)
	} else {
		var err error
		if caps, err = changeCapabilities(caps, b.security.GetCapabilities(), b.Host.Capabilities); err != nil {
			return err
		}
	}
	// What this process doesn't have it can't pass on; the OCI runtime would
	// fail or warn.
	caps = slices.DeleteFunc(caps, func(c string) bool { return !slices.Contains(b.Host.Capabilities, c) })
	slices.Sort(caps)
	set := &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	for _, c := range b.security.GetCapabilities().GetAddAmbientCapabilities() {
		name := capName(c)
		if !slices.Contains(caps, name) {
			return fmt.Errorf("%w: ambient capability %s is not among the container's", ErrInvalid, name)
		}
		set.Ambient, set.Inheritable = append(set.Ambient, name), append(set.Inheritable, name)
	}
	b.spec.Process.Capabilities = set
	return nil
}

// changeCapabilities applies ALL first, then single names, drops last: what is
// both added and dropped is dropped.
func changeCapabilities(caps []string, change *runtimeapi.Capability, all []string) ([]string, error) {
	add, drop := capNames(change.GetAddCapabilities()), capNames(change.GetDropCapabilities())
	if slices.Contains(add, allCapabilities) {
		caps = slices.Clone(all)
	}
	if slices.Contains(drop, allCapabilities) {
		caps = nil
	}
	for _, c := range add {
		if c != allCapabilities && !slices.Contains(caps, c) {
			// A misspelt one must not be missed only once the program fails for lack of it.
			if !slices.Contains(cap.Known(), c) && !slices.Contains(all, c) {
				return nil, fmt.Errorf("%w: unknown capability %q", ErrInvalid, c)
			}
			caps = append(caps, c)
		}
	}
	return slices.DeleteFunc(caps, func(c string) bool { return slices.Contains(drop, c) }), nil
}

func capNames(in []string) []string {
	out := make([]string, len(in))
	for i, c := range in {
		out[i] = capName(c)
	}
	return out
}

// capName accepts names in any case, with or without the prefix.
func capName(c string) string {
	c = strings.ToUpper(c)
	if c == allCapabilities || strings.HasPrefix(c, "CAP_") {
		return c
	}
	return "CAP_" + c
}

// confinement sets masked and read-only paths, seccomp and AppArmor.
func (b *builder) confinement(context.Context) error {
	if b.security.GetPrivileged() {
		return b.apparmor()
	}
	l := b.spec.Linux
	l.MaskedPaths, l.ReadonlyPaths = b.security.GetMaskedPaths(), b.security.GetReadonlyPaths()
	// Absent means the usual ones; present and empty is procMount: Unmasked.
	if l.MaskedPaths == nil {
		l.MaskedPaths = defaultMaskedPaths()
	}
	if l.ReadonlyPaths == nil {
		l.ReadonlyPaths = defaultReadonlyPaths()
	}
	if err := b.seccomp(); err != nil {
		return err
	}
	return b.apparmor()
}

func defaultMaskedPaths() []string {
	return []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
		"/sys/devices/virtual/powercap",
	}
}

func defaultReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// securityProfile reads a profile, or the string that came before it in the CRI
// and that older clients still send.
func securityProfile(p *runtimeapi.SecurityProfile, old, what string) (*runtimeapi.SecurityProfile, error) {
	ref, local := strings.CutPrefix(old, "localhost/")
	switch {
	case p != nil || old == "":
		return p, nil
	case old == "unconfined":
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	case old == "runtime/default":
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case local:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: ref}, nil
	}
	return nil, fmt.Errorf("%w: %s profile %q: want runtime/default, unconfined or localhost/…", ErrInvalid, what, old)
}

func (b *builder) seccomp() error {
	//lint:ignore SA1019 clients may send either
	p, err := securityProfile(b.security.GetSeccomp(), b.security.GetSeccompProfilePath(), "seccomp")
	switch {
	case err != nil:
		return err
	case p == nil || p.GetProfileType() == runtimeapi.SecurityProfile_Unconfined:
		return nil
	case p.GetProfileType() == runtimeapi.SecurityProfile_RuntimeDefault:
		profile := seccomp.DefaultProfile(b.spec)
		compat := b.Host.Compat32 && (!onX86 || runs32(b.Root, b.spec.Process.Args, b.spec.Process.Env))
		profile.Architectures = architectures(profile.Architectures, compat)
		b.spec.Linux.Seccomp = profile
		return nil
	}
	data, err := os.ReadFile(p.GetLocalhostRef())
	if err != nil {
		return fmt.Errorf("%w: seccomp profile: %w", ErrInvalid, err)
	}
	profile := &specs.LinuxSeccomp{}
	if err := json.Unmarshal(data, profile); err != nil {
		return fmt.Errorf("%w: seccomp profile %s: %w", ErrInvalid, p.GetLocalhostRef(), err)
	}
	b.spec.Linux.Seccomp = profile
	return nil
}

// architectures leaves those out that only cost: the OCI runtime builds a
// filter for each, which takes more CPU than all else that it does. A system
// call of an architecture that isn't listed kills its caller, so fewer of them
// never let more through. x32 is left out always (12 ms of CPU a container; no
// distribution's kernel runs it by default), 32-bit x86 where the kernel
// doesn't run it or the container has nothing of that kind (5 ms).
func architectures(all []specs.Arch, compat32 bool) []specs.Arch {
	return slices.DeleteFunc(slices.Clone(all), func(a specs.Arch) bool {
		return a == specs.ArchX32 || a == specs.ArchX86 && !compat32
	})
}

// apparmor confines a container that names no profile by the default one, as
// containerd does: only Unconfined, or a host without AppArmor, leaves it out. A
// privileged container is confined only by a profile that it names.
func (b *builder) apparmor() error {
	//lint:ignore SA1019 clients may send either
	p, err := securityProfile(b.security.GetApparmor(), b.security.GetApparmorProfile(), "AppArmor")
	if err != nil {
		return err
	}
	if p != nil && p.GetProfileType() == runtimeapi.SecurityProfile_Unconfined {
		return nil
	}
	localhost := p.GetProfileType() == runtimeapi.SecurityProfile_Localhost
	if b.security.GetPrivileged() && !localhost {
		return nil
	}
	if !b.Host.AppArmor {
		if localhost {
			return fmt.Errorf("%w: AppArmor profile %q: this host has no AppArmor", ErrInvalid, p.GetLocalhostRef())
		}
		return nil
	}
	name := p.GetLocalhostRef()
	if !localhost {
		name = defaultProfile
		if err := b.Host.LoadProfile(name); err != nil {
			return fmt.Errorf("load the default AppArmor profile (with apparmor_parser): %w", err)
		}
	}
	b.spec.Process.ApparmorProfile = strings.TrimPrefix(name, "localhost/")
	return nil
}

// devices admits the container's devices; a privileged container gets all of
// the host's. The usual ones (/dev/null and so on) every OCI runtime adds.
func (b *builder) devices(ctx context.Context) error {
	r := b.spec.Linux.Resources
	if b.security.GetPrivileged() {
		r.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		if err := b.apply(ctx, oci.WithHostDevices); err != nil {
			return fmt.Errorf("list the host's devices: %w", err)
		}
		return nil
	}
	r.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, d := range b.Config.GetDevices() {
		if err := b.apply(ctx, oci.WithDevices(d.GetHostPath(), d.GetContainerPath(), d.GetPermissions())); err != nil {
			return fmt.Errorf("%w: device %s: %w", ErrInvalid, d.GetHostPath(), err)
		}
	}
	return nil
}
