package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, []string{"--dir", dir}, w, io.Discard)
		_ = w.CloseWithError(err) // never fails; ends the reading below
		ended <- err
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	conf, err := os.ReadFile(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	addr := regexp.MustCompile(`location = "(.*)"`).FindStringSubmatch(string(conf))
	if addr == nil {
		t.Fatalf("no address in %s", conf)
	}
	resp, err := http.Get("http://" + addr[1] + "/v2/library/busybox/manifests/latest")
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status: %s", resp.Status)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestBadFlags(t *testing.T) {
	for _, args := range [][]string{{"--nosuch"}, {"--listen", "0.0.0.0:0"}, {"--listen", "nonsense"}} {
		if err := run(context.Background(), append(args, "--dir", t.TempDir()), io.Discard, io.Discard); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
