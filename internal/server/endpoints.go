package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"errand.dev/errand/internal/atomicfile"
	"errand.dev/errand/internal/criclient"
	"errand.dev/errand/internal/datadir"
)

// endpoints are the sockets of another program's runtime; the zero value is none.
type endpoints struct {
	Runtime string `json:"containerRuntimeEndpoint"`
	Images  string `json:"imageServiceEndpoint"`
}

func (o *Options) endpoints() endpoints {
	e := endpoints{Runtime: o.ContainerRuntimeEndpoint, Images: o.ImageServiceEndpoint}
	if e.Images == "" {
		e.Images = e.Runtime
	}
	return e
}

// namesHere says whether pods' questions for names are answered here.
func (o *Options) namesHere() bool { return o.ClusterDNS && o.ContainerRuntimeEndpoint == "" }

// serviceHere says whether pods reach the API.
func (o *Options) serviceHere() bool {
	return o.Node && o.KubernetesService && o.ContainerRuntimeEndpoint == ""
}

// validateEndpoints refuses what another program's runtime decides itself.
func (o *Options) validateEndpoints() error {
	if o.ContainerRuntimeEndpoint == "" {
		if o.ImageServiceEndpoint != "" {
			return errors.New("--image-service-endpoint needs --container-runtime-endpoint")
		}
		return nil
	}
	var errs []error
	if _, err := criclient.SocketPath(o.ContainerRuntimeEndpoint); err != nil {
		errs = append(errs, fmt.Errorf("--container-runtime-endpoint: %w", err))
	}
	if o.ImageServiceEndpoint != "" {
		if _, err := criclient.SocketPath(o.ImageServiceEndpoint); err != nil {
			errs = append(errs, fmt.Errorf("--image-service-endpoint: %w", err))
		}
	}
	for _, f := range []struct {
		set           bool
		flag, instead string
	}{
		{len(o.Runtimes) > 0, "--runtime", "configure OCI runtimes there, as handlers for RuntimeClasses"},
		{o.DefaultRuntime != "", "--default-runtime", "configure it there"},
		{!o.NativeLauncher, "--native-launcher=false", "leave it out: containers are started by that runtime"},
		{o.Shim != "", "--shim", "leave it out: errand-shim isn't used"},
		{o.PodCIDR != "", "--pod-cidr", "configure its CNI plugins"},
		{o.RegistriesConf != "", "--registries-conf", "configure registries there (containerd: hosts.toml)"},
		{o.SignaturePolicy != "", "--signature-policy", "configure it there (CRI-O: signature_policy)"},
		{o.AuthFile != "", "--authfile", "configure credentials there, or use imagePullSecrets"},
	} {
		if f.set {
			errs = append(errs, fmt.Errorf("%s doesn't go with --container-runtime-endpoint: %s", f.flag, f.instead))
		}
	}
	return errors.Join(errs...)
}

// endpointsFile, in the data directory, says in which other program's runtime the
// pods are. It is there from before the first pod until errand drain.
const endpointsFile = "container-runtime.json"

// recordedEndpoints are those that the data directory's pods are in.
func recordedEndpoints(dir *datadir.Dir) (endpoints, error) {
	b, err := os.ReadFile(dir.Path(endpointsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return endpoints{}, nil
	}
	if err != nil {
		return endpoints{}, fmt.Errorf("read which container runtime has the pods: %w", err)
	}
	var e endpoints
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return endpoints{}, fmt.Errorf("read which container runtime has the pods: %s: %w", dir.Path(endpointsFile), err)
	}
	return e, nil
}

func (e endpoints) record(dir *datadir.Dir) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return atomicfile.Write(dir.Path(endpointsFile), append(b, '\n'), 0o600)
}

func forgetEndpoints(dir *datadir.Dir) error {
	if err := os.Remove(dir.Path(endpointsFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget which container runtime had the pods: %w", err)
	}
	return nil
}

// heldError says that the pods are in a runtime other than the one asked for.
func (e endpoints) heldError(dir *datadir.Dir) error {
	return fmt.Errorf("the pods of data directory %s are in the container runtime at %s: start with --container-runtime-endpoint %s, or first end them with errand drain --data-dir %s (if that runtime is gone for good, remove %s)",
		dir.Root(), e.Runtime, e.Runtime, dir.Root(), dir.Path(endpointsFile))
}
