package spec

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (b *builder) process(context.Context) error {
	p := b.spec.Process
	args, err := arguments(b.Config, b.Image)
	if err != nil {
		return err
	}
	p.Args = args
	p.Env = environment(b.Config, b.Sandbox, b.Image)
	p.Terminal = b.Config.GetTty()
	p.NoNewPrivileges = b.security.GetNoNewPrivs()
	// No rlimits are set: the container inherits the shim's, so nothing here
	// can fail for want of CAP_SYS_RESOURCE.
	switch {
	case b.Config.GetWorkingDir() != "":
		p.Cwd = b.Config.GetWorkingDir()
	case b.Image.WorkingDir != "":
		p.Cwd = b.Image.WorkingDir
	default:
		p.Cwd = "/"
	}
	if !strings.HasPrefix(p.Cwd, "/") {
		return fmt.Errorf("%w: the working directory %q is not an absolute path", ErrInvalid, p.Cwd)
	}
	return nil
}

// arguments joins command and args with the image's entrypoint and cmd: a
// command replaces both, args alone replace the cmd.
func arguments(c *runtimeapi.ContainerConfig, image ocispec.ImageConfig) ([]string, error) {
	command, args := c.GetCommand(), c.GetArgs()
	if len(command) == 0 {
		if len(args) == 0 {
			args = image.Cmd
		}
		command = image.Entrypoint
	}
	all := append(append([]string(nil), command...), args...)
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: no command specified: neither the container nor its image has one", ErrInvalid)
	}
	return all, nil
}

// environment is the image's, overlaid by the container's.
func environment(c *runtimeapi.ContainerConfig, sandbox *runtimeapi.PodSandboxConfig, image ocispec.ImageConfig) []string {
	env := &envList{at: map[string]int{}}
	env.set(defaultPath)
	if c.GetTty() {
		env.set("TERM=xterm")
	}
	if h := sandbox.GetHostname(); h != "" {
		env.set("HOSTNAME=" + h)
	}
	for _, e := range image.Env {
		env.set(e)
	}
	for _, e := range c.GetEnvs() {
		env.set(e.GetKey() + "=" + string(e.GetValue()))
	}
	return env.list
}

// envList keeps the last value of each variable, at the place of its first.
type envList struct {
	list []string
	at   map[string]int
}

func (l *envList) set(entry string) {
	name, _, _ := strings.Cut(entry, "=")
	if i, ok := l.at[name]; ok {
		l.list[i] = entry
		return
	}
	l.at[name] = len(l.list)
	l.list = append(l.list, entry)
}

// user resolves user and groups against /etc/passwd and /etc/group of the root
// filesystem, never following a link out of it.
func (b *builder) user(ctx context.Context) error {
	id, err := userString(b.security)
	if err != nil {
		return err
	}
	name := id
	if id == "" {
		name = b.Image.User
	}
	if name != "" {
		if err := b.apply(ctx, oci.WithUser(name)); err != nil {
			return fmt.Errorf("%w: resolve the user %q in the image: %w", ErrInvalid, name, err)
		}
	}
	if b.security.GetSupplementalGroupsPolicy() == runtimeapi.SupplementalGroupsPolicy_Merge {
		if err := b.apply(ctx, oci.WithAdditionalGIDs(primaryUser(b.security, b.Image))); err != nil {
			return fmt.Errorf("resolve the groups of user %q in the image: %w", name, err)
		}
	}
	u := &b.spec.Process.User
	u.AdditionalGids = appendMissing(u.AdditionalGids, u.GID)
	for _, g := range b.security.GetSupplementalGroups() {
		u.AdditionalGids = appendMissing(u.AdditionalGids, uint32(g))
	}
	return nil
}

// userString is "user[:group]" as the container asks for it, "" where it
// leaves the user to the image.
func userString(s *runtimeapi.LinuxContainerSecurityContext) (string, error) {
	var user, group string
	if s.GetRunAsUser() != nil {
		user = strconv.FormatInt(s.GetRunAsUser().GetValue(), 10)
	}
	if s.GetRunAsUsername() != "" {
		user = s.GetRunAsUsername()
	}
	if s.GetRunAsGroup() != nil {
		group = strconv.FormatInt(s.GetRunAsGroup().GetValue(), 10)
	}
	switch {
	case group == "":
		return user, nil
	case user == "":
		return "", fmt.Errorf("%w: user group is specified without user", ErrInvalid)
	}
	return user + ":" + group, nil
}

// primaryUser is the user whose group memberships count, without a group.
func primaryUser(s *runtimeapi.LinuxContainerSecurityContext, image ocispec.ImageConfig) string {
	switch {
	case s.GetRunAsUsername() != "":
		return s.GetRunAsUsername()
	case s.GetRunAsUser() != nil:
		return strconv.FormatInt(s.GetRunAsUser().GetValue(), 10)
	case image.User != "":
		user, _, _ := strings.Cut(image.User, ":")
		return user
	}
	return "0"
}

func appendMissing(gids []uint32, gid uint32) []uint32 {
	for _, g := range gids {
		if g == gid {
			return gids
		}
	}
	return append(gids, gid)
}
