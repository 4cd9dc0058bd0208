package apiserver

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"errand.dev/errand/internal/apiserver/pki"
	"errand.dev/errand/internal/atomicfile"
)

const (
	// kubeconfigName names the context, the cluster and the user.
	kubeconfigName = "errand"
	kubeconfigMode = 0o600
	// kubeconfigFile is its file in the data directory.
	kubeconfigFile = "kubeconfig"
)

// writeKubeconfig replaces the administrator's kubeconfig, which holds all it
// needs, so that it may be copied away. A file that leads to other clusters,
// too, is somebody's own, and left alone.
func writeKubeconfig(path, server string, certs *pki.Store) error {
	if err := checkOwn(path); err != nil {
		return err
	}
	cert, key := certs.Admin()
	config := clientcmdapi.NewConfig()
	config.Clusters[kubeconfigName] = &clientcmdapi.Cluster{
		Server: server, CertificateAuthorityData: certs.CA(),
		// There is no network in between that would gain by it.
		DisableCompression: onThisMachine(server),
	}
	config.AuthInfos[kubeconfigName] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	config.Contexts[kubeconfigName] = &clientcmdapi.Context{Cluster: kubeconfigName, AuthInfo: kubeconfigName}
	config.CurrentContext = kubeconfigName
	data, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("encode the kubeconfig: %w", err)
	}
	if err := atomicfile.Write(path, data, kubeconfigMode); err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	return nil
}

// onThisMachine reports whether a URL's host is a loopback address.
func onThisMachine(server string) bool {
	u, err := url.Parse(server)
	return err == nil && net.ParseIP(u.Hostname()).IsLoopback()
}

// checkOwn returns an error if there is a file at path that errand didn't write.
func checkOwn(path string) error {
	there, err := clientcmd.LoadFromFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s is there, but no kubeconfig that errand could replace: remove it, or name another file: %w", path, err)
	}
	for name := range there.Contexts {
		if name != kubeconfigName {
			return fmt.Errorf("%s also holds the context %q, which would be lost: name another file, and add errand's context to this one with errand kubeconfig --merge", path, name)
		}
	}
	return nil
}
