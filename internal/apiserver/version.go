package apiserver

import (
	"fmt"
	goruntime "runtime"

	apimachineryversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/util/compatibility"
	basecompatibility "k8s.io/component-base/compatibility"
)

// KubernetesVersion is the release whose API is served: that of the modules
// k8s.io/kubernetes and its staging modules in go.mod.
const KubernetesVersion = "v1.37.2"

// effectiveVersion is upstream's, with the version that upstream's build would
// stamp into its binary. kubectl compares it with its own.
type effectiveVersion struct {
	basecompatibility.EffectiveVersion
	info apimachineryversion.Info
}

func newEffectiveVersion(errandVersion string) basecompatibility.EffectiveVersion {
	base := compatibility.DefaultComponentGlobalsRegistry.EffectiveVersionFor(basecompatibility.DefaultKubeComponent)
	info := *base.Info()
	info.Major = fmt.Sprint(base.BinaryVersion().Major())
	info.Minor = fmt.Sprint(base.BinaryVersion().Minor())
	info.GitVersion = KubernetesVersion + "+errand"
	if errandVersion != "" {
		info.GitVersion += "." + errandVersion
	}
	info.GitCommit = ""
	info.GitTreeState = ""
	info.BuildDate = ""
	info.Compiler = goruntime.Compiler
	return &effectiveVersion{EffectiveVersion: base, info: info}
}

// Info implements basecompatibility.EffectiveVersion.
func (v *effectiveVersion) Info() *apimachineryversion.Info {
	info := v.info
	return &info
}
