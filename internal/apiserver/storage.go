package apiserver

import (
	"context"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	etcdkubernetes "go.etcd.io/etcd/client/v3/kubernetes"
	"google.golang.org/grpc/metadata"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/generic"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	"k8s.io/client-go/tools/cache"
	basecompatibility "k8s.io/component-base/compatibility"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/batch"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/events"
	"k8s.io/utils/clock"
)

// storagePrefix is where every Kubernetes API server keeps its objects, so that
// tools which read backups find them.
const storagePrefix = "/registry"

// prefixes are the resources whose place in the store isn't their name.
func prefixes() map[schema.GroupResource]string {
	return map[schema.GroupResource]string{
		{Resource: "nodes"}:     "minions",
		{Resource: "services"}:  "services/specs",
		{Resource: "endpoints"}: "services/endpoints",
	}
}

// storageOptions gives every registry its place in the store. All of them
// share one client: upstream's factory dials one per resource.
type storageOptions struct {
	factory *serverstorage.DefaultStorageFactory
	client  *etcdkubernetes.Client
	history *history
	clock   clock.WithTicker
}

var _ generic.RESTOptionsGetter = &storageOptions{}

func newStorageOptions(client *clientv3.Client, version basecompatibility.EffectiveVersion, resources serverstorage.APIResourceConfigSource) *storageOptions {
	kube := &etcdkubernetes.Client{Client: client}
	history := startHistory(client, historyInterval, historyRevisions, clock.RealClock{})
	kube.Kubernetes = notedWrites{kube, history}
	// Event's two groups share their objects.
	factory := serverstorage.NewDefaultStorageFactory(
		*storagebackend.NewDefaultConfig(storagePrefix, nil),
		runtime.ContentTypeProtobuf,
		legacyscheme.Codecs,
		serverstorage.NewDefaultResourceEncodingConfigForEffectiveVersion(legacyscheme.Scheme, version),
		resources,
		prefixes(),
	)
	factory.AddCohabitatingResources(api.Resource("events"), events.Resource("events"))
	return &storageOptions{
		factory: factory,
		client:  kube,
		history: history,
		clock:   newAlignedClock(),
	}
}

// stop ends what bounds the history. The registries stop their own watches.
func (o *storageOptions) stop() { o.history.stop() }

// GetRESTOptions implements generic.RESTOptionsGetter.
func (o *storageOptions) GetRESTOptions(resource schema.GroupResource, example runtime.Object) (generic.RESTOptions, error) {
	config, err := o.factory.NewConfig(resource, example)
	if err != nil {
		return generic.RESTOptions{}, err
	}
	opts := generic.RESTOptions{
		StorageConfig:           config,
		Decorator:               o.cached,
		ResourcePrefix:          o.factory.ResourcePrefix(resource),
		EnableGarbageCollection: true,
		DeleteCollectionWorkers: 1,
	}
	if resource.Resource == "events" {
		// Many, short-lived and hardly read: a cache would only cost memory.
		opts.Decorator = o.uncached
	}
	return opts, nil
}

// uncached is a generic.StorageDecorator.
func (o *storageOptions) uncached(
	config *storagebackend.ConfigForResource, resourcePrefix string, _ func(runtime.Object) (string, error),
	newFunc, newListFunc func() runtime.Object,
	_ storage.AttrFunc, _ storage.IndexerFuncs, _ *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	store, destroy, err := o.raw(config, nil, resourcePrefix, newFunc, newListFunc)
	if err != nil {
		return nil, nil, err
	}
	return apart{store}, destroy, nil
}

// apart watches etcd by streams of its own, apart from the watch caches'. etcd
// tells how far a stream has come only once every watch on it has begun, and one
// begins with the next write: while nothing is written, a client's new watch
// would keep all caches from knowing that they are up to date, and who reads
// from them, or fills an informer, would wait for three seconds and more.
type apart struct{ storage.Interface }

// Watch implements storage.Interface.
func (s apart) Watch(ctx context.Context, key string, opts storage.ListOptions) (watch.Interface, error) {
	// Streams are told apart by their metadata.
	return s.Interface.Watch(metadata.AppendToOutgoingContext(ctx, "source", "uncached"), key, opts)
}

// raw is the store itself. Its watches and lists share memory by versions, if it isn't nil.
func (o *storageOptions) raw(
	config *storagebackend.ConfigForResource, versions *sharedVersions, resourcePrefix string, newFunc, newListFunc func() runtime.Object,
) (storage.Interface, factory.DestroyFunc, error) {
	versioner := storage.APIObjectVersioner{}
	codec, decoder := config.Codec, etcd3.NewDefaultDecoder(config.Codec, versioner)
	if versions != nil {
		codec, decoder = versions.codec(codec), versions.decoder(decoder)
	}
	store, err := etcd3.New(
		o.client, o.history, codec, newFunc, newListFunc, config.Prefix, resourcePrefix, config.GroupResource,
		identity.NewEncryptCheckTransformer(), config.LeaseManagerConfig, decoder, versioner)
	if err != nil {
		return nil, nil, err
	}
	return store, sync.OnceFunc(store.Close), nil
}

// cached is a generic.StorageDecorator that puts the watch cache before etcd.
func (o *storageOptions) cached(
	config *storagebackend.ConfigForResource, resourcePrefix string, keyFunc func(runtime.Object) (string, error),
	newFunc, newListFunc func() runtime.Object,
	attrs storage.AttrFunc, trigger storage.IndexerFuncs, indexers *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	versions := newSharedVersions()
	raw, destroyRaw, err := o.raw(config, versions, resourcePrefix, newFunc, newListFunc)
	if err != nil {
		return nil, nil, err
	}
	if config.GroupResource == batch.Resource("jobs") {
		raw = jobStore{raw}
	}
	watchCache, err := cacher.NewCacherFromConfig(cacher.Config{
		Storage:             raw,
		Versioner:           storage.APIObjectVersioner{},
		GroupResource:       config.GroupResource,
		EventsHistoryWindow: config.EventsHistoryWindow,
		ResourcePrefix:      resourcePrefix,
		KeyFunc:             keyFunc,
		NewFunc:             newFunc,
		NewListFunc:         newListFunc,
		GetAttrsFunc:        versions.attrs(attrs),
		IndexerFuncs:        trigger,
		Indexers:            indexers,
		Codec:               config.Codec,
		Clock:               o.clock,
	})
	if err != nil {
		destroyRaw()
		return nil, nil, err
	}
	delegator := cacher.NewCacheDelegator(watchCache, raw)
	return delegator, sync.OnceFunc(func() {
		delegator.Stop()
		watchCache.Stop()
		destroyRaw()
	}), nil
}
