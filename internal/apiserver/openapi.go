package apiserver

import (
	"net/http"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	utilopenapi "k8s.io/apiserver/pkg/util/openapi"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/openapi"
	generatedopenapi "k8s.io/kubernetes/pkg/generated/openapi"
)

// applyOpenAPI describes the kinds of the schemes.
func applyOpenAPI(c *genericapiserver.Config, schemes ...*runtime.Scheme) {
	definitions := utilopenapi.GetOpenAPIDefinitionsWithoutDisabledFeatures(generatedopenapi.GetOpenAPIDefinitions)
	namer := openapinamer.NewDefinitionNamer(schemes...)
	c.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(definitions, namer)
	c.OpenAPIConfig.Info.Title = "Kubernetes"
	c.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, namer)
	c.OpenAPIV3Config.Info.Title = "Kubernetes"
	c.SkipOpenAPIInstallation = true // see serveOpenAPI
}

// serveOpenAPI serves the descriptions, each built when it is first asked for:
// building both takes a quarter of a second and 30 MB, which a server that only
// runs Jobs never needs.
func serveOpenAPI(c *genericapiserver.Config, server *genericapiserver.GenericAPIServer) {
	container := server.Handler.GoRestfulContainer
	v2 := &lazyHandler{install: func(m *mux.PathRecorderMux) {
		routes.OpenAPI{Config: c.OpenAPIConfig}.InstallV2(container, m)
	}}
	v3 := &lazyHandler{install: func(m *mux.PathRecorderMux) {
		routes.OpenAPI{V3Config: c.OpenAPIV3Config}.InstallV3(container, m)
	}}
	server.Handler.NonGoRestfulMux.Handle("/openapi/v2", v2)
	server.Handler.NonGoRestfulMux.Handle("/openapi/v3", v3)
	server.Handler.NonGoRestfulMux.HandlePrefix("/openapi/v3/", v3)
}

// lazyHandler installs what it serves at the first request.
type lazyHandler struct {
	install func(*mux.PathRecorderMux)
	once    sync.Once
	mux     *mux.PathRecorderMux
}

// ServeHTTP implements http.Handler.
func (h *lazyHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.once.Do(func() {
		h.mux = mux.NewPathRecorderMux("openapi")
		h.install(h.mux)
	})
	h.mux.ServeHTTP(w, r)
}

// admissionClient is for MutatingAdmissionPolicy, which asks every five seconds
// which kinds are described where: it is told without a request, as the served
// groups never change, and fetches a description when a policy needs it. Once
// kinds come and go, with custom resources, it must ask the server again.
type admissionClient struct {
	kubernetes.Interface
}

// Discovery implements kubernetes.Interface.
func (c admissionClient) Discovery() discovery.DiscoveryInterfaces {
	return admissionDiscovery{c.Interface.Discovery()}
}

type admissionDiscovery struct {
	discovery.DiscoveryInterfaces
}

// OpenAPIV3 implements discovery.DiscoveryInterface.
func (d admissionDiscovery) OpenAPIV3() openapi.Client {
	return describedVersions{d.DiscoveryInterfaces.OpenAPIV3()}
}

type describedVersions struct {
	server openapi.Client
}

// Paths implements openapi.Client.
func (d describedVersions) Paths() (map[string]openapi.GroupVersion, error) {
	paths := map[string]openapi.GroupVersion{}
	for _, gv := range servedVersions() {
		path := descriptionPath(gv)
		paths[path] = &describedVersion{server: d.server, path: path}
	}
	return paths, nil
}

func descriptionPath(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "api/" + gv.Version
	}
	return "apis/" + gv.String()
}

type describedVersion struct {
	server openapi.Client
	path   string
}

// Schema implements openapi.GroupVersion.
func (v *describedVersion) Schema(contentType string) ([]byte, error) {
	paths, err := v.server.Paths()
	if err != nil {
		return nil, err
	}
	return paths[v.path].Schema(contentType)
}

// ServerRelativeURL implements openapi.GroupVersion.
func (v *describedVersion) ServerRelativeURL() string { return "/openapi/v3/" + v.path }
