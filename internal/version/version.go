// Package version says which errand this is.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// Set by the linker: -X errand.dev/errand/internal/version.release=v1.2.3 and
// so on. A build without them tells what the Go toolchain recorded.
var (
	release = ""
	commit  = ""
)

// Kubernetes is the release whose API errand serves.
const Kubernetes = "v1.37.2"

// nodeMark is what errand's nodes have in their version, and no kubelet.
const nodeMark = "+errand."

// Node is the version that a node of this build reports in the place of a kubelet's.
func Node() string { return Kubernetes + nodeMark + strings.TrimPrefix(Get().Version, "v") }

// IsNode says whether a node that reports this version is an errand's.
func IsNode(version string) bool { return strings.Contains(version, nodeMark) }

// Info is what can be told of a build.
type Info struct {
	// Version is a release such as v0.1.0, or "devel".
	Version string `json:"version"`
	// Commit is the revision built, or empty where it isn't known.
	Commit string `json:"commit,omitempty"`
	// Kubernetes is the release whose API is served.
	Kubernetes string `json:"kubernetes"`
	Go         string `json:"go"`
	Platform   string `json:"platform"`
}

// Get returns this build's Info.
func Get() Info {
	i := Info{
		Version:    release,
		Commit:     commit,
		Kubernetes: Kubernetes,
		Go:         runtime.Version(),
		Platform:   runtime.GOOS + "/" + runtime.GOARCH,
	}
	if i.Version == "" {
		i.Version = "devel"
		if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" && b.Main.Version != "(devel)" {
			i.Version = b.Main.Version
		}
	}
	return i
}

// String is one line for people.
func (i Info) String() string {
	commit := ""
	if i.Commit != "" {
		commit = " (" + i.Commit + ")"
	}
	return fmt.Sprintf("errand %s%s, Kubernetes API %s, %s, %s", i.Version, commit, i.Kubernetes, i.Go, i.Platform)
}
