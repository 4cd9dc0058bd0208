package metrics

import (
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/cri/network"
)

func podMetrics() []metric[network.Usage] {
	counter := func(name, help string, read func(network.Usage) uint64) metric[network.Usage] {
		return metric[network.Usage]{name, help, runtimeapi.MetricType_COUNTER, []string{"interface"}, func(u network.Usage) []sample {
			return []sample{{labels: []string{u.Interface}, value: read(u)}}
		}}
	}
	return []metric[network.Usage]{
		counter("container_network_receive_bytes_total", "Bytes received", func(u network.Usage) uint64 { return u.RxBytes }),
		counter("container_network_receive_errors_total", "Errors while receiving", func(u network.Usage) uint64 { return u.RxErrors }),
		counter("container_network_receive_packets_dropped_total", "Packets dropped while receiving", func(u network.Usage) uint64 { return u.RxDropped }),
		counter("container_network_receive_packets_total", "Packets received", func(u network.Usage) uint64 { return u.RxPackets }),
		counter("container_network_transmit_bytes_total", "Bytes sent", func(u network.Usage) uint64 { return u.TxBytes }),
		counter("container_network_transmit_errors_total", "Errors while sending", func(u network.Usage) uint64 { return u.TxErrors }),
		counter("container_network_transmit_packets_dropped_total", "Packets dropped while sending", func(u network.Usage) uint64 { return u.TxDropped }),
		counter("container_network_transmit_packets_total", "Packets sent", func(u network.Usage) uint64 { return u.TxPackets }),
	}
}
