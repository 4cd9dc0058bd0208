package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/cri/namespace"
	"errand.dev/errand/internal/cri/network"
	"errand.dev/errand/internal/instance"
)

// anyPort is free in a network namespace of one's own, as all are.
const anyPort = 7443

// errNoNamespace says that there is no network namespace to try in.
var errNoNamespace = errors.New("can't make a network namespace")

// podNetwork makes a pod network as errand serve does, bridge, firewall table
// and a pod's veth, in a network namespace that goes with it.
func podNetwork(ctx context.Context, h Host) Finding {
	if os.Geteuid() != 0 {
		return warn("run errand doctor as root", "can't try without root")
	}
	names, err := instance.For(h.DataDir)
	if err != nil {
		return fail("name another --data-dir", "%v", err)
	}
	// On a thread that ends, and with it the namespace. The first thread doesn't: what reads /proc/net afterwards would see this one.
	switch err := namespace.OnThread(func() error { return tryNetwork(ctx, names) }); {
	case errors.Is(err, errNoNamespace):
		return fail("run it where network namespaces may be made; in a container, privileged", "%v", err)
	case err != nil:
		return fail("load the modules (modprobe -a bridge veth nf_tables nft_chain_nat nft_masq), or use a kernel built with them", "%v", err)
	}
	return ok("bridge, veth and nftables work")
}

// tryNetwork leaves the calling thread in another network namespace.
func tryNetwork(ctx context.Context, names instance.Names) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("%w: %w", errNoNamespace, err)
	}
	dir, err := os.MkdirTemp("", "errand-doctor-")
	if err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	defer os.RemoveAll(dir)
	m, err := network.New(ctx, network.Config{
		Bridge: names.Bridge, Table: names.NFTable, StateDir: filepath.Join(dir, "state"), APIPort: anyPort,
	})
	if err != nil {
		return err
	}
	return errors.Join(tryVeth(names.Bridge), tryAPI(ctx, m), m.Destroy())
}

// tryAPI listens as the API does for pods, on one interface alone.
func tryAPI(ctx context.Context, m *network.Manager) error {
	l, err := m.ListenAPI(ctx)
	if err != nil {
		return err
	}
	return l.Close()
}

func tryVeth(bridge string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = network.VethName(bridge, "doctor")
	master, err := netlink.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find the bridge %s: %w", bridge, err)
	}
	attrs.MasterIndex = master.Attrs().Index
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0"}); err != nil {
		return fmt.Errorf("make a veth on the bridge: %w", err)
	}
	return nil
}
