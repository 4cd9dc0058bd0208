package podserver

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/proxy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/klog/v2"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// exec joins the client to a command that runs in a container.
func (s *Server) exec(w http.ResponseWriter, req *http.Request) error {
	options, id, err := s.target(req)
	if err != nil {
		return err
	}
	command := req.URL.Query()["command"]
	if len(command) == 0 {
		return errBadRequest("you must specify at least one command")
	}
	answer, err := s.cfg.Runtime.Exec(req.Context(), &runtimeapi.ExecRequest{
		ContainerId: id, Cmd: command, Tty: options.TTY, Stdin: options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr,
	})
	return join(w, req, answer.GetUrl(), err)
}

// attach joins the client to a container's own streams. Whether there is a
// terminal was settled when the container was made.
func (s *Server) attach(w http.ResponseWriter, req *http.Request) error {
	options, id, err := s.target(req)
	if err != nil {
		return err
	}
	pod, err := s.pod(req)
	if err != nil {
		return err
	}
	spec, ok := container(pod, req.PathValue("container"))
	if !ok {
		return errNotFound("container %s not found in pod %s", req.PathValue("container"), pod.Name)
	}
	answer, err := s.cfg.Runtime.Attach(req.Context(), &runtimeapi.AttachRequest{
		ContainerId: id, Tty: spec.TTY, Stdin: options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr && !spec.TTY,
	})
	return join(w, req, answer.GetUrl(), err)
}

// portForward joins the client to ports of a pod.
func (s *Server) portForward(w http.ResponseWriter, req *http.Request) error {
	options, err := portforward.NewV4Options(req)
	if err != nil {
		return errBadRequest("%v", err)
	}
	pod, err := s.pod(req)
	if err != nil {
		return err
	}
	sandbox, err := s.sandbox(req.Context(), pod)
	if err != nil {
		return err
	}
	answer, err := s.cfg.Runtime.PortForward(req.Context(), &runtimeapi.PortForwardRequest{PodSandboxId: sandbox, Port: options.Ports})
	return join(w, req, answer.GetUrl(), err)
}

// target finds the running container that a request for streams is meant for.
func (s *Server) target(req *http.Request) (*remotecommand.Options, string, error) {
	options, err := remotecommand.NewOptions(req)
	if err != nil {
		return nil, "", errBadRequest("%v", err)
	}
	pod, err := s.pod(req)
	if err != nil {
		return nil, "", err
	}
	name := req.PathValue("container")
	running, err := s.cfg.Runtime.ListContainers(req.Context(), &runtimeapi.ContainerFilter{
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
		LabelSelector: map[string]string{
			kubelettypes.KubernetesPodUIDLabel:        string(pod.UID),
			kubelettypes.KubernetesContainerNameLabel: name,
		},
	})
	if err != nil {
		return nil, "", err
	}
	if len(running) == 0 {
		return nil, "", fmt.Errorf("container not found (%q)", name)
	}
	return options, running[0].Id, nil
}

func (s *Server) sandbox(ctx context.Context, pod *v1.Pod) (string, error) {
	ready, err := s.cfg.Runtime.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{
		State:         &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY},
		LabelSelector: map[string]string{kubelettypes.KubernetesPodUIDLabel: string(pod.UID)},
	})
	if err != nil {
		return "", err
	}
	if len(ready) == 0 {
		return "", fmt.Errorf("pod not found (%q)", pod.Name+"_"+pod.Namespace)
	}
	return ready[0].Id, nil
}

// join proxies the request's connection to the URL that the runtime answered
// with. It returns when either side is done; both are closed then.
func join(w http.ResponseWriter, req *http.Request, location string, err error) error {
	if err != nil {
		// Codes such as NotFound become the status that the kubelet gives them.
		if werr := streaming.WriteError(plain(err), w); werr != nil {
			klog.FromContext(req.Context()).V(2).Info("The client is gone", "err", werr)
		}
		return nil
	}
	target, err := url.Parse(location)
	if err != nil {
		return fmt.Errorf("the runtime answered with a bad URL: %w", err)
	}
	handler := proxy.NewUpgradeAwareHandler(target, nil, false, true, responder{})
	handler.ServeHTTP(w, req)
	return nil
}

// responder answers when the runtime's streaming server can't be joined.
type responder struct{}

func (responder) Error(w http.ResponseWriter, req *http.Request, err error) { writeError(w, req, err) }
