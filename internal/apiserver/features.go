package apiserver

import (
	"fmt"

	"k8s.io/apiserver/pkg/features"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
)

// setFeatures departs from upstream's defaults. The watch caches keep, for each
// change of the last minute and more, how all objects were ordered then, so that
// the further pages of a list needn't be read from the store: 3 KB a pod
// of a large Job, and a twentieth of its CPU. Here the store is in this process.
func setFeatures() error {
	err := utilfeature.DefaultMutableFeatureGate.SetFromMap(map[string]bool{string(features.ListFromCacheSnapshot): false})
	if err != nil {
		return fmt.Errorf("set the features of the API: %w", err)
	}
	return nil
}
