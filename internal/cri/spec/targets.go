package spec

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Target is a place in a container's root where something is going to be mounted.
type Target struct {
	Path string
	// File: a file is mounted there, else a directory.
	File bool
}

// Targets tells where Build is going to have something mounted in the container's root itself, in the order of their
// paths; not what is mounted in other mounts. It needs Config and Files only. It is for making these places in time, and
// leaves out what it can't tell the kind of.
func Targets(in Input) []Target {
	b := &builder{Input: in}
	var all []Target
	unknown := map[string]bool{}
	for _, m := range b.Config.GetMounts() {
		t := Target{Path: filepath.Clean(m.GetContainerPath())}
		st, err := os.Stat(m.GetHostPath())
		switch {
		case m.GetImage().GetImage() != "":
			unknown[t.Path] = m.GetImageSubPath() != ""
		case err == nil:
			t.File = !st.IsDir()
		case !errors.Is(err, fs.ErrNotExist): // else Build makes a directory
			unknown[t.Path] = true
		}
		all = append(all, t)
	}
	for _, m := range append(b.usualMounts(), b.sandboxFiles()...) {
		if !slices.ContainsFunc(all, func(own Target) bool { return own.Path == m.Destination }) {
			// The one that is bound and no file, /dev/shm, is in another mount.
			all = append(all, Target{Path: m.Destination, File: m.Type == "bind"})
		}
	}
	slices.SortFunc(all, func(x, y Target) int { return strings.Compare(x.Path+"/", y.Path+"/") })
	var targets []Target
	covered := "" // the last place in the root itself, with a slash
	for _, t := range all {
		if !filepath.IsAbs(t.Path) || t.Path == "/" || covered != "" && strings.HasPrefix(t.Path+"/", covered) {
			continue
		}
		covered = t.Path + "/"
		if !unknown[t.Path] {
			targets = append(targets, t)
		}
	}
	return targets
}
