package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"errand.dev/errand/internal/command"
	"errand.dev/errand/internal/podtrace"
	"errand.dev/errand/internal/server"
)

// showTrace prints where the time of a pod, by "namespace/name" or by its name in
// the namespace default, went.
func showTrace(cmd *cobra.Command, o server.Options, pod, output string) error {
	namespace, name, found := strings.Cut(pod, "/")
	if !found {
		namespace, name = "default", pod
	}
	if namespace == "" || name == "" || strings.Contains(name, "/") {
		return command.UsageError(fmt.Errorf("--trace-pod %q: must be NAMESPACE/NAME or NAME", pod))
	}
	t, err := server.TracePod(cmd.Context(), o, namespace, name)
	if err != nil {
		return err
	}
	if output != "" {
		return printStructured(cmd.OutOrStdout(), output, t)
	}
	return printTrace(cmd.OutOrStdout(), t)
}

// barWidth is how many characters the pod's time is wide.
const barWidth = 32

// printTrace prints a trace for people: a line for each step, with its beginning,
// its duration, a bar that shows both, and the tree.
func printTrace(w io.Writer, t *podtrace.Trace) error {
	var errs []error
	say := func(w io.Writer, format string, args ...any) {
		_, err := fmt.Fprintf(w, format, args...)
		errs = append(errs, err)
	}
	head := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	say(head, "Pod:\t%s/%s\n", t.Namespace, t.Name)
	if t.JobName != "" {
		say(head, "Job:\t%s\n", t.JobName)
	}
	say(head, "Trace:\t%s\n", t.TraceID)
	say(head, "Began:\t%s\n", t.Start.Local().Format(time.RFC3339Nano))
	sofar := ""
	if !t.Over {
		sofar = " so far"
	}
	say(head, "Took:\t%s%s\n", short(t.Duration), sofar)
	errs = append(errs, head.Flush())
	say(w, "\n%10s %10s  %-*s  %s\n", "START", "TOOK", barWidth, "", "STEP")
	printSteps(say, w, t, t.Steps, "", nil)
	if t.Dropped > 0 {
		say(w, "%d later steps aren't remembered.\n", t.Dropped)
	}
	return errors.Join(errs...)
}

// printSteps prints steps whose lines begin with indent. Of, unless nil, is the one
// that they are parts of.
func printSteps(say func(io.Writer, string, ...any), w io.Writer, t *podtrace.Trace, steps []podtrace.Step, indent string, of *podtrace.Step) {
	for i := range steps {
		s := &steps[i]
		branch, next := "", ""
		if of != nil {
			branch, next = "├─ ", "│  "
			if i == len(steps)-1 {
				branch, next = "└─ ", "   "
			}
		}
		start := s.Start.Sub(t.Start)
		took := short(s.Duration)
		if s.Duration == 0 && !s.Running {
			took = "·"
		}
		bar := bar(start, s.Duration, t.Duration)
		pad := strings.Repeat(" ", max(barWidth-utf8.RuneCountInString(bar), 0))
		say(w, "%10s %10s  %s%s  %s%s%s\n", short(start), took, bar, pad, indent, branch, describe(s, of))
		printSteps(say, w, t, s.Steps, indent+next, s)
	}
}

// describe is a step in words; it has its container where that isn't said already.
func describe(s, of *podtrace.Step) string {
	var b strings.Builder
	b.WriteString(s.Name)
	if s.Container != "" && (of == nil || of.Container != s.Container) {
		fmt.Fprintf(&b, " %s", s.Container)
	}
	if s.Detail != "" {
		fmt.Fprintf(&b, " (%s)", s.Detail)
	}
	if s.Running {
		b.WriteString(" …")
	}
	if s.Error != "" {
		fmt.Fprintf(&b, ": %s", s.Error)
	}
	return b.String()
}

// bar shows when something happened within the whole. What is too short for a
// block is a thin line.
func bar(start, took, whole time.Duration) string {
	if whole <= 0 {
		return ""
	}
	cell := func(d time.Duration) int { return int(float64(d) / float64(whole) * barWidth) }
	from := min(cell(start), barWidth-1)
	blocks := min(cell(start+took), barWidth) - from
	if blocks < 1 {
		return strings.Repeat(" ", from) + "▏"
	}
	return strings.Repeat(" ", from) + strings.Repeat("█", blocks)
}

// short is a duration with as many digits as anybody wants to read.
func short(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	default:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
}
