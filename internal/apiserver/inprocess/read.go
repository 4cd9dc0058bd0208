package inprocess

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metainternalversionscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/features"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
)

// get reads one object into out.
func (e *endpoint) get(ctx context.Context, c call, opts metav1.GetOptions, out runtime.Object) error {
	obj, err := e.getter.Get(ctx, c.name, &opts)
	if err != nil {
		return err
	}
	return e.toClient(private(obj), out)
}

// list reads the selected objects into out.
func (e *endpoint) list(ctx context.Context, opts metav1.ListOptions, out runtime.Object) error {
	selected, err := e.listOptions(opts)
	if err != nil {
		return err
	}
	obj, err := e.lister.List(ctx, selected)
	if err != nil {
		return err
	}
	return e.toClient(private(obj), out)
}

// listOptions parses, defaults and checks list options as the server does with a query, and translates field labels to the hub version's.
func (e *endpoint) listOptions(in metav1.ListOptions) (*internalversion.ListOptions, error) {
	opts := &internalversion.ListOptions{}
	if err := metainternalversionscheme.Scheme.Convert(&in, opts, nil); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	watchList := utilfeature.DefaultFeatureGate.Enabled(features.WatchList)
	internalversion.SetListOptionsDefaults(opts, watchList)
	if errs := validation.ValidateListOptions(opts, watchList); len(errs) > 0 {
		return nil, invalidOptions("ListOptions", errs)
	}
	if opts.FieldSelector == nil {
		return opts, nil
	}
	var err error
	opts.FieldSelector, err = opts.FieldSelector.Transform(func(label, value string) (string, string, error) {
		return e.Scheme.ConvertFieldLabel(e.kind, label, value)
	})
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return opts, nil
}
