package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	remote "k8s.io/cri-client/pkg"

	"errand.dev/errand/internal/node/runtimepod"
)

// exec runs a command in a container for a probe or hook and returns all that it
// wrote; a timeout of 0 means none.
func (n *Node) exec(ctx context.Context, containerID string, command []string, timeout time.Duration) ([]byte, error) {
	stdout, stderr, err := n.cfg.Runtime.ExecSync(ctx, containerID, command, timeout)
	if timeout > 0 && ctx.Err() == nil && status.Code(err) == codes.DeadlineExceeded {
		err = fmt.Errorf("%w: %q timed out after %s", remote.ErrCommandTimedOut, strings.Join(command, " "), timeout)
	}
	return append(stdout, stderr...), err
}

// address is where a pod's servers are reached from the host, "" if it has no
// address.
func (n *Node) address(pod *v1.Pod, rt *runtimepod.Pod) string {
	if pod.Spec.HostNetwork {
		return n.cfg.HostIPs[0]
	}
	if ips := rt.IPs(); len(ips) > 0 {
		return ips[0]
	}
	return ""
}
