package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"errand.dev/errand/internal/command"
	"errand.dev/errand/internal/datadir"
)

// cluster is whose Jobs a command is about: this machine's errand's, unless its flags
// name another.
type cluster struct {
	kubeconfig, context, namespace string
	dataDir                        string

	server string // its URL
	own    bool   // it is this machine's errand
}

func (c *cluster) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&c.namespace, "namespace", "n", "", "the Job's namespace; by default that of the kubeconfig")
	cmd.Flags().StringVar(&c.kubeconfig, "kubeconfig", "", "the kubeconfig of another cluster; by default that of this machine's errand, whatever $KUBECONFIG says")
	cmd.Flags().StringVar(&c.context, "context", "", "another cluster, by the name of its context in --kubeconfig or else in your own kubeconfig")
	addDataDir(cmd, &c.dataDir)
}

// connect makes a client, and finds out the namespace.
func (c *cluster) connect(warnings io.Writer) (kubernetes.Interface, error) {
	rules := &clientcmd.ClientConfigLoadingRules{}
	switch {
	case c.kubeconfig != "":
		rules.ExplicitPath = c.kubeconfig
	case c.context != "":
		rules.Precedence = filepath.SplitList(os.Getenv("KUBECONFIG"))
		if len(rules.Precedence) == 0 {
			rules.Precedence = []string{userKubeconfig()}
		}
	default:
		c.own = true
		rules.ExplicitPath = filepath.Join(c.dataDir, "kubeconfig")
		if err := checkOwnKubeconfig(c.dataDir); err != nil {
			return nil, err
		}
	}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: c.context})
	config, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, fmt.Errorf("the kubeconfig %s names no cluster: see kubectl config get-contexts", strings.Join(rules.GetLoadingPrecedence(), " or "))
	}
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	if c.namespace == "" {
		if c.namespace, _, err = loader.Namespace(); err != nil {
			return nil, fmt.Errorf("read the kubeconfig: %w", err)
		}
	}
	c.server = config.Host
	config.WarningHandler = rest.NewWarningWriter(warnings, rest.WarningWriterOptions{Deduplicate: true})
	config.QPS, config.Burst = -1, -1 // the server has its own ways to share itself out
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	return client, nil
}

// explain says of an error that comes of a stopped errand that it does.
func (c *cluster) explain(err error) error {
	if c.own && utilnet.IsConnectionRefused(err) {
		return fmt.Errorf("errand doesn't answer at %s: start it with errand serve: %w", c.server, err)
	}
	return err
}

// checkOwnKubeconfig says why errand's own kubeconfig can't be read.
func checkOwnKubeconfig(dataDir string) error {
	path := filepath.Join(dataDir, "kubeconfig")
	f, err := os.Open(path)
	switch {
	case datadir.IsAbsent(err):
		return &datadir.AbsentError{Path: dataDir}
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s is its owner's alone: run this with sudo, or have the owner run errand kubeconfig --merge for you", path)
	case err != nil:
		return fmt.Errorf("read errand's kubeconfig: %w", err)
	}
	return f.Close()
}

// completeJobs completes Jobs' names by what there is, n arguments at most; 0 for any
// number.
func (c *cluster) completeJobs(n int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if n > 0 && len(args) >= n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		client, err := c.connect(io.Discard)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		list, err := client.BatchV1().Jobs(c.namespace).List(cmd.Context(), metav1.ListOptions{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		names := make([]cobra.Completion, 0, len(list.Items))
		for i := range list.Items {
			if name := "job/" + list.Items[i].Name; !slices.Contains(args, name) {
				names = append(names, name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// jobNames reads arguments that name Jobs, as kubectl takes them or by their names
// alone.
func jobNames(cmd *cobra.Command, args []string) ([]string, error) {
	names := make([]string, 0, len(args))
	for _, arg := range args {
		kind, name, found := strings.Cut(arg, "/")
		if !found {
			kind, name = "job", arg
		}
		switch kind {
		case "job", "jobs", "job.batch", "jobs.batch", "job.v1.batch", "jobs.v1.batch":
		default:
			return nil, command.UsageError(fmt.Errorf("%s takes Jobs, but was given %q: name one as job/NAME", cmd.CommandPath(), arg))
		}
		if name == "" || strings.Contains(name, "/") {
			return nil, command.UsageError(fmt.Errorf("%q names no Job: name one as job/NAME", arg))
		}
		names = append(names, name)
	}
	return names, nil
}
