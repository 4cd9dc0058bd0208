package shim

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/output"
	"errand.dev/errand/internal/oci/shimapi"
)

// recoverers bounds the containers cleaned up at once.
const recoverers = 8

// recover takes over what an earlier shim has left: the exits it recorded, and the containers that lost their parent
// because it was killed. Nobody reads their output nor learns their exit codes any more, so they are killed, cleaned
// up, and recorded as lost.
func (s *Shim) recover() error {
	if err := s.removeStale(); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.path("containers"))
	if err != nil {
		return err
	}
	var (
		wg    sync.WaitGroup
		slots = make(chan struct{}, recoverers)
		found = make([]*container, len(entries))
	)
	for i, e := range entries {
		slots <- struct{}{}
		wg.Go(func() {
			found[i] = s.recoverOne(s.path("containers", e.Name()))
			<-slots
		})
	}
	wg.Wait()
	found = slices.DeleteFunc(found, func(c *container) bool { return c == nil })
	slices.SortFunc(found, func(a, b *container) int {
		return cmp.Or(a.exit.At.Compare(b.exit.At), cmp.Compare(a.run.ID, b.run.ID))
	})
	for _, c := range found {
		close(c.done.started)
		s.containers[c.run.ID] = c
		s.announce(c, c.exit)
	}
	return nil
}

// removeStale removes temporary files (see tempName) and the socket.
func (s *Shim) removeStale() error {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if isTemp(e.Name()) || e.Name() == shimapi.SocketName {
			if err := os.Remove(s.path(e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func isTemp(name string) bool {
	var n uint64
	var suffix string
	_, err := fmt.Sscanf(name, "%d.%s", &n, &suffix)
	return err == nil
}

// recoverOne returns nil if there never was a container.
func (s *Shim) recoverOne(dir string) *container {
	c := newContainer(shimapi.Run{}, dir)
	if !load(dir, runFile, &c.run) || validRun(&c.run) != nil {
		// The runtime had not been executed yet, or everything had been removed already.
		if err := forget(dir); err != nil {
			s.log.Print(err)
		}
		return nil
	}
	s.goNative(c)
	c.run.Launch = nil
	if c.run.LogMaxSize > 0 {
		if err := output.RepairLog(c.run.LogPath); err != nil {
			s.log.Printf("log of container %s: %v", c.run.ID, err)
		}
	}
	var st started
	if load(dir, startedFile, &st) {
		c.pid, c.startedAt = st.Pid, st.At
	}
	var exit shimapi.Exit
	if load(dir, exitFile, &exit) {
		// The shim may have died between recording the exit and this.
		if err := s.cleanUp(c); err != nil {
			s.log.Print(err)
		}
		c.exit = &exit
		return c
	}
	s.log.Printf("container %s lost its parent: killing what is left of it", c.run.ID)
	if err := s.tree.Kill(c.run.CgroupsPath, patience); err != nil {
		s.log.Print(err)
	}
	if err := killBorn(st.Pid, st.Birth, patience); err != nil {
		s.log.Print(err)
	}
	oom := s.tree.OOMKilled(c.run.CgroupsPath)
	if err := s.cleanUp(c); err != nil {
		s.log.Print(err)
	}
	var err error
	if c.exit, err = c.record(128+int(unix.SIGKILL), time.Now(), oom, shimapi.ReasonShimLost); err != nil {
		s.log.Print(err)
	}
	return c
}

// killBorn kills a process, unless it has ended and its pid is another's.
func killBorn(pid int, born string, patience time.Duration) error {
	if pid <= 1 || born == "" {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // ended
	}
	defer unix.Close(fd)
	if birth(pid) != born {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return nil // ended
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
	if n == 0 && err == nil {
		return fmt.Errorf("process %d survived SIGKILL", pid)
	}
	return nil
}
