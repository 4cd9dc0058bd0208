package server

import (
	"context"
	"io/fs"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/pkg/kubelet/images/pullmanager"

	"errand.dev/errand/internal/node/eviction"
	"errand.dev/errand/internal/node/imagegc"
)

// newImageCollector makes what removes images when the disk is nearly full.
func (s *serve) newImageCollector(ctx context.Context, client kubernetes.Interface, records pullmanager.ImagePullManager) (*imagegc.Collector, error) {
	return imagegc.New(imagegc.Config{
		Policy:     s.options.imageGCPolicy(),
		Runtime:    s.runtime.Runtime(),
		Images:     s.runtime.Images(),
		Containers: s.runtime.allContainers,
		Pods:       s.podsHere,
		Disk:       s.imageDisk,
		Records:    records,
		Recorder:   s.recorder(ctx, client, "kubelet", s.nodeName.current),
		NodeName:   s.nodeName.current,
	})
}

// newEviction makes what says that the machine is under pressure, and ends pods then.
func (s *serve) newEviction(ctx context.Context, client kubernetes.Interface, collector *imagegc.Collector, memory int64) (*eviction.Manager, error) {
	return eviction.New(eviction.Config{
		Policy:   s.options.evictionPolicy(),
		Host:     eviction.LinuxHost(memory, s.dir.Root(), s.imagesDir),
		Runtime:  s.runtime.Runtime(),
		Images:   collector,
		Recorder: s.recorder(ctx, client, "kubelet", s.nodeName.current),
		NodeName: s.nodeName.current,
	})
}

// imagesDir is a directory on the file system that images are on, or, as long as a
// runtime doesn't tell, on the pods'.
func (s *serve) imagesDir() string {
	path, err := s.runtime.imageDir(s.dir)
	if err != nil {
		return s.dir.Root()
	}
	return path
}

// podsHere are the pods bound to this node.
func (s *serve) podsHere() []*v1.Pod {
	all, err := s.api.Informers().Core().V1().Pods().Lister().List(labels.Everything())
	if err != nil {
		return nil // a cache has no errors
	}
	var here []*v1.Pod
	for _, pod := range all {
		if pod.Spec.NodeName == s.nodeName.current {
			here = append(here, pod)
		}
	}
	return here
}

// imageDisk is the state of the file system that images are on.
func (s *serve) imageDisk() (imagegc.Disk, error) {
	path, err := s.runtime.imageDir(s.dir)
	if err != nil {
		return imagegc.Disk{}, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return imagegc.Disk{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	return imagegc.Disk{Capacity: int64(st.Blocks) * st.Bsize, Available: int64(st.Bavail) * st.Bsize}, nil
}
