package network

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// Usage counts what a pod's interface has carried, as the pod sees it.
type Usage struct {
	Interface           string
	RxBytes, RxPackets  uint64
	RxErrors, RxDropped uint64
	TxBytes, TxPackets  uint64
	TxErrors, TxDropped uint64
}

// Usage reads a sandbox's counters from the host's end of its veth, whose
// received is the pod's sent.
func (m *Manager) Usage(id string) (Usage, error) {
	dir := filepath.Join("/sys/class/net", VethName(m.cfg.Bridge, id), "statistics")
	u := Usage{Interface: podInterface}
	for name, into := range map[string]*uint64{
		"tx_bytes": &u.RxBytes, "tx_packets": &u.RxPackets, "tx_errors": &u.RxErrors, "tx_dropped": &u.RxDropped,
		"rx_bytes": &u.TxBytes, "rx_packets": &u.TxPackets, "rx_errors": &u.TxErrors, "rx_dropped": &u.TxDropped,
	} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			*into, err = strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
		}
		if err != nil {
			return Usage{}, fmt.Errorf("read the network usage of sandbox %s: %w", id, err)
		}
	}
	return u, nil
}
