package server

import (
	"context"
	"errors"
	"fmt"
	"io"

	"errand.dev/errand/internal/cri/cgroups"
	"errand.dev/errand/internal/criclient"
	"errand.dev/errand/internal/datadir"
	"errand.dev/errand/internal/instance"
)

// drainRemote ends the data directory's pods in another program's runtime.
func drainRemote(ctx context.Context, in endpoints, dir *datadir.Dir, names instance.Names, stderr io.Writer) error {
	tree, err := cgroups.Open(cgroupRoot)
	if err != nil {
		return err
	}
	client, err := criclient.New(criclient.Config{Endpoint: in.Runtime, ImageEndpoint: in.Images, Owner: names.ID, Cgroups: tree})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- client.Run(running) }()
	defer func() { stop(); <-ended }()
	select {
	case <-client.Settled():
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := client.Err(); err != nil {
		return fmt.Errorf("the pods can't be ended: %w. Start it, then try again; if it is gone for good, remove %s", err, dir.Path(endpointsFile))
	}
	fmt.Fprintf(stderr, "ending all containers in the container runtime at %s\n", in.Runtime)
	if err := endSandboxes(ctx, client); err != nil {
		return err
	}
	if err := tree.Remove(names.CgroupParent); err != nil {
		return err
	}
	return forgetEndpoints(dir)
}

// endSandboxes stops and removes all of this errand's, and what is in them.
func endSandboxes(ctx context.Context, client *criclient.Client) error {
	runtime := client.Runtime()
	sandboxes, err := runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range sandboxes {
		err := runtime.StopPodSandbox(ctx, s.GetId())
		if err == nil {
			err = runtime.RemovePodSandbox(ctx, s.GetId())
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("end pod %s/%s: %w", s.GetMetadata().GetNamespace(), s.GetMetadata().GetName(), err))
		}
	}
	return errors.Join(errs...)
}
