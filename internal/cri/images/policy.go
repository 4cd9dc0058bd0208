package images

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/distribution/reference"
	"go.podman.io/image/v5/docker/policyconfiguration"
	imageref "go.podman.io/image/v5/docker/reference"
	"go.podman.io/storage/pkg/configfile"
	crierrors "k8s.io/cri-api/pkg/errors"
	strictjson "sigs.k8s.io/json"
)

// The requirements of a policy.json. All others want a signature.
const (
	acceptAnything = "insecureAcceptAnything"
	reject         = "reject"
)

// signatureRequirements are those that errand can't meet: it verifies no signatures.
var signatureRequirements = map[string]bool{"signedBy": true, "sigstoreSigned": true, "signedBaseLayer": true}

// policy is a containers-policy.json(5): what is required of an image, by where it comes from.
type policy struct {
	path       string
	Default    []requirement                       `json:"default"`
	Transports map[string]map[string][]requirement `json:"transports"`
}

// requirement is one of several that an image must meet.
type requirement map[string]any

func (r requirement) kind() string {
	kind, _ := r["type"].(string)
	return kind
}

// readPolicy reads the policy: nil if the machine has none, with which anything goes, as with containerd and the docker engine. It is
// read anew at each pull, so that an edit counts at once.
func (s *Store) readPolicy() (*policy, error) {
	files := configfile.File{
		Name: "policy", Extension: "json", DoNotLoadDropInFiles: true,
		EnvironmentName: "CONTAINERS_POLICY_JSON", CustomConfigFilePath: s.cfg.SignaturePolicy,
	}
	for item, err := range configfile.Read(&files) {
		if err != nil {
			return nil, fmt.Errorf("the signature policy: %w", err)
		}
		data, err := io.ReadAll(item.Reader)
		if err != nil {
			return nil, fmt.Errorf("the signature policy: %w", err)
		}
		p, err := parsePolicy(data)
		if err != nil {
			return nil, fmt.Errorf("the signature policy %s: %w", item.Name, err)
		}
		p.path = item.Name
		return p, nil
	}
	return nil, nil
}

// parsePolicy reads a policy, and takes nothing that it doesn't know or that stands there twice: what was meant to forbid must not
// be passed over.
func parsePolicy(data []byte) (*policy, error) {
	var p policy
	strict, err := strictjson.UnmarshalStrict(data, &p)
	if err := errors.Join(append(strict, err)...); err != nil {
		return nil, err
	}
	if err := checkRequirements("default", p.Default); err != nil {
		return nil, err
	}
	for transport, scopes := range p.Transports {
		for scope, requirements := range scopes {
			if err := checkRequirements(fmt.Sprintf("transport %s, scope %q", transport, scope), requirements); err != nil {
				return nil, err
			}
		}
	}
	return &p, nil
}

func checkRequirements(of string, requirements []requirement) error {
	if len(requirements) == 0 {
		return fmt.Errorf("%s has no requirement: it must have one at least", of)
	}
	for _, r := range requirements {
		switch kind := r.kind(); {
		case signatureRequirements[kind]:
		case kind != acceptAnything && kind != reject:
			return fmt.Errorf("%s: unknown type of requirement %q", of, kind)
		case len(r) > 1:
			text, _ := json.Marshal(r) // it was read from JSON
			return fmt.Errorf("%s: %s takes no further settings: %s", of, kind, text)
		}
	}
	return nil
}

// requirements returns what the policy requires of an image of a transport, and where that stands. names are what the image is called in
// scopes, the most exact first.
func (p *policy) requirements(transport string, names ...string) ([]requirement, string) {
	scopes := p.Transports[transport]
	for _, name := range append(names, "") {
		if r, ok := scopes[name]; ok {
			return r, fmt.Sprintf("transport %s, scope %q", transport, name)
		}
	}
	return p.Default, "default"
}

// allow returns an error unless the policy lets an image in that nobody has verified.
func (p *policy) allow(what, transport string, names ...string) error {
	if p == nil {
		return nil
	}
	requirements, where := p.requirements(transport, names...)
	for _, r := range requirements {
		switch kind := r.kind(); kind {
		case acceptAnything:
		case reject:
			return &policyError{fmt.Sprintf("%s rejects %s (%s)", p.path, what, where)}
		default:
			return &policyError{fmt.Sprintf("%s wants a signature of %s (%s: %s), and errand verifies none: let skopeo do so (skopeo copy docker://… docker-archive:FILE, then errand image load FILE), or let that scope have %s",
				p.path, what, where, kind, acceptAnything)}
		}
	}
	return nil
}

// policyError is an image that the policy doesn't let in. To CRI clients it is SignatureValidationFailed.
type policyError struct{ message string }

func (e *policyError) Error() string {
	return fmt.Sprintf("%s: %s", crierrors.ErrSignatureValidationFailed, e.message)
}

func (e *policyError) Unwrap() error { return crierrors.ErrSignatureValidationFailed }

// mayPull applies the policy to an image of a registry, by the name that the user gave it: mirrors don't count.
func (s *Store) mayPull(named reference.Named) error {
	p, err := s.readPolicy()
	if err != nil || p == nil {
		return err
	}
	ref, err := imageref.ParseNamed(named.String())
	if err != nil {
		return err
	}
	identity, err := policyconfiguration.DockerReferenceIdentity(ref)
	if err != nil {
		return err
	}
	names := append([]string{identity}, policyconfiguration.DockerReferenceNamespaces(ref)...)
	return p.allow(named.String(), "docker", names...)
}

// mayLoad applies the policy to an archive. Which kind it is shows only as it is read, and some are both.
func (s *Store) mayLoad() error {
	p, err := s.readPolicy()
	if err != nil {
		return err
	}
	var errs []error
	for _, transport := range []string{"docker-archive", "oci-archive"} {
		errs = append(errs, p.allow("images in archives", transport))
	}
	return errors.Join(errs...)
}
