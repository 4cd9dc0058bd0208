package podserver

import (
	"time"

	"errand.dev/errand/internal/node/machine"
)

// Machine tells what the whole node uses. It may be called concurrently.
type Machine interface {
	Usage() (MachineUsage, error)
}

// MachineUsage is a node's usage at one time.
type MachineUsage struct {
	At time.Time
	// CPUNanos is CPU time of all processes since some time before.
	CPUNanos uint64
	// Used and WorkingSet are memory in bytes; WorkingSet is without what the
	// kernel would drop first.
	Used, WorkingSet uint64
	// SwapUsed is in bytes.
	SwapUsed uint64
}

// LinuxMachine is the machine that this process runs on.
func LinuxMachine() Machine { return linuxMachine("/") }

type linuxMachine machine.Linux

// Usage implements Machine.
func (m linuxMachine) Usage() (MachineUsage, error) {
	u := MachineUsage{At: time.Now()}
	cpu, err := machine.Linux(m).CPU()
	if err != nil {
		return u, err
	}
	memory, err := machine.Linux(m).Memory()
	if err != nil {
		return u, err
	}
	u.CPUNanos, u.Used, u.WorkingSet, u.SwapUsed = uint64(cpu), uint64(memory.Used), uint64(memory.WorkingSet), uint64(memory.SwapUsed)
	return u, nil
}
