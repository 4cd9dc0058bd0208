package server

import (
	"context"
	"fmt"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"
	"k8s.io/klog/v2"
)

// notifySocket is where sd_notify(3) has the service manager's address.
const notifySocket = "NOTIFY_SOCKET"

// notifier tells a service manager, where there is one, how errand fares.
type notifier struct{ socket string }

// takeNotifier takes the service manager's address out of the environment: the
// API server would tell it READY=1 as soon as it listens, long before errand as
// a whole is ready, and no child has any business with it.
func takeNotifier() (notifier, error) {
	n := notifier{socket: os.Getenv(notifySocket)}
	if err := os.Unsetenv(notifySocket); err != nil {
		return n, fmt.Errorf("take %s from the environment: %w", notifySocket, err)
	}
	return n, nil
}

// tell sends a state such as daemon.SdNotifyReady. That a service manager has
// gone is no reason to stop serving.
func (n notifier) tell(ctx context.Context, state string) {
	if n.socket == "" {
		return
	}
	err := os.Setenv(notifySocket, n.socket)
	if err == nil {
		_, err = daemon.SdNotify(true, state)
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, "The service manager can't be told", "state", state)
	}
}
