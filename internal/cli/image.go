package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"errand.dev/errand/internal/command"
	"errand.dev/errand/internal/control"
	"errand.dev/errand/internal/server"
)

func newImage() *cobra.Command {
	o := server.DefaultOptions()
	cmd := &cobra.Command{
		Use:     "image",
		Aliases: []string{"images"},
		Short:   "Load, list, pull and remove images",
		Long: `Load, list, pull and remove the images that pods are made of. With errand
serve running it does the work; otherwise the image store is opened directly.`,
		Args: command.Subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := cmd.PersistentFlags()
	f.StringVar(&o.DataDir, "data-dir", defaultDataDir(), "errand's data directory; $"+dataDirEnv+" changes the default")
	f.StringVar(&o.RegistriesConf, "registries-conf", "", "containers-registries.conf(5), where errand serve isn't running (default its usual places)")
	f.StringVar(&o.AuthFile, "authfile", "", "containers-auth.json(5), where errand serve isn't running (default its usual places)")
	f.StringVar(&o.SignaturePolicy, "signature-policy", "", "containers-policy.json(5), where errand serve isn't running (default its usual places)")
	cmd.AddCommand(newImageList(&o), newImagePull(&o), newImageLoad(&o), newImageRemove(&o))
	return cmd
}

// withImages calls do with the image store: of the running errand serve, or
// opened for this one call. Images can be brought before there is an errand, so
// with create its data directory is made.
func withImages(ctx context.Context, o *server.Options, create bool, do func(control.Images) error) error {
	images, closeImages, err := server.OpenImages(ctx, *o, create)
	if err != nil {
		return err
	}
	return errors.Join(do(images), closeImages())
}

func newImageList(o *server.Options) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the images",
		Args:    command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			return withImages(cmd.Context(), o, false, func(images control.Images) error {
				list, err := images.List(cmd.Context())
				if err != nil {
					return err
				}
				if output != "" {
					return printStructured(cmd.OutOrStdout(), output, list)
				}
				return printImages(cmd.OutOrStdout(), list, time.Now())
			})
		},
	}
	addOutput(cmd, &output)
	return cmd
}

func printImages(w io.Writer, list []control.Image, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "IMAGE\tID\tSIZE\tPULLED")
	for _, img := range list {
		names := img.RepoTags
		if len(names) == 0 {
			names = img.RepoDigests
		}
		if len(names) == 0 {
			names = []string{"<none>"}
		}
		pulled := "-" // another program's runtime doesn't tell
		if !img.PulledAt.IsZero() {
			pulled = units.HumanDuration(now.Sub(img.PulledAt)) + " ago"
		}
		for _, name := range names {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", name, shortID(img.ID), units.HumanSize(float64(img.Size)), pulled)
		}
	}
	return tw.Flush()
}

func shortID(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(len(id), 12)]
}

func newImagePull(o *server.Options) *cobra.Command {
	return &cobra.Command{
		Use:   "pull IMAGE...",
		Short: "Pull images from their registries",
		Args:  someArgs("an image, such as busybox:latest"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withImages(cmd.Context(), o, true, func(images control.Images) error {
				for _, ref := range args {
					progress := newProgress(cmd.ErrOrStderr(), 0)
					img, err := images.Pull(cmd.Context(), ref, progress.show)
					progress.end()
					if err != nil {
						return err
					}
					printNames(cmd.OutOrStdout(), "pulled", img)
				}
				return nil
			})
		},
	}
}

func newImageLoad(o *server.Options) *cobra.Command {
	return &cobra.Command{
		Use:   "load FILE...",
		Short: "Load images from archives: OCI, or docker save's; - is standard input",
		Args:  someArgs("an archive, or - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withImages(cmd.Context(), o, true, func(images control.Images) error {
				for _, path := range args {
					if err := loadArchive(cmd, images, path); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func loadArchive(cmd *cobra.Command, images control.Images, path string) error {
	in := cmd.InOrStdin()
	var size int64 // 0: not known
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		defer f.Close()
		in = f
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			size = info.Size()
		}
	}
	progress := newProgress(cmd.ErrOrStderr(), size)
	loaded, err := images.Load(cmd.Context(), in, progress.show)
	progress.end()
	if err != nil {
		return fmt.Errorf("load %s: %w", path, err)
	}
	for _, img := range loaded {
		printNames(cmd.OutOrStdout(), "loaded", img)
	}
	return nil
}

func newImageRemove(o *server.Options) *cobra.Command {
	return &cobra.Command{
		Use:     "rm IMAGE...",
		Aliases: []string{"remove"},
		Short:   "Remove images by name or ID",
		Args:    someArgs("an image's name or ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withImages(cmd.Context(), o, false, func(images control.Images) error {
				for _, ref := range args {
					if err := images.Remove(cmd.Context(), ref); err != nil {
						return err
					}
					fmt.Fprintf(cmd.OutOrStdout(), "removed %s\n", ref)
				}
				return nil
			})
		},
	}
}

func printNames(w io.Writer, verb string, img control.Image) {
	name := img.ID
	if len(img.RepoTags) > 0 {
		name = strings.Join(img.RepoTags, ", ")
	} else if len(img.RepoDigests) > 0 {
		name = img.RepoDigests[0]
	}
	fmt.Fprintf(w, "%s %s\n", verb, name)
}

// someArgs wants at least one argument, and says what it would be.
func someArgs(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return command.UsageError(fmt.Errorf("%s needs %s", cmd.CommandPath(), what))
		}
		return nil
	}
}
