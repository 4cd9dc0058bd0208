package cgroups

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Detail is what Stats leaves out: what only metrics ask for. A field that the
// kernel doesn't account is zero.
type Detail struct {
	// In nanoseconds.
	CPUUser, CPUSystem, CPUThrottled uint64
	// Periods of the CPU quota, and those in which it was used up.
	Periods, ThrottledPeriods uint64
	// In bytes. Peak is the most that was in use at once.
	Cache, MappedFile, KernelMemory, PeakMemory uint64
	// LimitHits is how often memory was at its limit, OOMKills how many processes
	// that killed.
	LimitHits, OOMKills uint64
	Threads             uint64
	// MaxThreads is pids.max, 0 for none.
	MaxThreads uint64
	Devices    []DeviceIO
}

// DeviceIO is what has been read from a block device, or written to it.
type DeviceIO struct {
	// Device is "major:minor".
	Device                string
	ReadBytes, WriteBytes uint64
	Reads, Writes         uint64
}

// userHZ is the unit of the kernel's older counters of CPU time, on every
// architecture that Linux lets programs see.
const userHZ = 100

// Detail reads more of a cgroup's usage. The error wraps ErrNotFound when the
// cgroup is gone.
func (t *Tree) Detail(path string) (*Detail, error) {
	if !t.Exists(path) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, path)
	}
	r := &reader{tree: t, path: path}
	d := &Detail{}
	if t.v2 {
		r.detail2(d)
	} else {
		r.detail1(d)
	}
	if r.err != nil {
		return nil, fmt.Errorf("read the usage of the cgroup %s: %w", path, r.err)
	}
	return d, nil
}

func (r *reader) detail2(d *Detail) {
	cpu := r.keyed("cpu.stat")
	d.CPUUser, d.CPUSystem, d.CPUThrottled = cpu["user_usec"]*1000, cpu["system_usec"]*1000, cpu["throttled_usec"]*1000
	d.Periods, d.ThrottledPeriods = cpu["nr_periods"], cpu["nr_throttled"]
	memory := r.keyed("memory.stat")
	d.Cache, d.MappedFile, d.KernelMemory = memory["file"], memory["file_mapped"], memory["kernel"]
	d.PeakMemory = r.number("memory.peak")
	events := r.keyed("memory.events")
	d.LimitHits, d.OOMKills = events["max"], events["oom_kill"]
	d.Threads, d.MaxThreads = r.number("pids.current"), r.number("pids.max")
	d.Devices = r.io2("io.stat")
}

func (r *reader) detail1(d *Detail) {
	const tick = 1e9 / userHZ
	used := r.keyed("cpuacct/cpuacct.stat")
	d.CPUUser, d.CPUSystem = used["user"]*tick, used["system"]*tick
	cpu := r.keyed("cpu/cpu.stat")
	d.Periods, d.ThrottledPeriods, d.CPUThrottled = cpu["nr_periods"], cpu["nr_throttled"], cpu["throttled_time"]
	memory := r.keyed("memory/memory.stat")
	d.Cache, d.MappedFile = memory["total_cache"], memory["total_mapped_file"]
	d.KernelMemory, d.PeakMemory = r.number("memory/memory.kmem.usage_in_bytes"), r.number("memory/memory.max_usage_in_bytes")
	d.LimitHits, d.OOMKills = r.number("memory/memory.failcnt"), r.keyed("memory/memory.oom_control")["oom_kill"]
	d.Threads, d.MaxThreads = r.number("pids/pids.current"), r.number("pids/pids.max")
	d.Devices = r.io1("blkio/blkio.throttle.io_service_bytes_recursive", "blkio/blkio.throttle.io_serviced_recursive")
}

// io2 reads lines of "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0".
func (r *reader) io2(file string) []DeviceIO {
	var out []DeviceIO
	for sc := bufio.NewScanner(bytes.NewReader(r.read(file))); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) < 2 {
			continue // a device without any use
		}
		d := DeviceIO{Device: fields[0]}
		into := map[string]*uint64{"rbytes": &d.ReadBytes, "wbytes": &d.WriteBytes, "rios": &d.Reads, "wios": &d.Writes}
		for _, f := range fields[1:] {
			name, value, _ := strings.Cut(f, "=")
			if at, ok := into[name]; ok {
				*at = r.parse(file, value)
			}
		}
		out = append(out, d)
	}
	return out
}

// io1 reads lines of "8:0 Read 1", of bytes and of operations.
func (r *reader) io1(bytesFile, countFile string) []DeviceIO {
	var out []DeviceIO
	index := map[string]int{}
	each := func(file string, set func(d *DeviceIO, operation string, n uint64)) {
		for sc := bufio.NewScanner(bytes.NewReader(r.read(file))); sc.Scan(); {
			fields := strings.Fields(sc.Text())
			if len(fields) != 3 {
				continue // the total
			}
			i, ok := index[fields[0]]
			if !ok {
				i = len(out)
				index[fields[0]] = i
				out = append(out, DeviceIO{Device: fields[0]})
			}
			set(&out[i], fields[1], r.parse(file, fields[2]))
		}
	}
	each(bytesFile, func(d *DeviceIO, operation string, n uint64) {
		switch operation {
		case "Read":
			d.ReadBytes = n
		case "Write":
			d.WriteBytes = n
		}
	})
	each(countFile, func(d *DeviceIO, operation string, n uint64) {
		switch operation {
		case "Read":
			d.Reads = n
		case "Write":
			d.Writes = n
		}
	})
	return out
}

func (r *reader) parse(file, value string) uint64 {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		r.fail(fmt.Errorf("%s: %w", file, err))
	}
	return n
}
