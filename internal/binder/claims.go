package binder

import (
	"context"
	"errors"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/component-helpers/storage/ephemeral"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/klog/v2"
)

// storage is what there is to be claimed, as the API server says it.
type storage struct {
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
}

// podClaim is a claim that a pod uses.
type podClaim struct {
	name   string
	volume *v1.Volume
}

// claimsOf lists the claims that the pod's volumes lead to.
func claimsOf(pod *v1.Pod) []podClaim {
	var claims []podClaim
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			claims = append(claims, podClaim{v.PersistentVolumeClaim.ClaimName, v})
		case v.Ephemeral != nil:
			claims = append(claims, podClaim{ephemeral.VolumeClaimName(pod, v), v})
		}
	}
	return claims
}

// podStorage is the claims of a pod, by what there is to be done about them.
type podStorage struct {
	bound []*v1.PersistentVolume
	// missing is how many claims are bound to volumes that aren't there.
	missing int
	// delayed are those that are bound once a node is chosen for the pod.
	delayed []*v1.PersistentVolumeClaim
	// exclusive are those that one pod at a time may use.
	exclusive []string
}

// storageOf looks at the pod's claims. The error is why no node can be chosen as
// long as they are as they are, in upstream's words.
func (s *storage) storageOf(p *podInfo) (*podStorage, error) {
	out := &podStorage{}
	waits := false
	for _, c := range p.claims {
		claim, err := s.claim(p.pod, c)
		if err != nil {
			return nil, err
		}
		if slices.Contains(claim.Spec.AccessModes, v1.ReadWriteOncePod) {
			out.exclusive = append(out.exclusive, claim.Name)
		}
		switch delayed, err := storagehelpers.IsDelayBindingMode(claim, s.classes); {
		case err != nil:
			return nil, err
		case fullyBound(claim):
			s.addBound(out, claim)
		case delayed && claim.Spec.VolumeName == "":
			out.delayed = append(out.delayed, claim)
		default:
			waits = true
		}
	}
	if waits {
		return nil, errors.New("pod has unbound immediate PersistentVolumeClaims")
	}
	return out, nil
}

func (s *storage) addBound(out *podStorage, claim *v1.PersistentVolumeClaim) {
	volume, err := s.volumes.Get(claim.Spec.VolumeName)
	if err != nil {
		out.missing++
		return
	}
	out.bound = append(out.bound, volume)
}

// fullyBound tells that the claim has its volume, and the volume knows it.
func fullyBound(claim *v1.PersistentVolumeClaim) bool {
	return claim.Spec.VolumeName != "" && metav1.HasAnnotation(claim.ObjectMeta, storagehelpers.AnnBindCompleted)
}

// claim returns one that can be used, or will be.
func (s *storage) claim(pod *v1.Pod, c podClaim) (*v1.PersistentVolumeClaim, error) {
	claim, err := s.claims.PersistentVolumeClaims(pod.Namespace).Get(c.name)
	switch {
	case apierrors.IsNotFound(err) && c.volume.Ephemeral != nil:
		return nil, fmt.Errorf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", c.name)
	case err != nil:
		return nil, err
	case claim.Status.Phase == v1.ClaimLost:
		return nil, fmt.Errorf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", c.name, claim.Spec.VolumeName)
	case claim.DeletionTimestamp != nil:
		return nil, fmt.Errorf("persistentvolumeclaim %q is being deleted", c.name)
	case c.volume.Ephemeral != nil:
		return claim, ephemeral.VolumeIsForPod(pod, claim)
	}
	return claim, nil
}

func filterExclusive(a *attempt, _ *nodeInfo) []reason {
	for _, name := range a.storage.exclusive {
		if a.state.usesClaim(a.pod.Namespace, name) {
			return []reason{{
				text:       "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
				resolvable: true, cures: podLeft | storageChanged,
			}}
		}
	}
	return nil
}

// filterVolumes demands that the node has, or can get, all that is claimed.
func filterVolumes(a *attempt, n *nodeInfo) []reason {
	const cures = nodeChanged | storageChanged
	var out []reason
	for _, volume := range a.storage.bound {
		if storagehelpers.CheckNodeAffinity(volume, n.node.Labels) != nil {
			out = append(out, reason{text: "node(s) didn't match PersistentVolume's node affinity", cures: cures})
			break
		}
	}
	if _, err := a.state.storage.choose(a.storage.delayed, n.node); err != nil {
		out = append(out, reason{text: "node(s) didn't find available persistent volumes to bind", cures: cures})
	}
	if a.storage.missing > 0 {
		out = append(out, reason{text: "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)", cures: cures})
	}
	return out
}

