package apiserver

import (
	"encoding/json"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericapiserver "k8s.io/apiserver/pkg/server"
)

const crdsPath = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

var crds = schema.GroupResource{Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"}

// serveNoCRDs answers the question which custom resources there are: none. The
// group isn't served otherwise, nor found by discovery, but kubectl asks before
// it creates an object of a kind that can't be patched, such as a Binding or a
// TokenReview, and gives up where the answer is that there is no such question.
func serveNoCRDs(server *genericapiserver.GenericAPIServer) {
	server.Handler.NonGoRestfulMux.HandleFunc(crdsPath, func(w http.ResponseWriter, r *http.Request) {
		code, answer := http.StatusOK, any(metav1.List{
			TypeMeta: metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinitionList"},
			Items:    []runtime.RawExtension{},
		})
		if r.Method != http.MethodGet || r.URL.Query().Get("watch") != "" {
			err := apierrors.NewMethodNotSupported(crds, r.Method)
			code, answer = int(err.ErrStatus.Code), err.ErrStatus
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		// A caller that has gone needs no answer.
		_ = json.NewEncoder(w).Encode(answer)
	})
}
