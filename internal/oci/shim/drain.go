package shim

import (
	"sync"

	"errand.dev/errand/internal/oci/shimapi"
)

// drain makes the shim take no new containers and stop once none starts or runs. Exits that nobody has deleted yet remain on disk
// for the next shim.
func (s *Shim) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	s.checkIdle()
}

// opDrain has no answer on success but the end of the connection, with the process.
func (s *Shim) opDrain(c *call) error {
	var req shimapi.Drain
	if err := c.decode(&req); err != nil {
		return err
	}
	if req.Kill {
		s.refuseNew()
		if err := s.killAll(); err != nil {
			return err
		}
	}
	s.drain()
	<-c.gone()
	return nil
}

// refuseNew begins to drain without stopping yet.
func (s *Shim) refuseNew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
}

// killAll ends all containers.
func (s *Shim) killAll() error {
	s.mu.Lock()
	var all []*container
	for _, c := range s.containers {
		all = append(all, c)
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	errs := make(chan error, len(all))
	for _, c := range all {
		wg.Go(func() {
			<-c.done.started
			s.mu.Lock()
			alive := c.phase == running
			s.mu.Unlock()
			if !alive {
				return
			}
			if err := s.killContainer(c); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}
