package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/spf13/cobra"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/command"
	"errand.dev/errand/internal/jobrun"
)

func newRun() *cobra.Command {
	var (
		at    cluster
		f     following
		words jobWords
		file  string
	)
	cmd := &cobra.Command{
		Use:   "run (-f FILE | [NAME] --image IMAGE [FLAGS] [-- COMMAND [ARGS…]])",
		Short: "Run a Job, show its logs, and exit with its result",
		Long: `Run a Job, from a manifest or from a few words, follow it, and exit with its result.

The logs of its pods go to stdout; their lines begin with the pod's name when there
is more than one pod. What errand itself has to say goes to stderr: also what holds
things up, once that takes more than two seconds.

` + followsHelp,
		Example: `  # One command, in a container
  errand run --image busybox -- echo hello

  # Three shares of work, two at once, each of which has its number
  errand run shares --image busybox --completions 3 --parallelism 2 --indexed \
    -- sh -c 'echo share $JOB_COMPLETION_INDEX'

  # A Job's manifest, which is deleted after its end
  errand run -f job.yaml --rm`,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			job, err := words.job(cmd, args, file)
			if err != nil {
				return err
			}
			client, err := at.connect(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			switch {
			case job.Namespace == "":
				job.Namespace = at.namespace
			case cmd.Flags().Changed("namespace") && job.Namespace != at.namespace:
				return fmt.Errorf("%s says the namespace %s, and --namespace %s", file, job.Namespace, at.namespace)
			}
			// Once asked for, the Job is there, and has to be known to be deleted.
			if job, err = jobrun.Create(detached(cmd), client, job); err != nil {
				return at.explain(err)
			}
			return f.follow(cmd, client, job)
		},
	}
	cmd.Flags().StringVarP(&file, "filename", "f", "", "the manifest of one Job: a file, a URL, or - for stdin")
	words.addFlags(cmd)
	f.addFlags(cmd)
	at.addFlags(cmd)
	return cmd
}

// jobWords are the flags that a Job is made from.
type jobWords struct {
	jobrun.Words

	completions, parallelism, backoffLimit int32
	timeout                                time.Duration
	restart, pull, cpus, memory            string
}

func (w *jobWords) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&w.Image, "image", "", "the image of the Job's one container")
	f.StringArrayVarP(&w.Env, "env", "e", nil, "a variable for it, as NAME=VALUE, or NAME for one of this environment's")
	f.Int32Var(&w.completions, "completions", 0, "how many pods have to succeed: by default one; with --parallelism alone, one, and all others to end")
	f.Int32Var(&w.parallelism, "parallelism", 0, "how many pods run at once; by default one")
	f.BoolVar(&w.Indexed, "indexed", false, "give each pod a number of its own, from 0, as $JOB_COMPLETION_INDEX")
	f.Int32Var(&w.backoffLimit, "backoff-limit", 0, "how many failures are followed by another try; by default none")
	f.DurationVar(&w.timeout, "timeout", 0, "how long the Job can take, in whole seconds, before it fails; 0 for any time")
	f.StringVar(&w.restart, "restart", string(corev1.RestartPolicyNever), "what another try is: Never for another pod, OnFailure for the same one")
	f.StringVar(&w.pull, "image-pull-policy", "", "Always, IfNotPresent or Never; by default Always for :latest and IfNotPresent for other tags")
	completeFlag(cmd, "restart", string(corev1.RestartPolicyNever), string(corev1.RestartPolicyOnFailure))
	completeFlag(cmd, "image-pull-policy", string(corev1.PullAlways), string(corev1.PullIfNotPresent), string(corev1.PullNever))
	f.StringVarP(&w.WorkingDir, "workdir", "w", "", "the directory that the command runs in; by default the image's")
	f.StringVar(&w.cpus, "cpus", "", "how much CPU it gets, and no more, such as 0.5 or 500m")
	f.StringVarP(&w.memory, "memory", "m", "", "how much memory it gets, and no more, such as 64Mi")
	f.StringToStringVarP(&w.Labels, "labels", "l", nil, "labels of the Job and its pods, as NAME=VALUE,NAME=VALUE")
}

