package podserver

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strconv"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/node/keptlogs"
)

// keptRuns lists the runs whose logs are kept of a Job.
func (s *Server) keptRuns(w http.ResponseWriter, req *http.Request) error {
	runs, err := s.cfg.KeptLogs.KeptLogs(req.Context(), req.PathValue("namespace"), req.PathValue("job"))
	if err != nil {
		return err
	}
	if runs == nil {
		runs = []keptlogs.Run{} // none, rather than null
	}
	return writeJSON(w, keptlogs.List{Runs: runs})
}

// keptLog serves the log of a run, all of it that is kept, by the options of
// PodLogOptions that have a meaning there.
func (s *Server) keptLog(w http.ResponseWriter, req *http.Request) error {
	options, err := parseLogOptions(req.URL.Query(), s.cfg.Clock.Now())
	if err != nil {
		return err
	}
	if options.follow || options.previous || options.tail >= 0 {
		return errBadRequest("of a log that is kept there is no follow, previous or tailLines")
	}
	run, err := strconv.ParseInt(req.PathValue("restartCount"), 10, 32)
	if err != nil {
		return errBadRequest("%q is not the number of a container's run", req.PathValue("restartCount"))
	}
	log, err := s.cfg.KeptLogs.OpenKeptLog(req.Context(), req.PathValue("namespace"), types.UID(req.PathValue("uid")), req.PathValue("container"), int32(run))
	if errors.Is(err, fs.ErrNotExist) {
		return errNotFound("%v", err)
	}
	if err != nil {
		return err
	}
	defer log.Close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	out := &flushWriter{Writer: bufio.NewWriterSize(w, 32<<10), http: http.NewResponseController(w)}
	lines := &lineWriter{options: options, out: out, left: options.limit, fresh: true}
	if err := errors.Join(copyLines(lines, log), out.flush()); err != nil && req.Context().Err() == nil {
		// The answer has begun: what is left is to break it off.
		klog.FromContext(req.Context()).V(2).Info("A kept log broke off", "err", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// copyLines writes all lines of a log that the options ask for.
func copyLines(to *lineWriter, log io.Reader) error {
	reader := bufio.NewReaderSize(log, 64<<10)
	for {
		line, err := reader.ReadBytes('\n')
		if len(line) > 0 {
			switch err := to.write(line); {
			case errors.Is(err, errLimit):
				return nil
			case err != nil:
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
