package podserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// Handler serves the kubelet's API. Streams end with their request's context.
func (s *Server) Handler() http.Handler { return s.handler }

func (s *Server) newHandler() (http.Handler, error) {
	mux := http.NewServeMux()
	handle := func(pattern string, serve func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
			if err := serve(w, req); err != nil {
				writeError(w, req, err)
			}
		})
	}
	handle("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	if s.cfg.KeptLogs != nil {
		handle("GET /keptLogs/{namespace}/{job}", s.keptRuns)
		handle("GET /keptLogs/{namespace}/{job}/{uid}/{container}/{restartCount}", s.keptLog)
	}
	for _, method := range []string{"GET", "POST"} {
		for _, stream := range []struct {
			name  string
			serve func(http.ResponseWriter, *http.Request) error
		}{{"exec", s.exec}, {"attach", s.attach}} {
			handle(method+" /"+stream.name+"/{namespace}/{pod}/{container}", stream.serve)
			handle(method+" /"+stream.name+"/{namespace}/{pod}/{uid}/{container}", stream.serve)
		}
		handle(method+" /portForward/{namespace}/{pod}", s.portForward)
		handle(method+" /portForward/{namespace}/{pod}/{uid}", s.portForward)
	}
	handle("GET /pods", s.pods)
	handle("GET /stats/summary", s.summary)
	handle("GET /healthz", func(w http.ResponseWriter, _ *http.Request) error {
		_, err := w.Write([]byte("ok"))
		return err
	})
	return mux, s.handleMetrics(mux)
}

// httpError is an error with the status that the kubelet answers it with.
type httpError struct {
	status int
	text   string
}

func (e *httpError) Error() string { return e.text }

func errNotFound(format string, args ...any) error {
	return &httpError{http.StatusNotFound, fmt.Sprintf(format, args...)}
}

func errBadRequest(format string, args ...any) error {
	return &httpError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// writeError answers with the error's text, plainly: the API server makes a
// Status of it. What doesn't carry a status is our own failure.
func writeError(w http.ResponseWriter, req *http.Request, err error) {
	code := http.StatusInternalServerError
	var known *httpError
	if errors.As(err, &known) {
		code = known.status
	} else if req.Context().Err() == nil {
		klog.FromContext(req.Context()).V(2).Info("Request failed", "path", req.URL.Path, "err", err)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(plain(err).Error())) // a client that's gone has no use for it
}

// plain leaves out of what the runtime says how it came here: the reader is a person. The code is still to be had.
func plain(err error) error {
	if coded, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return plainError{coded.GRPCStatus()}
	}
	return err
}

type plainError struct{ status *status.Status }

func (e plainError) Error() string              { return e.status.Message() }
func (e plainError) GRPCStatus() *status.Status { return e.status }

// pod finds the pod that the request's path names.
func (s *Server) pod(req *http.Request) (*v1.Pod, error) {
	name := req.PathValue("pod")
	pod, ok := s.cfg.Pods.Pod(req.PathValue("namespace"), name)
	if !ok {
		return nil, errNotFound("pod %q does not exist", name)
	}
	if uid := req.PathValue("uid"); uid != "" && string(pod.UID) != uid {
		return nil, errNotFound("pod %q with UID %q does not exist", name, uid)
	}
	return pod, nil
}

// container finds a container's spec, of whatever type.
func container(pod *v1.Pod, name string) (*v1.Container, bool) {
	var found *v1.Container
	podutil.VisitContainers(&pod.Spec, podutil.AllContainers, func(c *v1.Container, _ podutil.ContainerType) bool {
		if c.Name == name {
			found = c
		}
		return found == nil
	})
	return found, found != nil
}

// pods lists the node's pods.
func (s *Server) pods(w http.ResponseWriter, _ *http.Request) error {
	list := v1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []v1.Pod{}}
	for _, pod := range s.cfg.Pods.Pods() {
		list.Items = append(list.Items, *pod)
	}
	return writeJSON(w, list)
}

func writeJSON(w http.ResponseWriter, answer any) error {
	data, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(data)
	return err
}
