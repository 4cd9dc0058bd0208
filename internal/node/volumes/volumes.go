// Package volumes gives pods their volumes: it makes them ready, keeps those
// that mirror API objects current, and takes them away.
//
// What claims lead to it finds, checks and hands to the pod's group; it never
// makes or removes it. Images that are volumes are the runtime's to mount.
//
// It owns everything below <RootDir>/<pod UID>/volumes and .../volume-subpaths,
// laid out as the kubelet does (volumes/kubernetes.io~empty-dir/<name>), and the
// same below MemoryDir. It does not own the rest of a pod's directory (hosts
// file, termination logs), and it mounts nothing into containers: Mounts says
// what the runtime has to mount.
//
// # Where secrets live
//
// Secret and projected volumes (every pod has one: its service account token)
// must not reach a disk. The kubelet mounts a tmpfs for each. Here one tmpfs
// serves them all: MemoryDir, mounted at most once in the life of the machine;
// whoever takes errand off the machine unmounts it.
// A mount and an unmount per pod, the latter waiting for an RCU grace period,
// are saved; what is lost is a size limit per volume, which the API server's
// 1 MiB limit on the objects stands in for. ConfigMap and downward API volumes
// lie on disk, as the kubelet's do.
//
// # Crashes
//
// Every step can be cut off and done again: directories come into being whole
// (by rename, or with their mode in the mount's options), contents by
// AtomicWriter, and what an interrupted write left is removed by the next one.
// Nothing is remembered across restarts except what stands on disk.
//
// # What is not enforced
//
// sizeLimit of a disk-backed emptyDir is no quota: as with the kubelet, staying
// within it is up to whoever watches usage and evicts.
package volumes

