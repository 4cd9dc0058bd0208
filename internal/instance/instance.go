// Package instance derives the names of everything an errand puts on its host
// outside the data directory: runtime directory, cgroup, bridge, nftables table.
//
// It owns names only; it creates nothing. All names follow from the path of the
// data directory, so that several errands can share a machine without meeting
// and so that a restarted errand finds what its predecessor left running.
package instance

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// DefaultDataDir is the data directory of the machine's main errand.
const DefaultDataDir = "/var/lib/errand"

// runtimeRoot holds runtime directories: for root /run, a tmpfs on every
// common distribution, so that what stands in it ends with the boot, as the
// processes do that it describes; for others what pam_systemd gives them for
// the same end.
func runtimeRoot() string {
	if os.Geteuid() == 0 {
		return "/run"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return dir
	}
	return os.TempDir()
}

// Names are an instance's names on the host.
type Names struct {
	// ID tells instances on one machine apart: "errand" for DefaultDataDir,
	// "errand-" and six hexadecimal digits for any other.
	ID string
	// RuntimeDir holds sockets, pinned namespaces and the shim's state. It is
	// short, because a unix socket's path may have at most 107 bytes.
	RuntimeDir string
	// CgroupParent is the cgroup, from the root of each hierarchy, below which
	// all pods' cgroups stand.
	CgroupParent string
	// Bridge is the network interface that joins the pods, at most 15 bytes
	// (IFNAMSIZ).
	Bridge string
	// NFTable is the name of the nftables table.
	NFTable string
}

// For returns the names of the instance whose data directory is dataDir. A
// relative path is taken from the working directory; symbolic links are
// followed where they exist, so that two spellings of one directory agree.
func For(dataDir string) (Names, error) {
	path, err := canonical(dataDir)
	if err != nil {
		return Names{}, fmt.Errorf("data directory %q: %w", dataDir, err)
	}
	id, bridge := "errand", "errand0"
	if path != DefaultDataDir {
		sum := sha256.Sum256([]byte(path))
		tag := hex.EncodeToString(sum[:3])
		id, bridge = "errand-"+tag, "er-"+tag
	}
	return Names{
		ID:           id,
		RuntimeDir:   filepath.Join(runtimeRoot(), id),
		CgroupParent: "/" + id,
		Bridge:       bridge,
		NFTable:      id,
	}, nil
}

// canonical resolves the longest existing prefix of path, so that the result
// is the same before and after the directory has been made.
func canonical(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	rest := ""
	for dir := abs; ; dir = filepath.Dir(dir) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest), nil
		}
		if dir == "/" {
			return abs, nil
		}
		rest = filepath.Join(filepath.Base(dir), rest)
	}
}
