// Package doctor looks at a host and says whether errand can run there, what
// is wrong and what to do about it. It changes nothing on the host but
// short-lived files and mounts of its own in a temporary folder.
package doctor

import (
	"context"
	"fmt"
)

// Status is how serious a finding is.
type Status string

// The statuses, from good to bad: a Warning costs something but nothing fails;
// a Failure means that errand serve can't run pods.
const (
	OK      Status = "ok"
	Warning Status = "warning"
	Failure Status = "failure"
)

// Finding is what one check saw.
type Finding struct {
	// Check names what was looked at.
	Check  string `json:"check"`
	Status Status `json:"status"`
	// Detail is what was seen.
	Detail string `json:"detail"`
	// Remedy is what to do about it; empty where Status is OK.
	Remedy string `json:"remedy,omitempty"`
}

// Host says where to look. The zero value of the paths is the real host.
type Host struct {
	// Root is put before /proc, /sys and the like; tests set it.
	Root string
	// DataDir, Listen, Runtimes (name to path) and Shim are serve's settings.
	DataDir  string
	Listen   string
	Runtimes map[string]string
	Shim     string
	// ClusterDNS is serve's setting, too.
	ClusterDNS bool
	// RuntimeEndpoint and ImageEndpoint are the sockets of another program's
	// container runtime, "" for errand's own.
	RuntimeEndpoint, ImageEndpoint string
	// PassedOver are the runtimes that were found and passed over, TooOldNamed those
	// among Runtimes that are too old, both in words; OldestRuntimes says which
	// would do.
	PassedOver, TooOldNamed []string
	OldestRuntimes          string
}

// check looks at one thing. It returns its finding without Check, which the
// list gives.
type check struct {
	name string
	look func(ctx context.Context, h Host) Finding
}

// checks is everything that is looked at, in the order of the report.
func checks(h Host) []check {
	if h.RuntimeEndpoint != "" {
		return []check{
			{"privileges", privileges},
			{"kernel", kernel},
			{"cgroups", cgroups},
			{"container runtime", containerRuntime},
			{"data directory", dataDirectory},
			{"disk", disk},
			{"API port", port},
			{"open files", openFiles},
			{"inotify", inotify},
		}
	}
	return []check{
		{"privileges", privileges},
		{"kernel", kernel},
		{"cgroups", cgroups},
		{"namespaces", namespaces},
		{"overlayfs", overlay},
		{"seccomp", seccomp},
		{"nftables", nftablesWork},
		{"pod network", podNetwork},
		{"forwarding", forwarding},
		{"pods' names", podNames},
		{"OCI runtime", ociRuntime},
		{"errand-shim", shim},
		{"launcher", launcher},
		{"data directory", dataDirectory},
		{"disk", disk},
		{"API port", port},
		{"open files", openFiles},
		{"inotify", inotify},
	}
}

// Examine runs all checks; it stops early only when ctx ends.
func Examine(ctx context.Context, h Host) ([]Finding, error) {
	var found []Finding
	for _, c := range checks(h) {
		if err := ctx.Err(); err != nil {
			return found, err
		}
		f := c.look(ctx, h)
		f.Check = c.name
		found = append(found, f)
	}
	return found, nil
}

// Worst is the most serious status among the findings.
func Worst(found []Finding) Status {
	worst := OK
	for _, f := range found {
		if f.Status == Failure || (f.Status == Warning && worst == OK) {
			worst = f.Status
		}
	}
	return worst
}

func ok(format string, args ...any) Finding {
	return Finding{Status: OK, Detail: fmt.Sprintf(format, args...)}
}

func warn(remedy, format string, args ...any) Finding {
	return Finding{Status: Warning, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

func fail(remedy, format string, args ...any) Finding {
	return Finding{Status: Failure, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}
