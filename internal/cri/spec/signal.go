package spec

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Real-time signals as the C library counts them: the first two are its own.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// StopSignal is the signal that asks the container to end: its own
// (lifecycle.stopSignal, KEP-4960), else the image's, else SIGTERM.
func StopSignal(c *runtimeapi.ContainerConfig, image ocispec.ImageConfig) (syscall.Signal, error) {
	if s := c.GetStopSignal(); s != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		name := strings.TrimPrefix(s.String(), "SIGNAL_")
		return ParseSignal(strings.NewReplacer("MINPLUS", "MIN+", "MAXMINUS", "MAX-").Replace(name))
	}
	if image.StopSignal != "" {
		return ParseSignal(image.StopSignal)
	}
	return syscall.SIGTERM, nil
}

// ParseSignal reads a signal as images name it: "SIGTERM", "TERM", "15" or
// "SIGRTMIN+3".
func ParseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > sigRTMax {
			return 0, fmt.Errorf("%w: no signal has the number %d", ErrInvalid, n)
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	switch name { // second names of one signal
	case "CLD":
		name = "CHLD"
	case "IOT":
		name = "ABRT"
	case "POLL":
		name = "IO"
	}
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	base, rest := 0, ""
	switch {
	case strings.HasPrefix(name, "RTMIN"):
		base, rest = sigRTMin, name[len("RTMIN"):]
	case strings.HasPrefix(name, "RTMAX"):
		base, rest = sigRTMax, name[len("RTMAX"):]
	}
	offset := 0
	if rest != "" {
		var err error
		if offset, err = strconv.Atoi(rest); err != nil {
			base = 0
		}
	}
	if n := base + offset; base != 0 && n >= sigRTMin && n <= sigRTMax {
		return syscall.Signal(n), nil
	}
	return 0, fmt.Errorf("%w: unknown stop signal %q", ErrInvalid, s)
}
