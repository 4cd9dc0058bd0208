// Package resourcemetrics is the API group metrics.k8s.io, which kubectl top
// reads: what pods and nodes use of CPU and memory, now. In a cluster
// metrics-server serves it, by way of the aggregation layer.
//
// It owns the group's registries and how usage is found. It doesn't measure:
// each node's agent does, at /metrics/resource, and is reached as for logs, so
// that a user's own nodes are told of as errand's is.
//
// # CPU is a rate, and nothing is read while nobody asks
//
// Nodes count CPU time. Usage is its growth between two readings, divided by the
// time between. metrics-server reads every 15 seconds for ever; a machine that is
// idle shall be idle, so that here a reading is made when somebody asks, and the
// rate is that since the reading before. Its time is told as the window:
//
//   - a reading younger than a second (minWindow) is not made again: whoever asks
//     meanwhile gets the same answer;
//   - one that is older than a minute (maxWindow), or none, says nothing of now.
//     Then two are made, a second apart, and the one who asks waits for that long;
//   - else the window is the time from one question to the next: two seconds
//     for kubectl top in a watch -n 2, 15 for a program that asks as often.
//
// A container that started after the reading before used its CPU time since its
// start, and that is its window, unless it is younger than a tenth of a second:
// such a one, and with it its pod, has no usage yet. So has one whose counter has
// fallen, which means that it is another container. Memory is that of the last
// reading.
package resourcemetrics