import (
	"context"
	"errors"
	"fmt"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

// Config is what a Manager needs. All fields but those marked optional must be set.
type Config struct {
	// RootDir holds one directory per pod, named by its UID. It is created if missing.
	RootDir string
	// MemoryDir holds the secret and projected volumes and should be a tmpfs
	// that allows execution; if it isn't, New mounts one there. Optional: ""
	// keeps those volumes below RootDir, for when no tmpfs can be mounted.
	MemoryDir string
	// Client requests service account tokens and reads objects that the caches
	// don't hold yet.
	Client kubernetes.Interface
	// ConfigMaps and Secrets are the caches that volumes are filled from. The
	// owner of the factory starts them.
	ConfigMaps coreinformers.ConfigMapInformer
	Secrets    coreinformers.SecretInformer
	// Claims and Volumes are where persistentVolumeClaim volumes lead.
	Claims  coreinformers.PersistentVolumeClaimInformer
	Volumes coreinformers.PersistentVolumeInformer
	// OnChange is called when Refresh (or, if it failed before, Setup) has
	// something to do for a pod: a ConfigMap, Secret or claim it uses has
	// changed, or a token nears its end. From the first Setup on it tells of those, too, that
	// only environments refer to. It must not block. Optional.
	OnChange func(types.UID)
	// Clock defaults to the real one.
	Clock clock.WithDelayedExecution
}

// Info is what volumes need to know of the node; the pod itself says the rest.
type Info struct {
	// Allocatable stands in for limits that a container doesn't set, in
	// resourceFieldRefs, and bounds memory-backed emptyDirs.
	Allocatable v1.ResourceList
}

// Volume is a volume made ready.
type Volume struct {
	// HostPath is the directory or file that containers mount.
	HostPath string
	// ReadOnly tells that containers may never write to it.
	ReadOnly bool
	// Managed tells that the volume is there for pods alone, so that it may be
	// relabelled for SELinux. False for hostPath.
	Managed bool
	// Image is what the runtime is to mount in place of HostPath, of an image
	// volume (KEP-4639). Which image that is the caller knows, who pulls it:
	// Setup leaves it empty.
	Image *runtimeapi.ImageSpec
}

// SetupError tells which volume could not be made ready or updated. Its text
// is that of the kubelet's FailedMount event.
type SetupError struct {
	Volume string // the name in spec.volumes
	Err    error
}

func (e *SetupError) Error() string {
	return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", e.Volume, e.Err)
}

func (e *SetupError) Unwrap() error { return e.Err }

// Manager makes pods' volumes. Its methods may be called concurrently; calls
// for the same pod wait for one another.
type Manager struct {
	cfg Config

	mu    sync.Mutex
	pods  map[types.UID]*podState
	users map[objectKey]map[types.UID]struct{}
}

// podState is what is known of one pod's volumes. work serialises whatever
// touches them; the other fields are guarded by it.
type podState struct {
	work    sync.Mutex
	gone    bool                   // torn down: the state is no longer in Manager.pods
	tokens  map[tokenKey]token     // service account tokens now on disk
	frozen  map[objectKey]any      // immutable objects as first seen
	swept   map[string]bool        // data volumes whose interrupted writes are cleaned up
	owned   map[string]bool        // claims' volumes that were handed to the pod's fsGroup
	timer   clock.Timer            // calls OnChange when a token is due; nil if none
	objects map[objectKey]struct{} // guarded by Manager.mu
}

// New returns a Manager. It fails if its directories can't be made.
func New(cfg Config) (*Manager, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.OnChange == nil {
		cfg.OnChange = func(types.UID) {}
	}
	if err := makeRoots(cfg.RootDir, cfg.MemoryDir); err != nil {
		return nil, fmt.Errorf("volumes: %w", err)
	}
	m := &Manager{
		cfg:   cfg,
		pods:  map[types.UID]*podState{},
		users: map[objectKey]map[types.UID]struct{}{},
	}
	if err := m.watchObjects(); err != nil {
		return nil, fmt.Errorf("volumes: %w", err)
	}
	return m, nil
}

// Setup makes all volumes of the pod ready and returns them by name. It can be
// called again at any time: what is ready stays as it is, and data volumes are
// brought up to date. The error joins a *SetupError for each volume that
// failed; all can be retried, and OnChange tells when an object that was missing
// turns up. Kinds that Unsupported reports fail here too.
func (m *Manager) Setup(ctx context.Context, pod *v1.Pod, info Info) (map[string]Volume, error) {
	ready := make(map[string]Volume, len(pod.Spec.Volumes))
	err := m.withPod(pod, func(st *podState) error {
		return m.eachVolume(pod, func(v *v1.Volume) error {
			vol, err := m.setupVolume(ctx, st, request{pod, info, v})
			if err == nil {
				ready[v.Name] = vol
			}
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return ready, nil
}

// Refresh brings those volumes of a pod up to date that mirror API objects
// (configMap, secret, projected, downwardAPI), renewing tokens that are due. A
// volume that fails keeps what it held; the error joins their *SetupErrors.
func (m *Manager) Refresh(ctx context.Context, pod *v1.Pod, info Info) error {
	return m.withPod(pod, func(st *podState) error {
		return m.eachVolume(pod, func(v *v1.Volume) error {
			if !mirrorsAPI(v) {
				return nil
			}
			_, err := m.setupVolume(ctx, st, request{pod, info, v})
			return err
		})
	})
}

// request is one volume to make ready.
type request struct {
	pod  *v1.Pod
	info Info
	vol  *v1.Volume
}

func mirrorsAPI(v *v1.Volume) bool {
	return v.ConfigMap != nil || v.Secret != nil || v.Projected != nil || v.DownwardAPI != nil
}

func (m *Manager) setupVolume(ctx context.Context, st *podState, r request) (Volume, error) {
	switch {
	case r.vol.HostPath != nil:
		return setupHostPath(r.vol.HostPath)
	case mirrorsAPI(r.vol):
		return m.setupData(ctx, st, r)
	case emptyDirOf(r.vol) != nil:
		return m.setupEmptyDir(r)
	case claimName(r.pod, r.vol) != "":
		return m.setupClaim(ctx, st, r)
	case r.vol.Image != nil:
		return Volume{ReadOnly: true, Image: &runtimeapi.ImageSpec{UserSpecifiedImage: r.vol.Image.Reference}}, nil
	default:
		return Volume{}, unsupportedVolume(r.vol)
	}
}

func (m *Manager) eachVolume(pod *v1.Pod, do func(*v1.Volume) error) error {
	var errs []error
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if err := do(v); err != nil {
			errs = append(errs, &SetupError{Volume: v.Name, Err: err})
		}
	}
	return errors.Join(errs...)
}

// withPod runs do with the pod's state locked, having noted which objects the
// pod uses, and arms the timer for the first token due.
func (m *Manager) withPod(pod *v1.Pod, do func(*podState) error) error {
	if err := checkUID(pod.UID); err != nil {
		return err
	}
	st := m.lockPod(pod)
	defer st.work.Unlock()
	err := do(st)
	m.armRenewal(pod.UID, st)
	return err
}

func (m *Manager) lockPod(pod *v1.Pod) *podState {
	for {
		m.mu.Lock()
		st, ok := m.pods[pod.UID]
		if !ok {
			st = &podState{
				tokens:  map[tokenKey]token{},
				frozen:  map[objectKey]any{},
				swept:   map[string]bool{},
				owned:   map[string]bool{},
				objects: map[objectKey]struct{}{},
			}
			m.pods[pod.UID] = st
			m.useObjects(pod, st)
		}
		m.mu.Unlock()
		st.work.Lock()
		if !st.gone {
			return st
		}
		st.work.Unlock() // torn down while we waited: start afresh
	}
}