// wordFlags are the flags above that make no sense with a manifest.
var wordFlags = []string{
	"image", "env", "completions", "parallelism", "indexed", "backoff-limit", "timeout", "restart", "image-pull-policy", "workdir", "cpus", "memory", "labels",
}

// job reads the manifest, or makes a Job of the words.
func (w *jobWords) job(cmd *cobra.Command, args []string, file string) (*batchv1.Job, error) {
	if file != "" {
		if len(args) > 0 {
			return nil, command.UsageError(fmt.Errorf("errand run -f takes no arguments, but was given %q", args))
		}
		for _, name := range wordFlags {
			if cmd.Flags().Changed(name) {
				return nil, command.UsageError(fmt.Errorf("errand run takes either -f or --%s: a manifest says that itself", name))
			}
		}
		return readJob(file, cmd.InOrStdin())
	}
	if w.Image == "" && len(args) > 0 && cmd.ArgsLenAtDash() < 0 { // as docker run has it
		return nil, command.UsageError(fmt.Errorf("errand run needs an image, by --image: did you mean errand run --image %s?", strings.Join(slices.Insert(slices.Clone(args), 1, "--"), " ")))
	}
	if w.Image == "" {
		return nil, command.UsageError(errors.New("errand run needs a manifest, by -f FILE, or an image, by --image IMAGE (see errand run --help)"))
	}
	names := args
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		names, w.Command = args[:dash], args[dash:]
	}
	switch len(names) {
	case 0:
	case 1:
		w.Name = names[0]
	default:
		return nil, command.UsageError(fmt.Errorf("errand run takes one name, but was given %q: the command stands behind --", names))
	}
	if err := w.complete(cmd); err != nil {
		return nil, command.UsageError(err)
	}
	job, err := jobrun.Make(w.Words)
	if err != nil {
		return nil, command.UsageError(err)
	}
	return job, nil
}

// complete makes of the flags what they stand for.
func (w *jobWords) complete(cmd *cobra.Command) error {
	// A pod with a name that can't be read would wait for ever.
	if _, err := reference.ParseNormalizedNamed(w.Image); err != nil {
		return fmt.Errorf("--image %q: %w: an image is named as [REGISTRY/]NAME[:TAG], such as busybox:1.36", w.Image, err)
	}
	w.Lookup = os.LookupEnv
	w.Restart, w.Pull = corev1.RestartPolicy(w.restart), corev1.PullPolicy(w.pull)
	w.BackoffLimit = &w.backoffLimit
	if cmd.Flags().Changed("completions") {
		w.Completions = &w.completions
	}
	if cmd.Flags().Changed("parallelism") {
		w.Parallelism = &w.parallelism
	}
	if cmd.Flags().Changed("timeout") {
		if w.timeout < 0 {
			return fmt.Errorf("--timeout %s: must not be negative", w.timeout)
		}
		if w.timeout%time.Second != 0 {
			return fmt.Errorf("--timeout %s: must be in whole seconds", w.timeout)
		}
		if w.timeout > 0 {
			w.Deadline = ptr.To(int64(w.timeout / time.Second))
		}
	}
	w.Resources = corev1.ResourceList{}
	for name, flag := range map[corev1.ResourceName]struct{ name, value string }{
		corev1.ResourceCPU: {"cpus", w.cpus}, corev1.ResourceMemory: {"memory", w.memory},
	} {
		if flag.value == "" {
			continue
		}
		q, err := resource.ParseQuantity(flag.value)
		if err != nil {
			return fmt.Errorf("--%s %q: must be a quantity such as 500m or 64Mi", flag.name, flag.value)
		}
		w.Resources[name] = q
	}
	return nil
}
