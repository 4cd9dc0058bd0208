package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// usage is what a process has used of the machine.
type usage struct {
	cpu time.Duration
	// rss is its resident memory in bytes.
	rss int64
}

// clockTick is the unit of /proc's CPU times on Linux (USER_HZ).
const clockTick = 10 * time.Millisecond

func readUsage(pid int) (usage, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	// The second field, the program's name, may contain anything.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var n [3]int64
	for i, field := range []int{11, 12, 21} { // utime, stime and rss (proc_pid_stat(5))
		if n[i], err = strconv.ParseInt(f[field], 10, 64); err != nil {
			return usage{}, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
		}
	}
	return usage{cpu: time.Duration(n[0]+n[1]) * clockTick, rss: n[2] * int64(os.Getpagesize())}, nil
}

func readAll(pids []int) ([]usage, error) {
	all := make([]usage, len(pids))
	for i, pid := range pids {
		var err error
		if all[i], err = readUsage(pid); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// table is one of Markdown, printed once it is complete.
type table struct {
	out  io.Writer
	rows [][]string
}

func newTable(out io.Writer, head ...string) *table {
	return &table{out: out, rows: [][]string{head, strings.Split(strings.Repeat("-", len(head)), "")}}
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print() error {
	for _, cells := range t.rows {
		if _, err := fmt.Fprintln(t.out, "| "+strings.Join(cells, " | ")+" |"); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(t.out)
	return err
}

func perPod(before, after usage, pods int) string {
	return fmt.Sprintf("%d µs", (after.cpu-before.cpu).Microseconds()/int64(pods))
}

func megabytes(bytes int64) string { return fmt.Sprintf("%d MB", bytes>>20) }

// rates are the pods a second of equal Jobs that took so long, the shortest first: median, least and most.
func rates(times []time.Duration, pods int) []string {
	rate := func(took time.Duration) string { return fmt.Sprintf("%.0f", float64(pods)/took.Seconds()) }
	return []string{rate(times[len(times)/2]), rate(times[len(times)-1]), rate(times[0])}
}
