package inprocess

import (
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/endpoints"
	"k8s.io/apiserver/pkg/endpoints/handlers/fieldmanager"
	"k8s.io/apiserver/pkg/registry/rest"
)

// backend is what all endpoints of one clientset share. But for the pool, it doesn't change after New.
type backend struct {
	Config
	// mutating is Admission's mutating side, guarded against plugins that break managedFields; nil if there is none.
	mutating admission.MutationInterface
	// objects is what admission plugins get to make, default and convert objects.
	objects admission.ObjectInterfaces
	// turns holds one token for each write in progress; nil if they aren't limited.
	turns chan struct{}
	// wireForms are kept from one request for the next.
	wireForms sync.Pool
}

func newBackend(cfg Config) *backend {
	b := &backend{Config: cfg}
	if cfg.MaxWrites > 0 {
		b.turns = make(chan struct{}, cfg.MaxWrites)
	}
	b.Admission = fieldmanager.NewManagedFieldsValidatingAdmissionController(cfg.Admission)
	b.mutating, _ = b.Admission.(admission.MutationInterface)
	b.objects = objectInterfaces{scheme: cfg.Scheme, equivalents: cfg.Equivalents}
	return b
}

// objectInterfaces implements admission.ObjectInterfaces on a scheme.
type objectInterfaces struct {
	scheme      *runtime.Scheme
	equivalents runtime.EquivalentResourceMapper
}

func (o objectInterfaces) GetObjectCreater() runtime.ObjectCreater     { return o.scheme }
func (o objectInterfaces) GetObjectTyper() runtime.ObjectTyper         { return o.scheme }
func (o objectInterfaces) GetObjectDefaulter() runtime.ObjectDefaulter { return o.scheme }
func (o objectInterfaces) GetObjectConvertor() runtime.ObjectConvertor { return o.scheme }
func (o objectInterfaces) GetEquivalentResourceMapper() runtime.EquivalentResourceMapper {
	return o.equivalents
}

// endpoint is one resource or subresource that is served in-process. A verb whose interface is nil isn't: it goes to the fallback.
type endpoint struct {
	*backend

	resource    schema.GroupVersionResource
	subresource string
	kind        schema.GroupVersionKind // of the objects on the wire
	hub         schema.GroupVersion     // of the objects in the registry
	namespaced  bool
	patchCodec  runtime.Codec // JSON of kind ↔ hub, strict about unknown and duplicate fields
	lenient     runtime.Codec // the same, but not strict

	storage           rest.Storage
	creater           rest.NamedCreater
	updater           rest.Updater
	getter            rest.Getter
	lister            rest.Lister
	watcher           rest.Watcher
	deleter           rest.GracefulDeleter
	collectionDeleter rest.CollectionDeleter
}

// newEndpoint returns the endpoint of a (sub)resource, or nil if no registry serves it here.
func (b *backend) newEndpoint(resource schema.GroupVersionResource, subresource string) (*endpoint, error) {
	storage, ok := b.Storage(resource, subresource)
	if !ok {
		return nil, nil
	}
	kind, err := endpoints.GetResourceKind(resource.GroupVersion(), storage, b.Scheme)
	if err != nil {
		return nil, fmt.Errorf("kind of %s/%s: %w", resource, subresource, err)
	}
	namespaced, err := b.namespaced(resource)
	if err != nil {
		return nil, err
	}
	e := &endpoint{
		backend:     b,
		resource:    resource,
		subresource: subresource,
		kind:        kind,
		hub:         schema.GroupVersion{Group: kind.Group, Version: runtime.APIVersionInternal},
		namespaced:  namespaced,
		storage:     storage,
	}
	json, ok := runtime.SerializerInfoForMediaType(b.Codecs.SupportedMediaTypes(), runtime.ContentTypeJSON)
	if !ok {
		return nil, fmt.Errorf("the field Codecs has no serializer for %s", runtime.ContentTypeJSON)
	}
	encoder := b.Codecs.EncoderForVersion(json.Serializer, kind.GroupVersion())
	e.patchCodec = runtime.NewCodec(encoder, b.Codecs.DecoderToVersion(json.StrictSerializer, e.hub))
	e.lenient = runtime.NewCodec(encoder, b.Codecs.DecoderToVersion(json.Serializer, e.hub))
	e.findVerbs()
	return e, nil
}

// namespaced reports the scope of a resource, which its subresources share.
func (b *backend) namespaced(resource schema.GroupVersionResource) (bool, error) {
	storage, _ := b.Storage(resource, "")
	scoper, ok := storage.(rest.Scoper)
	if !ok {
		return false, fmt.Errorf("the registry of %s doesn't tell its scope", resource)
	}
	return scoper.NamespaceScoped(), nil
}

func (e *endpoint) findVerbs() {
	switch s := e.storage.(type) {
	case rest.NamedCreater:
		e.creater = s
	case rest.Creater:
		e.creater = namedCreater{s}
	}
	e.updater, _ = e.storage.(rest.Updater)
	e.getter, _ = e.storage.(rest.Getter)
	e.lister, _ = e.storage.(rest.Lister)
	e.watcher, _ = e.storage.(rest.Watcher)
	e.deleter, _ = e.storage.(rest.GracefulDeleter)
	e.collectionDeleter, _ = e.storage.(rest.CollectionDeleter)
}