// choice is how one claim gets a volume on a node: by that volume, or, if it is
// nil, by one that is to be made there.
type choice struct {
	claim  *v1.PersistentVolumeClaim
	volume *v1.PersistentVolume
}

// errNoVolume is that a claim can't get a volume on a node.
var errNoVolume = errors.New("no volume fits the claim, and none can be made")

// choose finds volumes on the node for claims that wait for one to be chosen.
func (s *storage) choose(claims []*v1.PersistentVolumeClaim, node *v1.Node) ([]choice, error) {
	if len(claims) == 0 {
		return nil, nil
	}
	all, err := s.volumes.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	var choices []choice
	taken := map[string]*v1.PersistentVolume{}
	for _, claim := range claims {
		volume, err := storagehelpers.FindMatchingVolume(claim, all, node, taken, true, true)
		switch {
		case err != nil:
			return nil, err
		case volume != nil:
			taken[volume.Name] = volume
		case !s.canMake(claim):
			return nil, errNoVolume
		}
		choices = append(choices, choice{claim, volume})
	}
	return choices, nil
}

func (s *storage) canMake(claim *v1.PersistentVolumeClaim) bool {
	class, err := s.classes.Get(storagehelpers.GetPersistentVolumeClaimClass(claim))
	return err == nil && class.Provisioner != storagehelpers.NotSupportedProvisioner
}

// await blocks a pod whose claims are to be bound now that it has a node, and
// returns the write that has that done; nil if there are no such claims. b.mu
// must be held.
func (b *Binder) await(p *waiting, node *nodeInfo) func(context.Context) {
	held, err := b.state.storage.storageOf(p.info)
	if err != nil || len(held.delayed) == 0 {
		return nil
	}
	choices, err := b.state.storage.choose(held.delayed, node.node)
	if err != nil {
		return nil
	}
	name := node.name
	b.queue.block(p, &diagnosis{
		nodes: len(b.state.candidates), cures: storageChanged | nodeChanged, quiet: true,
		refused: "pod waits for its PersistentVolumeClaims to be bound on node " + name,
	})
	return func(ctx context.Context) { b.bindClaims(ctx, p, choices, name) }
}

// bindClaims hands the claims to the PersistentVolume controller.
func (b *Binder) bindClaims(ctx context.Context, w *waiting, choices []choice, node string) {
	for _, c := range choices {
		err := b.bindClaim(ctx, c, node)
		if err == nil || ctx.Err() != nil || apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			continue // what was seen is out of date: the watch brings the rest
		}
		klog.FromContext(ctx).Error(err, "Could not have a claim bound; will try again", "pod", klog.KObj(w.pod), "claim", klog.KObj(c.claim))
		b.cfg.Recorder.Event(w.pod, v1.EventTypeWarning, reasonFailedScheduling, truncate(fmt.Sprintf("binding volumes: %v", err)))
		b.mu.Lock()
		if b.queue.pods[w.info.uid] == w {
			b.retryLater(w)
		}
		b.mu.Unlock()
		return
	}
}

func (b *Binder) bindClaim(ctx context.Context, c choice, node string) error {
	core := b.cfg.Client.CoreV1()
	if c.volume == nil {
		if c.claim.Annotations[storagehelpers.AnnSelectedNode] == node {
			return nil
		}
		claim := c.claim.DeepCopy()
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, storagehelpers.AnnSelectedNode, node)
		_, err := core.PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{})
		return err
	}
	volume, changed, err := storagehelpers.GetBindVolumeToClaim(c.volume, c.claim)
	if err != nil || !changed {
		return err
	}
	_, err = core.PersistentVolumes().Update(ctx, volume, metav1.UpdateOptions{})
	return err
}

func (b *Binder) claimChanged(*v1.PersistentVolumeClaim)      { b.storageHappened() }
func (b *Binder) volumeChanged(*v1.PersistentVolume)          { b.storageHappened() }
func (b *Binder) storageClassChanged(*storagev1.StorageClass) { b.storageHappened() }

func (b *Binder) storageHappened() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.happened(storageChanged)
}
