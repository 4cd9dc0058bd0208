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

// connectRemote connects to another program's runtime for a command. The returned
// function ends the connection.
func connectRemote(ctx context.Context, to endpoints, owner string, tree *cgroups.Tree) (*criclient.Client, func() error, error) {
	client, err := criclient.New(criclient.Config{Endpoint: to.Runtime, ImageEndpoint: to.Images, Owner: owner, Cgroups: tree})
	if err != nil {
		return nil, nil, err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- client.Run(running) }()
	end := func() error { stop(); return <-ended }
	select {
	case <-client.Settled():
		err = client.Err()
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return nil, nil, errors.Join(err, end())
	}
	return client, end, nil
}

// drainRemote ends the data directory's pods in another program's runtime.
func drainRemote(ctx context.Context, in endpoints, dir *datadir.Dir, names instance.Names, stderr io.Writer) error {
	tree, err := cgroups.Open(cgroupRoot)
	if err != nil {
		return err
	}
	client, end, err := connectRemote(ctx, in, names.ID, tree)
	if err != nil {
		return fmt.Errorf("the pods can't be ended: %w. Start it, then try again; if it is gone for good, remove %s", err, dir.Path(endpointsFile))
	}
	fmt.Fprintf(stderr, "ending all containers in the container runtime at %s\n", in.Runtime)
	noteDrained(ctx, dir, client.Runtime(), stderr)
	if err := errors.Join(endSandboxes(ctx, client), end()); err != nil {
		return err
	}
	// The last to leave it were the containers.
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
