package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"errand.dev/errand/internal/control"
	"errand.dev/errand/internal/cri/images"
	"errand.dev/errand/internal/datadir"
	"errand.dev/errand/internal/instance"
)

// openStore opens the image store of a data directory that this process holds.
func openStore(ctx context.Context, o Options, dir *datadir.Dir) (*images.Store, error) {
	return images.New(ctx, images.Config{
		Root:            dir.Path("images"),
		RegistriesConf:  o.RegistriesConf,
		AuthFile:        o.AuthFile,
		SignaturePolicy: o.SignaturePolicy,
	})
}

// OpenImages gives the image store to a command: that of the running errand
// serve, or, where none runs, the data directory's own, or that of the runtime that
// has its pods, held until the returned function is called. Only where create is set does it make a data
// directory that isn't there.
func OpenImages(ctx context.Context, o Options, create bool) (control.Images, func() error, error) {
	if os.Geteuid() != 0 {
		return nil, nil, errors.New("the image store is root's: run this with sudo")
	}
	open := datadir.OpenExisting
	if create {
		open = datadir.Open
	}
	dir, err := open(o.DataDir)
	var held *datadir.HeldError
	if errors.As(err, &held) {
		return imagesOfHolder(ctx, held)
	}
	if err != nil {
		return nil, nil, err
	}
	recorded, err := recordedEndpoints(dir)
	if err != nil {
		return nil, nil, errors.Join(err, dir.Close())
	}
	if recorded != (endpoints{}) {
		return openRemoteImages(ctx, recorded, dir)
	}
	store, err := openStore(ctx, o, dir)
	if err != nil {
		return nil, nil, errors.Join(err, dir.Close())
	}
	return &imageCommands{store}, func() error { return errors.Join(store.Close(), dir.Close()) }, nil
}

// imagesOfHolder asks the process that holds the data directory.
func imagesOfHolder(ctx context.Context, held *datadir.HeldError) (control.Images, func() error, error) {
	if !held.Holder.Serves() {
		return nil, nil, fmt.Errorf("data directory %s is held by %s: wait for its end, then try again", held.Path, held.Holder)
	}
	names, err := instance.For(held.Path)
	if err != nil {
		return nil, nil, err
	}
	client := control.NewClient(names.RuntimeDir)
	err = client.Reach(ctx)
	if errors.Is(err, control.ErrNotRunning) {
		return nil, nil, fmt.Errorf("data directory %s is held by %s, which gives no images: it runs no pods (--node=false), or isn't ready yet", held.Path, held.Holder)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("ask %s for its images: %w", held.Holder, err)
	}
	return client, func() error { return nil }, nil
}

// imageCommands is the image store as errand's commands see it.
type imageCommands struct{ store *images.Store }

var _ control.Images = (*imageCommands)(nil)

func (c *imageCommands) List(ctx context.Context) ([]control.Image, error) {
	list := c.store.List(ctx)
	out := make([]control.Image, 0, len(list))
	for _, img := range list {
		out = append(out, describe(img))
	}
	return out, nil
}

func (c *imageCommands) Pull(ctx context.Context, ref string, progress func(control.Progress)) (control.Image, error) {
	img, err := c.store.PullWithProgress(ctx, ref, nil, inWords("pulling "+ref, progress))
	return describe(img), err
}

func (c *imageCommands) Load(ctx context.Context, archive io.Reader, progress func(control.Progress)) ([]control.Image, error) {
	loaded, err := c.store.Load(ctx, archive, inWords("reading the archive", progress))
	out := make([]control.Image, 0, len(loaded))
	for _, img := range loaded {
		out = append(out, describe(img))
	}
	return out, err
}

func (c *imageCommands) Remove(ctx context.Context, ref string) error {
	if _, err := c.store.Get(ctx, ref); err != nil {
		return fmt.Errorf("remove %s: %w", ref, err)
	}
	return c.store.Remove(ctx, ref)
}

// inWords passes the store's progress on with what is being done, which it
// tells at once.
func inWords(step string, progress func(control.Progress)) func(images.Progress) {
	if progress == nil {
		return nil
	}
	progress(control.Progress{Step: step})
	return func(p images.Progress) {
		if p.Image != "" {
			progress(control.Progress{Step: "unpacking " + p.Image})
			return
		}
		progress(control.Progress{Step: step, Done: p.Bytes, Total: p.Total})
	}
}

func describe(img images.Image) control.Image {
	return control.Image{
		ID:          img.ID,
		RepoTags:    img.RepoTags,
		RepoDigests: img.RepoDigests,
		Size:        img.Size,
		PulledAt:    img.PulledAt,
	}
}
