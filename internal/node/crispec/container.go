package crispec

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"

	"errand.dev/errand/internal/node/runtimepod"
)

// Run is one run of a container to be configured.
type Run struct {
	Pod       *v1.Pod
	Container *v1.Container
	// Restarts is how many runs came before.
	Restarts int32
	// Round is how often all containers of the pod have been restarted together.
	Round int32
	// ImageRef is the image as the runtime named it when it was pulled or found.
	ImageRef string
	User     ImageUser
	Env      []EnvVar
	Mounts   []*runtimeapi.Mount
	// Target is the ID of the container whose processes this one, an ephemeral
	// container, is to see; "" for none.
	Target string
	// Users is the pod's user namespace, to which the owners of all mounts' files are
	// mapped; nil means the host's.
	Users *runtimeapi.UserNamespace
}

// Container returns the configuration of a container.
func (n Node) Container(r Run) (*runtimeapi.ContainerConfig, error) {
	c := r.Container
	security, err := n.security(r.Pod, c, r.User, r.Users)
	if err != nil {
		return nil, err
	}
	if r.Target != "" {
		security.NamespaceOptions.Pid, security.NamespaceOptions.TargetId = runtimeapi.NamespaceMode_TARGET, r.Target
	}
	values := make(map[string]string, len(r.Env))
	env := make([]*runtimeapi.KeyValue, len(r.Env))
	for i, e := range r.Env {
		values[e.Name] = e.Value
		env[i] = &runtimeapi.KeyValue{Key: e.Name, Value: []byte(e.Value)}
	}
	for _, m := range r.Mounts {
		m.UidMappings, m.GidMappings = r.Users.GetUids(), r.Users.GetGids()
	}
	return &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: uint32(r.Restarts)},
		Image:       &runtimeapi.ImageSpec{Image: r.ImageRef, UserSpecifiedImage: c.Image},
		Command:     expandAll(c.Command, values),
		Args:        expandAll(c.Args, values),
		WorkingDir:  c.WorkingDir,
		Envs:        env,
		Mounts:      r.Mounts,
		Labels:      runtimepod.ContainerLabels(r.Pod, c),
		Annotations: runtimepod.ContainerAnnotations(r.Pod, c, r.Restarts, r.Round),
		LogPath:     ContainerLog(c.Name, r.Restarts),
		Stdin:       c.Stdin,
		StdinOnce:   c.StdinOnce,
		Tty:         c.TTY,
		StopSignal:  stopSignal(c),
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       n.Resources(r.Pod, c),
			SecurityContext: security,
		},
	}, nil
}

// stopSignal is lifecycle.stopSignal (KEP-4960); without it the image's holds. Its
// names are the API's, which the CRI spells a little differently.
func stopSignal(c *v1.Container) runtimeapi.Signal {
	if c.Lifecycle == nil || c.Lifecycle.StopSignal == nil {
		return runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT
	}
	name := strings.NewReplacer("+", "PLUS", "-", "MINUS").Replace(string(*c.Lifecycle.StopSignal))
	return runtimeapi.Signal(runtimeapi.Signal_value["SIGNAL_"+name])
}

// expandAll replaces $(NAME) in command lines; what isn't defined stays as it is.
func expandAll(words []string, values map[string]string) []string {
	mapping := expansion.MappingFuncFor(values)
	var out []string
	for _, w := range words {
		out = append(out, expansion.Expand(w, mapping))
	}
	return out
}
