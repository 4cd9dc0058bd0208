package native

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"errand.dev/errand/internal/oci/seccompbpf"
)

// filters keeps what profiles have been compiled to: there are few, and nearly all containers have the same.
type filters struct {
	mu       sync.Mutex
	compiled map[[sha256.Size]byte]filter
}

type filter struct {
	*seccompbpf.Filter
	err error
}

// maxFilters bounds what is kept, should somebody bring a profile of its own for every container.
const maxFilters = 64

func (f *filters) of(profile *specs.LinuxSeccomp) (*seccompbpf.Filter, error) {
	data, err := json.Marshal(profile)
	if err != nil {
		return nil, err
	}
	key := sha256.Sum256(data)
	f.mu.Lock()
	defer f.mu.Unlock()
	known, ok := f.compiled[key]
	if !ok {
		known.Filter, known.err = seccompbpf.Compile(profile)
		if f.compiled == nil || len(f.compiled) >= maxFilters {
			f.compiled = map[[sha256.Size]byte]filter{}
		}
		f.compiled[key] = known
	}
	var not *seccompbpf.Unsupported
	if errors.As(known.err, &not) {
		return nil, unsupported("the seccomp profile (%v)", not)
	}
	return known.Filter, known.err
}
