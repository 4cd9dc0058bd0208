package images

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// parseRef reads an image name as Kubernetes does: without a registry it is docker.io's, without a tag it is :latest, and of a
// tag and a digest the digest counts. (The short names and search registries of registries.conf are deliberately not
// consulted: which image a Pod means must not depend on the machine.)
func parseRef(name string) (reference.Named, error) {
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return nil, fmt.Errorf("failed to parse image reference %q: %w: %w", name, err, errdefs.ErrInvalidArgument)
	}
	return named, nil
}

// namesFor returns the names under which an image pulled as named is kept: its tag, if it was pulled by one, and its digest.
func namesFor(named reference.Named, target digest.Digest) []string {
	if _, ok := named.(reference.Canonical); ok {
		return []string{named.String()}
	}
	return []string{named.String(), named.Name() + "@" + target.String()}
}

// isID reports whether a name of the database is an image's ID rather than a reference.
func isID(name string) bool {
	return digest.Digest(name).Validate() == nil
}

// isDigestRef reports whether a name of the database is repository@digest.
func isDigestRef(name string) bool { return strings.Contains(name, "@") }

// repository returns the repository part of a reference of the database.
func repository(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return named.Name()
}
