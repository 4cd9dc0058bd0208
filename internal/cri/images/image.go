package images

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Image is an image in the store: whole, verified and unpacked.
type Image struct {
	// ID is the digest of the image's configuration ("sha256:…").
	ID string
	// RepoTags are its names with a tag ("docker.io/library/busybox:latest"), sorted.
	RepoTags []string
	// RepoDigests are its names with the digest that the registry knows it by, sorted. An image from an archive has none.
	RepoDigests []string
	// Config is how to run it: entrypoint, environment, user …
	Config ocispec.ImageConfig
	// Spec is the whole configuration, Config included.
	Spec ocispec.Image
	// Size is what its content takes as it was fetched, compressed layers included, in bytes.
	Size int64
	// ChainID names the snapshot of its topmost layer; "" for an image without layers.
	ChainID string
	// Target is what its names point to: an index or a manifest.
	Target digest.Digest
	// PulledAt is when its oldest name was made.
	PulledAt time.Time
	// Pinned images are left alone by a kubelet's image collection.
	Pinned bool

	target ocispec.Descriptor
	// names is every name of the image in the database: RepoTags, RepoDigests and the ID.
	names []string
}

// readImage reads what target's content says of the image for our platform.
func (s *Store) readImage(ctx context.Context, target ocispec.Descriptor) (Image, error) {
	config, err := images.Config(ctx, s.content, target, s.platform)
	if err != nil {
		return Image{}, fmt.Errorf("get image config descriptor: %w", err)
	}
	if !images.IsConfigType(config.MediaType) {
		return Image{}, fmt.Errorf("%s is not a container image: its config is a %q: %w", target.Digest, config.MediaType, errdefs.ErrInvalidArgument)
	}
	if _, err := checkSize(ctx, config); err != nil {
		return Image{}, err
	}
	blob, err := content.ReadBlob(ctx, s.content, config)
	if err != nil {
		return Image{}, fmt.Errorf("read image config: %w", err)
	}
	img := Image{ID: config.Digest.String(), Target: target.Digest, target: target}
	if err := json.Unmarshal(blob, &img.Spec); err != nil {
		return Image{}, fmt.Errorf("read image config %s: %w", config.Digest, err)
	}
	img.Config = img.Spec.Config
	img.ChainID = identity.ChainID(img.Spec.RootFS.DiffIDs).String()
	record := images.Image{Target: target}
	if img.Size, err = record.Size(ctx, s.content, s.platform); err != nil {
		return Image{}, fmt.Errorf("get image size: %w", err)
	}
	return img, nil
}

// cri returns the image as the CRI shows it.
func (img Image) cri() *runtimeapi.Image {
	out := &runtimeapi.Image{
		Id:          img.ID,
		RepoTags:    img.RepoTags,
		RepoDigests: img.RepoDigests,
		Size:        uint64(img.Size),
		Pinned:      img.Pinned,
	}
	user, _, _ := strings.Cut(img.Config.User, ":")
	if uid, err := strconv.ParseInt(user, 10, 64); err == nil {
		out.Uid = &runtimeapi.Int64Value{Value: uid}
	} else {
		out.Username = user
	}
	return out
}

// verboseInfo is the "info" that crictl inspecti shows, as containerd's CRI gives it.
func (img Image) verboseInfo() (map[string]string, error) {
	info, err := json.Marshal(struct {
		ChainID   string        `json:"chainID"`
		ImageSpec ocispec.Image `json:"imageSpec"`
	}{img.ChainID, img.Spec})
	if err != nil {
		return nil, fmt.Errorf("describe image %s: %w", img.ID, err)
	}
	return map[string]string{"info": string(info)}, nil
}
