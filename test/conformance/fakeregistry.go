package main

import (
	"errors"
	"io"
	"path"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"errand.dev/errand/test/registry"
)

// fakeRegistry are the files from which agnhost serves the image pause:testing as a registry would.
func fakeRegistry(busybox v1.Image, tools string) ([]registry.File, error) {
	image, err := pause(busybox, tools)
	if err != nil {
		return nil, err
	}
	manifest, err := image.RawManifest()
	if err != nil {
		return nil, err
	}
	digest, err := image.Digest()
	if err != nil {
		return nil, err
	}
	conf, err := image.RawConfigFile()
	if err != nil {
		return nil, err
	}
	confDigest, err := image.ConfigName()
	if err != nil {
		return nil, err
	}
	const dir = "var/registry/pause"
	object := func(kind string, digest v1.Hash, body []byte) registry.File {
		return registry.File{Name: path.Join(dir, kind, digest.Algorithm, digest.Hex[:2], digest.Hex, "data"), Body: body}
	}
	files := []registry.File{
		{Name: path.Join(dir, "manifests/testing"), Body: []byte(digest.String())},
		object("manifests", digest, manifest), object("blobs", confDigest, conf),
	}
	layers, err := image.Layers()
	if err != nil {
		return nil, err
	}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			return nil, err
		}
		body, err := layer.Compressed()
		if err != nil {
			return nil, err
		}
		blob, err := io.ReadAll(body)
		if err := errors.Join(err, body.Close()); err != nil {
			return nil, err
		}
		files = append(files, object("blobs", digest, blob))
	}
	return files, nil
}
