package cli

import (
	"strings"
	"testing"
	"time"

	"errand.dev/errand/internal/podtrace"
)

func TestPrintTrace(t *testing.T) {
	start := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	ms := func(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }
	trace := &podtrace.Trace{
		Identity: podtrace.Identity{Namespace: "default", Name: "p", JobName: "j"}, TraceID: "0a", Start: start, Duration: ms(64), Dropped: 2,
		Steps: []podtrace.Step{
			{Name: "PodSeen", Start: start},
			{Name: "RunPodSandbox", Start: start.Add(ms(2)), Duration: ms(30), Steps: []podtrace.Step{
				{Name: "CreateNamespaces", Start: start.Add(ms(2.5)), Duration: ms(0.25)},
				{Name: "AttachNetwork", Detail: "10.0.0.2", Start: start.Add(ms(4)), Duration: ms(20)},
			}},
			{Name: "StartContainer", Container: "c", Start: start.Add(ms(40)), Duration: ms(24), Running: true, Error: "no such file", Steps: []podtrace.Step{
				{Name: "RunInShim", Container: "c", Start: start.Add(ms(40)), Duration: ms(1)},
			}},
		},
	}
	var b strings.Builder
	if err := printTrace(&b, trace); err != nil {
		t.Fatal(err)
	}
	want := `
Pod:    default/p
Job:    j
Trace:  0a
Began:  ` + start.Local().Format(time.RFC3339Nano) + `
Took:   64.0 ms so far

     START       TOOK                                    STEP
    0.0 ms          ·  ▏                                 PodSeen
    2.0 ms    30.0 ms   ███████████████                  RunPodSandbox
    2.5 ms     0.2 ms   ▏                                ├─ CreateNamespaces
    4.0 ms    20.0 ms    ██████████                      └─ AttachNetwork (10.0.0.2)
   40.0 ms    24.0 ms                      ████████████  StartContainer c …: no such file
   40.0 ms     1.0 ms                      ▏             └─ RunInShim
2 later steps aren't remembered.
`
	if got := "\n" + b.String(); got != want {
		t.Errorf("got%s", got)
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0 ms", 1500 * time.Microsecond: "1.5 ms", 2500 * time.Millisecond: "2.50 s", 90*time.Second + 300*time.Millisecond: "1m30s",
	} {
		if got := short(d); got != want {
			t.Errorf("%s is shown as %q, want %q", d, got, want)
		}
	}
}

func TestTraceOfNoPod(t *testing.T) {
	for _, pod := range []string{"/", "a/", "/b", "a/b/c"} {
		cmd := newDoctor()
		cmd.SetArgs([]string{"--trace-pod", pod})
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), "must be NAMESPACE/NAME or NAME") {
			t.Errorf("%q: %v", pod, err)
		}
	}
	cmd := newDoctor()
	cmd.SetArgs([]string{"--trace-pod", "p", "--data-dir", t.TempDir()})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), "errand serve is not running on data directory") {
		t.Errorf("without an errand: %v", err)
	}
}
