package podserver

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/node/crispec"
)

// logOptions is a PodLogOptions, checked.
type logOptions struct {
	follow, previous, timestamps bool
	since                        time.Time
	tail, limit                  int64 // lines and bytes; -1: all
	stdout, stderr               bool
}

// logs serves a container's log.
func (s *Server) logs(w http.ResponseWriter, req *http.Request) error {
	options, err := parseLogOptions(req.URL.Query(), s.cfg.Clock.Now())
	if err != nil {
		return err
	}
	pod, err := s.pod(req)
	if err != nil {
		return err
	}
	name := req.PathValue("container")
	if _, ok := container(pod, name); !ok {
		return errNotFound("container %q not found in pod %q", name, pod.Name)
	}
	id, err := containerForLogs(pod, name, options.previous)
	if err != nil {
		return err
	}
	log, err := s.openLog(req.Context(), pod, name, id)
	if err != nil {
		return err
	}
	defer log.close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	out := &flushWriter{Writer: bufio.NewWriterSize(w, 32<<10), http: http.NewResponseController(w)}
	if err := out.flush(); err != nil { // -f shall not wait for the first line to get its headers
		return err
	}
	if err := s.copyLog(req.Context(), log, id, options, out); err != nil && req.Context().Err() == nil {
		// The answer has begun: what is left is to break it off.
		klog.FromContext(req.Context()).V(2).Info("Log broke off", "pod", klog.KObj(pod), "container", name, "err", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// openLog finds and opens the log of a container.
func (s *Server) openLog(ctx context.Context, pod *v1.Pod, name string, id containerID) (*logFile, error) {
	path := ""
	switch resp, err := s.cfg.Runtime.ContainerStatus(ctx, id.id, false); {
	case crierrors.IsNotFound(err):
		// An ended pod's containers go when the disk is full; their logs stay as long as it does.
		path = s.logOfRun(pod, name, id)
	case err != nil:
		klog.FromContext(ctx).V(2).Info("No status for a container whose log is asked for", "container", id, "err", err)
		return nil, errBadRequest("unable to retrieve container logs for %s", id)
	default:
		path = resp.GetStatus().GetLogPath()
	}
	relative, err := filepath.Rel(s.cfg.LogDir, path)
	if err != nil || !filepath.IsLocal(relative) {
		return nil, fmt.Errorf("log of container %s is not below the log directory", id)
	}
	root, err := os.OpenRoot(s.cfg.LogDir)
	if err != nil {
		return nil, err
	}
	log := &logFile{root: root, name: relative, path: path}
	if err := log.begin(); err != nil {
		err = fmt.Errorf("failed to open log file %q: %w", path, err)
		return nil, errors.Join(&httpError{http.StatusBadRequest, err.Error()}, root.Close())
	}
	return log, nil
}

// logOfRun is where the log of the container's present run, or of the one before
// it, is.
func (s *Server) logOfRun(pod *v1.Pod, name string, id containerID) string {
	status, _ := containerStatus(pod, name)
	run := status.RestartCount
	if last := status.LastTerminationState.Terminated; last != nil && parseContainerID(last.ContainerID) == id && parseContainerID(status.ContainerID) != id {
		run--
	}
	dir := crispec.Node{LogDir: s.cfg.LogDir}.PodLogDir(pod.Namespace, pod.Name, pod.UID)
	return filepath.Join(dir, crispec.ContainerLog(name, run))
}

// logFile is a container's log. It never leads out of root.
type logFile struct {
	root *os.Root
	name string // below root
	path string
	file *os.File // the log's, or a rotated one
	stem string   // the rotated one's name without gzSuffix, "" if it was the log's when it was opened
}

// begin opens what has the log's name now, or had it until just now: for a moment
// of each rotation nothing has.
func (l *logFile) begin() error {
	f, err := l.open(l.name)
	stem := ""
	if errors.Is(err, fs.ErrNotExist) {
		olds, lerr := l.rotated()
		if stem = newest(olds); lerr == nil && stem != "" {
			f, err = l.open(stem) // the newest isn't compressed
		}
	}
	if err != nil {
		return err
	}
	l.use(f, stem)
	return nil
}

// open opens one of the log's files. It refuses what isn't a file: a container
// with access to the host may have put anything there.
func (l *logFile) open(name string) (*os.File, error) {
	f, err := l.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (l *logFile) use(f *os.File, stem string) {
	if l.file != nil {
		_ = l.file.Close() // was only read
	}
	l.file, l.stem = f, stem
}

// reader reads the open file from where it is.
func (l *logFile) reader() (io.Reader, error) {
	if !strings.HasSuffix(l.file.Name(), gzSuffix) {
		return l.file, nil
	}
	return gzip.NewReader(l.file)
}

func (l *logFile) close() {
	if l.file != nil {
		_ = l.file.Close() // was only read
	}
	_ = l.root.Close() // likewise
}

// flushWriter collects output until flush.
type flushWriter struct {
	*bufio.Writer
	http *http.ResponseController
}

func (w *flushWriter) flush() error {
	if err := w.Flush(); err != nil {
		return err
	}
	return w.http.Flush()
}

// parseLogOptions reads PodLogOptions from a query, as the API server writes it.
func parseLogOptions(query url.Values, now time.Time) (logOptions, error) {
	o := logOptions{tail: -1, limit: -1}
	p := queryParser{query: query}
	o.follow, o.previous, o.timestamps = p.boolean("follow"), p.boolean("previous"), p.boolean("timestamps")
	p.natural("tailLines", 0, &o.tail)
	p.natural("limitBytes", 1, &o.limit)
	seconds := int64(-1)
	p.natural("sinceSeconds", 1, &seconds)
	if text := query.Get("sinceTime"); text != "" {
		since, err := time.Parse(time.RFC3339, text)
		p.note(err, "sinceTime", text)
		o.since = since
	}
	if seconds >= 0 {
		if !o.since.IsZero() {
			p.err = &httpError{http.StatusUnprocessableEntity, "at most one of sinceTime or sinceSeconds may be specified"}
		}
		o.since = now.Add(-time.Duration(seconds) * time.Second)
	}
	stream := query.Get("stream")
	switch stream {
	case "", v1.LogStreamAll:
		o.stdout, o.stderr = true, true
	case v1.LogStreamStdout:
		o.stdout = true
	case v1.LogStreamStderr:
		o.stderr = true
	default:
		return o, errBadRequest("invalid stream type %q", stream)
	}
	if o.tail >= 0 && !(o.stdout && o.stderr) {
		p.err = &httpError{http.StatusUnprocessableEntity, "tailLines and a single stream are mutually exclusive"}
	}
	return o, p.err
}

// queryParser keeps the first error.
type queryParser struct {
	query url.Values
	err   error
}

func (p *queryParser) note(err error, name, text string) {
	if err != nil && p.err == nil {
		p.err = errBadRequest("unable to decode query: %s=%q", name, text)
	}
}

func (p *queryParser) boolean(name string) bool {
	text := p.query.Get(name)
	if text == "" {
		return false
	}
	value, err := strconv.ParseBool(text)
	p.note(err, name, text)
	return value
}

// natural reads a number not below least, leaving to as it is without one.
func (p *queryParser) natural(name string, least int64, to *int64) {
	text := p.query.Get(name)
	if text == "" {
		return
	}
	n, err := strconv.ParseInt(text, 10, 64)
	p.note(err, name, text)
	if err == nil && n < least && p.err == nil {
		p.err = &httpError{http.StatusUnprocessableEntity, fmt.Sprintf("%s must be at least %d", name, least)}
	}
	*to = n
}
