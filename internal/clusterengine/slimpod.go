package clusterengine

import (
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// slimPod is a pod of which only what the engine may read is decoded. Each change
// of each pod of the cluster comes to this process, nearly all of it specification,
// which would be decoded to be thrown away.
type slimPod struct{ corev1.Pod }

// Unmarshal decodes a Pod's protobuf message.
func (p *slimPod) Unmarshal(data []byte) error {
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	var err error
	if *buf, err = podParts.appendOf((*buf)[:0], data); err != nil {
		return fmt.Errorf("decode a Pod: %w", err)
	}
	return p.Pod.Unmarshal(*buf) // which copies what it keeps
}

// DeepCopyObject implements runtime.Object.
func (p *slimPod) DeepCopyObject() runtime.Object { return &slimPod{*p.DeepCopy()} }

// scratch holds messages while they are decoded.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

// parts says what stays of a protobuf message: of a field in the map that much,
// nothing or, with nil, all; of a field that isn't, all if others is set.
type parts struct {
	fields map[protowire.Number]*parts
	others bool
}

// podParts is what stays of a Pod, by the numbers in k8s.io/api/core/v1/generated.proto:
// no less than jobs.TrimPod leaves.
var podParts = func() *parts {
	nothing := &parts{}
	container := &parts{fields: map[protowire.Number]*parts{1: nil /* name */, 24: nil /* restartPolicy */}}
	return &parts{fields: map[protowire.Number]*parts{
		1: {others: true, fields: map[protowire.Number]*parts{17: nothing /* managedFields */}},
		2: {fields: map[protowire.Number]*parts{3: nil /* restartPolicy */, 10: nil /* nodeName */, 16: nil /* hostname */, 20: container /* initContainers */}},
		3: {others: true, fields: map[protowire.Number]*parts{12: nothing /* podIPs */, 13: nothing /* ephemeralContainerStatuses */, 16: nothing /* hostIPs */}},
	}}
}()

// appendOf appends what stays of a message.
func (p *parts) appendOf(to, message []byte) ([]byte, error) {
	for len(message) > 0 {
		number, kind, tagSize := protowire.ConsumeTag(message)
		if tagSize < 0 {
			return nil, protowire.ParseError(tagSize)
		}
		valueSize := protowire.ConsumeFieldValue(number, kind, message[tagSize:])
		if valueSize < 0 {
			return nil, protowire.ParseError(valueSize)
		}
		field, value := message[:tagSize+valueSize], message[tagSize:tagSize+valueSize]
		message = message[len(field):]
		inner, named := p.fields[number]
		switch {
		case named && inner == nil, !named && p.others:
			to = append(to, field...)
		case !named || !inner.others && inner.fields == nil || kind != protowire.BytesType:
		default:
			content, _ := protowire.ConsumeBytes(value)
			var err error
			if to, err = inner.appendField(to, number, content); err != nil {
				return nil, err
			}
		}
	}
	return to, nil
}

// appendField appends what stays of a message as a field of another one.
func (p *parts) appendField(to []byte, number protowire.Number, message []byte) ([]byte, error) {
	to = protowire.AppendTag(to, number, protowire.BytesType)
	// The length stands before the content and takes one byte or more, by how long
	// the content is; the whole message's takes enough.
	room := protowire.SizeVarint(uint64(len(message)))
	start := len(to)
	to, err := p.appendOf(append(to, make([]byte, room)...), message)
	if err != nil {
		return nil, err
	}
	length := uint64(len(to) - start - room)
	for i := range room {
		to[start+i] = byte(length>>(7*i)) & 0x7f
		if i < room-1 {
			to[start+i] |= 0x80
		}
	}
	return to, nil
}

// slimPods decodes pods as slimPods, and all else that a watch or a list of pods
// may be answered with as it is.
var slimPods = func() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypeWithName(corev1.SchemeGroupVersion.WithKind("Pod"), &slimPod{})
	scheme.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.PodList{})
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	return serializer.NewCodecFactory(scheme)
}()

// podInformer returns what makes an informer of pods, as a SharedInformerFactory
// takes it. Its transform is given slimPods by watches, and Pods by lists.
func podInformer(reach *rest.Config, namespace string) (func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer, error) {
	cfg := rest.CopyConfig(reach)
	cfg.APIPath, cfg.GroupVersion, cfg.NegotiatedSerializer = "/api", &corev1.SchemeGroupVersion, slimPods.WithoutConversion()
	client, err := rest.RESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client of %s: %w", reach.Host, err)
	}
	pods := cache.NewFilteredListWatchFromClient(client, "pods", namespace, func(*metav1.ListOptions) {})
	return func(_ kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		return cache.NewSharedIndexInformer(pods, &slimPod{}, resync, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	}, nil
}
