package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/homedir"

	"errand.dev/errand/internal/atomicfile"
)

func newKubeconfig() *cobra.Command {
	var (
		dataDir string
		merge   bool
		into    string
	)
	cmd := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print errand's kubeconfig, or merge it into your own",
		Example: `  # kubectl of any kind, for this shell
  export KUBECONFIG=/var/lib/errand/kubeconfig

  # kubectl of any kind, from now on, with the context "errand"
  errand kubeconfig --merge`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			own, err := readKubeconfig(dataDir)
			if err != nil {
				return err
			}
			if !merge {
				b, err := clientcmd.Write(*own)
				if err != nil {
					return fmt.Errorf("encode the kubeconfig: %w", err)
				}
				_, err = cmd.OutOrStdout().Write(b)
				return err
			}
			if err := mergeKubeconfig(own, into); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Merged into %s. Use it with:\n  kubectl --context %s get jobs\n  kubectl config use-context %s\n", into, own.CurrentContext, own.CurrentContext)
			return err
		},
	}
	addDataDir(cmd, &dataDir)
	cmd.Flags().BoolVar(&merge, "merge", false, "add errand's context to the file that --into names; its current context stays as it is")
	cmd.Flags().StringVar(&into, "into", userKubeconfig(), "the kubeconfig to merge into")
	return cmd
}

// userKubeconfig is the file that kubectl would write.
func userKubeconfig() string {
	if list := filepath.SplitList(os.Getenv("KUBECONFIG")); len(list) > 0 && list[0] != "" {
		return list[0]
	}
	return filepath.Join(homedir.HomeDir(), ".kube", "config")
}

func readKubeconfig(dataDir string) (*clientcmdapi.Config, error) {
	path := filepath.Join(dataDir, "kubeconfig")
	c, err := clientcmd.LoadFromFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no errand at %s: start one with errand serve, or name its --data-dir", dataDir)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s is its owner's alone: run this with sudo", path)
	case err != nil:
		return nil, fmt.Errorf("read errand's kubeconfig: %w", err)
	}
	return c, nil
}

// mergeKubeconfig adds own's clusters, users and contexts to the file at path,
// replacing those of the same name that an earlier merge left.
func mergeKubeconfig(own *clientcmdapi.Config, path string) error {
	theirs, err := clientcmd.LoadFromFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		theirs, err = clientcmdapi.NewConfig(), nil
		theirs.CurrentContext = own.CurrentContext
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	for name, c := range own.Clusters {
		theirs.Clusters[name] = c
	}
	for name, u := range own.AuthInfos {
		theirs.AuthInfos[name] = u
	}
	for name, c := range own.Contexts {
		theirs.Contexts[name] = c
	}
	b, err := clientcmd.Write(*theirs)
	if err != nil {
		return fmt.Errorf("encode the kubeconfig: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	// kubectl follows a linked kubeconfig, so what is replaced is its target.
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	return atomicfile.Write(path, b, 0o600)
}
