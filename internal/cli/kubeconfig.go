package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/homedir"

	"errand.dev/errand/internal/atomicfile"
	"errand.dev/errand/internal/command"
	"errand.dev/errand/internal/datadir"
)

func newKubeconfig() *cobra.Command {
	var (
		dataDir string
		merge   bool
		into    string
		context string
	)
	cmd := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print errand's kubeconfig, or merge it into your own",
		Example: `  # kubectl of any kind, for this shell
  export KUBECONFIG=/var/lib/errand/kubeconfig

  # kubectl of any kind, from now on, with the context "errand"
  errand kubeconfig --merge`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range []string{"into", "context"} {
				if !merge && cmd.Flags().Changed(name) {
					return command.UsageError(fmt.Errorf("--%s needs --merge", name))
				}
			}
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
			own = renamed(own, context)
			if !cmd.Flags().Changed("context") {
				if err := checkOthers(own, into); err != nil {
					return err
				}
			}
			if err := mergeKubeconfig(own, into, sudoUser()); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Merged into %s. Use it with:\n  kubectl --context %s get jobs\n  kubectl config use-context %s\n", into, own.CurrentContext, own.CurrentContext)
			return err
		},
	}
	addDataDir(cmd, &dataDir)
	cmd.Flags().BoolVar(&merge, "merge", false, "add errand's context to the file that --into names; its current context stays as it is")
	cmd.Flags().StringVar(&into, "into", userKubeconfig(), "the kubeconfig to merge into")
	cmd.Flags().StringVar(&context, "context", "errand", "what errand's context is called there; one of that name is replaced")
	return cmd
}

// owner is a user's and a group's number; -1 means this process's own.
type owner struct{ uid, gid int }

// sudoUser is who called this process by sudo: a kubeconfig is for them, not
// for root.
func sudoUser() owner {
	uid, uidErr := strconv.Atoi(os.Getenv("SUDO_UID"))
	gid, gidErr := strconv.Atoi(os.Getenv("SUDO_GID"))
	if os.Geteuid() != 0 || uidErr != nil || gidErr != nil {
		return owner{-1, -1}
	}
	return owner{uid, gid}
}

// userHome is the home directory of whoever called, also by sudo, which may
// set $HOME to root's.
func userHome() string {
	if who := sudoUser(); who.uid >= 0 {
		if u, err := user.LookupId(strconv.Itoa(who.uid)); err == nil && u.HomeDir != "" {
			return u.HomeDir
		}
	}
	return homedir.HomeDir()
}

// userKubeconfig is the file that the user's kubectl would write.
func userKubeconfig() string {
	if list := filepath.SplitList(os.Getenv("KUBECONFIG")); len(list) > 0 && list[0] != "" {
		return list[0]
	}
	return filepath.Join(userHome(), ".kube", "config")
}

func readKubeconfig(dataDir string) (*clientcmdapi.Config, error) {
	path := filepath.Join(dataDir, "kubeconfig")
	c, err := clientcmd.LoadFromFile(path)
	switch {
	case datadir.IsAbsent(err):
		return nil, &datadir.AbsentError{Path: dataDir}
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s is its owner's alone: run this with sudo", path)
	case err != nil:
		return nil, fmt.Errorf("read errand's kubeconfig: %w", err)
	}
	return c, nil
}

// renamed is errand's kubeconfig with its context, cluster and user under another name.
func renamed(own *clientcmdapi.Config, name string) *clientcmdapi.Config {
	to := clientcmdapi.NewConfig()
	context := own.Contexts[own.CurrentContext].DeepCopy()
	to.Clusters[name], to.AuthInfos[name] = own.Clusters[context.Cluster], own.AuthInfos[context.AuthInfo]
	context.Cluster, context.AuthInfo = name, name
	to.Contexts[name], to.CurrentContext = context, name
	return to
}

// checkOthers refuses to replace a cluster of the same name in the file at path that
// isn't this errand. One that listens elsewhere now has its CA still, and one whose
// data directory was made anew listens where it did.
func checkOthers(own *clientcmdapi.Config, path string) error {
	theirs, err := clientcmd.LoadFromFile(path)
	if err != nil {
		return nil // the merge says what is wrong
	}
	name := own.CurrentContext
	mine, other := own.Clusters[name], theirs.Clusters[name]
	if context := theirs.Contexts[name]; context != nil && theirs.Clusters[context.Cluster] != nil {
		other = theirs.Clusters[context.Cluster]
	}
	if other == nil || other.Server == mine.Server || bytes.Equal(other.CertificateAuthorityData, mine.CertificateAuthorityData) {
		return nil
	}
	return fmt.Errorf("%s has a context %q of another server, %s: give this errand's another name by --context NAME, or replace that one by --context %s", path, name, other.Server, name)
}

// mergeKubeconfig adds own's clusters, users and contexts to the file at path,
// replacing those of the same name that an earlier merge left. The file keeps its
// owner; a new one, and new folders on the way to it, are given to who.
func mergeKubeconfig(own *clientcmdapi.Config, path string, who owner) error {
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
	if err := makeFolder(filepath.Dir(path), who); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	// kubectl follows a linked kubeconfig, so what is replaced is its target.
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if info, err := os.Stat(path); err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			who = owner{int(stat.Uid), int(stat.Gid)}
		}
	}
	return atomicfile.WriteAs(path, b, 0o600, who.uid, who.gid)
}

// makeFolder makes the folders on path that are missing, for who.
func makeFolder(path string, who owner) error {
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeFolder(filepath.Dir(path), who); err != nil {
			return err
		}
		err = os.Mkdir(path, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chown(path, who.uid, who.gid)
}
