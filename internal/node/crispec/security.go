package crispec

import (
	"errors"
	"fmt"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/security/apparmor"
	"k8s.io/kubernetes/pkg/securitycontext"
)

// ImageUser is the user that an image runs as: a number, or a name if UID is nil.
type ImageUser struct {
	UID  *int64
	Name string
}

// UserOf returns the user of an image. One that names none runs as root.
func UserOf(image *runtimeapi.Image) ImageUser {
	switch {
	case image.GetUid() != nil:
		uid := image.GetUid().GetValue()
		return ImageUser{UID: &uid}
	case image.GetUsername() != "":
		return ImageUser{Name: image.GetUsername()}
	default:
		return ImageUser{UID: new(int64)}
	}
}

func (n Node) security(pod *v1.Pod, c *v1.Container, user ImageUser, users *runtimeapi.UserNamespace) (*runtimeapi.LinuxContainerSecurityContext, error) {
	sc := securitycontext.DetermineEffectiveSecurityContext(pod, c)
	if err := verifyNonRoot(pod, c, sc, user); err != nil {
		return nil, err
	}
	out := &runtimeapi.LinuxContainerSecurityContext{
		Capabilities:     capabilities(sc.Capabilities),
		SelinuxOptions:   selinux(sc.SELinuxOptions),
		RunAsUser:        int64Value(sc.RunAsUser),
		RunAsGroup:       int64Value(sc.RunAsGroup),
		Privileged:       sc.Privileged != nil && *sc.Privileged,
		ReadonlyRootfs:   sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem,
		NamespaceOptions: namespaces(pod, users),
		NoNewPrivs:       securitycontext.AddNoNewPrivileges(sc),
		MaskedPaths:      securitycontext.ConvertToRuntimeMaskedPaths(sc.ProcMount),
		ReadonlyPaths:    securitycontext.ConvertToRuntimeReadonlyPaths(sc.ProcMount),
	}
	if out.RunAsUser == nil {
		out.RunAsUser, out.RunAsUsername = int64Value(user.UID), user.Name
	}
	var err error
	if out.Seccomp, err = n.seccomp(pod, c); err != nil {
		return nil, err
	}
	if out.Apparmor, err = appArmor(pod, c); err != nil {
		return nil, err
	}
	if pod.Spec.SecurityContext != nil {
		groups, err := groupsOf(pod.Spec.SecurityContext)
		if err != nil {
			return nil, err
		}
		out.SupplementalGroups, out.SupplementalGroupsPolicy = groups.ids, groups.policy
	}
	return out, nil
}

// verifyNonRoot enforces runAsNonRoot, which can't be judged for a user that is
// known by name only.
func verifyNonRoot(pod *v1.Pod, c *v1.Container, sc *v1.SecurityContext, user ImageUser) error {
	if sc.RunAsNonRoot == nil || !*sc.RunAsNonRoot {
		return nil
	}
	where := fmt.Sprintf("(pod: %q, container: %s)", describe(pod), c.Name)
	switch {
	case sc.RunAsUser != nil && *sc.RunAsUser == 0:
		return fmt.Errorf("container's runAsUser breaks non-root policy %s", where)
	case sc.RunAsUser != nil:
		return nil
	case user.UID == nil && user.Name != "":
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", user.Name, where)
	case user.UID != nil && *user.UID == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	case user.UID != nil && len(utilvalidation.IsValidUserID(*user.UID)) > 0:
		return fmt.Errorf("container has runAsNonRoot and image has an invalid user id (%d) %s", *user.UID, where)
	}
	return nil
}

func capabilities(c *v1.Capabilities) *runtimeapi.Capability {
	if c == nil {
		return nil
	}
	out := &runtimeapi.Capability{}
	for _, name := range c.Add {
		out.AddCapabilities = append(out.AddCapabilities, string(name))
	}
	for _, name := range c.Drop {
		out.DropCapabilities = append(out.DropCapabilities, string(name))
	}
	return out
}

// seccomp chooses the container's own profile, else the pod's, else the node's
// default.
func (n Node) seccomp(pod *v1.Pod, c *v1.Container) (*runtimeapi.SecurityProfile, error) {
	var profile *v1.SeccompProfile
	if sc := pod.Spec.SecurityContext; sc != nil {
		profile = sc.SeccompProfile
	}
	if c.SecurityContext != nil && c.SecurityContext.SeccompProfile != nil {
		profile = c.SecurityContext.SeccompProfile
	}
	switch {
	case profile == nil && n.SeccompDefault, profile != nil && profile.Type == v1.SeccompProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case profile != nil && profile.Type == v1.SeccompProfileTypeLocalhost:
		if profile.LocalhostProfile == nil || *profile.LocalhostProfile == "" {
			return nil, errors.New("localhostProfile must be set if seccompProfile type is Localhost")
		}
		return &runtimeapi.SecurityProfile{
			ProfileType:  runtimeapi.SecurityProfile_Localhost,
			LocalhostRef: filepath.Join(n.SeccompProfileRoot, *profile.LocalhostProfile),
		}, nil
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
}

func appArmor(pod *v1.Pod, c *v1.Container) (*runtimeapi.SecurityProfile, error) {
	profile := apparmor.GetProfile(pod, c)
	if profile == nil {
		return nil, nil
	}
	switch profile.Type {
	case v1.AppArmorProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case v1.AppArmorProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	case v1.AppArmorProfileTypeLocalhost:
		if profile.LocalhostProfile == nil {
			return nil, errors.New("missing localhost apparmor profile name")
		}
		return &runtimeapi.SecurityProfile{
			ProfileType:  runtimeapi.SecurityProfile_Localhost,
			LocalhostRef: *profile.LocalhostProfile,
		}, nil
	}
	return nil, fmt.Errorf("unknown apparmor profile type: %q", profile.Type)
}
