package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	cgrouptree "errand.dev/errand/internal/cri/cgroups"
	"errand.dev/errand/internal/criclient"
)

// runtimePatience is how long a container runtime may take to answer.
const runtimePatience = 10 * time.Second

// containerRuntime asks another program's runtime whether it can run pods.
func containerRuntime(ctx context.Context, h Host) Finding {
	const start = "start it, or name its socket by --container-runtime-endpoint"
	tree, err := cgrouptree.Open(filepath.Join("/", h.Root, cgrouptree.DefaultRoot))
	if err != nil {
		return fail("mount cgroups", "%v", err)
	}
	client, err := criclient.New(criclient.Config{Endpoint: h.RuntimeEndpoint, ImageEndpoint: h.ImageEndpoint, Owner: "errand-doctor", Cgroups: tree})
	if err != nil {
		return fail(start, "%v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, runtimePatience)
	ended := make(chan error, 1)
	go func() { ended <- client.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	select {
	case <-client.Settled():
	case <-ctx.Done():
		return fail(start, "%s doesn't answer within %s", h.RuntimeEndpoint, runtimePatience)
	}
	if err := client.Err(); err != nil {
		return fail(start, "%v", err)
	}
	version, err := client.Runtime().Version(ctx, "")
	if err != nil {
		return fail(start, "%v", err)
	}
	status, err := client.Runtime().Status(ctx, false)
	if err != nil {
		return fail(start, "%v", err)
	}
	return judgeRuntime(version, status)
}

// judgeRuntime says what the runtime says of itself.
func judgeRuntime(version *runtimeapi.VersionResponse, status *runtimeapi.StatusResponse) Finding {
	name := version.GetRuntimeName() + " " + version.GetRuntimeVersion()
	for _, c := range status.GetStatus().GetConditions() {
		switch {
		case c.GetStatus():
		case c.GetType() == runtimeapi.NetworkReady:
			return fail("configure a CNI network where it looks for one (usually /etc/cni/net.d)", "%s: its network isn't ready: %s", name, c.GetMessage())
		case c.GetType() == runtimeapi.RuntimeReady:
			return fail("see its log", "%s isn't ready: %s", name, c.GetMessage())
		}
	}
	var handlers []string
	for _, h := range status.GetRuntimeHandlers() {
		if h.GetName() != "" { // the default's
			handlers = append(handlers, h.GetName())
		}
	}
	detail := name
	if len(handlers) > 0 {
		detail = fmt.Sprintf("%s, with the handlers %s", name, strings.Join(handlers, ", "))
	}
	return ok("%s", detail)
}
