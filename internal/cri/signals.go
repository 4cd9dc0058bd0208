package cri

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// The first and last real-time signal, as the C library counts them.
const (
	sigRTMin = 34
	sigRTMax = 64
	// sigRTMiddle is the last that the CRI counts from the first one.
	sigRTMiddle = sigRTMin + 15
)

// signalNames is a signal's name in the CRI.
func signalNames(n int) string {
	const prefix = "SIGNAL_"
	switch {
	case n == sigRTMin:
		return prefix + "SIGRTMIN"
	case n == sigRTMax:
		return prefix + "SIGRTMAX"
	case n > sigRTMin && n <= sigRTMiddle:
		return fmt.Sprintf("%sSIGRTMINPLUS%d", prefix, n-sigRTMin)
	case n > sigRTMiddle && n < sigRTMax:
		return fmt.Sprintf("%sSIGRTMAXMINUS%d", prefix, sigRTMax-n)
	}
	return prefix + unix.SignalName(syscall.Signal(n))
}
