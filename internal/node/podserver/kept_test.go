package podserver

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"errand.dev/errand/internal/node/keptlogs"
)

// oneKept keeps one run, number 2 of container "c" of the Job "j" in "ns".
type oneKept struct{ text string }

func (k oneKept) KeptLogs(_ context.Context, namespace, job string) ([]keptlogs.Run, error) {
	if namespace != "ns" || job != "j" {
		return nil, nil
	}
	return []keptlogs.Run{{Namespace: "ns", JobName: "j", PodUID: "uid-2", Container: "c", RestartCount: 2}}, nil
}

func (k oneKept) OpenKeptLog(_ context.Context, namespace string, pod types.UID, container string, n int32) (io.ReadCloser, error) {
	if namespace != "ns" || pod != "uid-2" || container != "c" || n != 2 {
		return nil, fmt.Errorf("nothing is kept: %w", fs.ErrNotExist)
	}
	return io.NopCloser(strings.NewReader(k.text)), nil
}

func TestKeptLogs(t *testing.T) {
	w := newWorld(t)
	const log = "/keptLogs/ns/j/uid-2/c/2"
	long := strings.Repeat("x", 100<<10)
	for path, want := range map[string]struct {
		code int
		body string // or the beginning of an error
	}{
		"/keptLogs/ns/j":                       {200, `{"runs":[{"namespace":"ns","jobName":"j","jobUID":"","podName":"","podUID":"uid-2","container":"c","restartCount":2,"keptAt":"0001-01-01T00:00:00Z","size":0,"files":null}]}`},
		"/keptLogs/elsewhere/j":                {200, `{"runs":[]}`},
		log:                                    {200, "one\ntwo\nthree\n\nfive\n" + long + "\nend"},
		log + "?stream=Stderr":                 {200, "two\n"},
		log + "?limitBytes=5":                  {200, "one\nt"},
		log + "?timestamps=true&limitBytes=34": {200, "2026-01-01T00:00:01.500000000Z one"},
		log + "?follow=true":                   {400, "of a log that is kept there is no follow"},
		log + "?tailLines=1":                   {400, "of a log that is kept there is no follow"},
		log + "?timestamps=perhaps":            {400, "unable to decode query"},
		"/keptLogs/ns/j/uid-2/c/1":             {404, "nothing is kept"},
		"/keptLogs/other/j/uid-2/c/2":          {404, "nothing is kept"},
		"/keptLogs/ns/j/uid-2/c/second":        {400, `"second" is not the number`},
	} {
		code, got := w.get(t, path)
		if code != want.code || got != want.body && (code == http.StatusOK || !strings.HasPrefix(got, want.body)) {
			t.Errorf("%s: %d %.200q\nwant %d %.200q", path, code, got, want.code, want.body)
		}
	}
}
