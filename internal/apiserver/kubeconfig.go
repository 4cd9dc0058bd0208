package apiserver

import (
	"fmt"

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
// needs, so that it may be copied away.
func writeKubeconfig(path, server string, certs *pki.Store) error {
	cert, key := certs.Admin()
	config := clientcmdapi.NewConfig()
	config.Clusters[kubeconfigName] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: certs.CA()}
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
