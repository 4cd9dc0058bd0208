package server

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProgramRanges(t *testing.T) {
	const maps = `00400000-03d76000 r-xp 00000000 fe:00 9986177                            /usr/local/bin/errand
03d76000-0814a000 r--p 03976000 fe:00 9986177                            /usr/local/bin/errand
0814a000-08298000 rw-p 07d4a000 fe:00 9986177                            /usr/local/bin/errand
1f58d400000-1f591400000 rw-p 00000000 00:00 0
7f46618fc000-7f4661d00000 r--s 00000000 fe:00 12                         /var/lib/errand/etcd/member/snap/db
7f4661d00000-7f4661d01000 r--p 00000000 fe:00 13                         /usr/lib/x86_64-linux-gnu/libc.so.6
7ffd3a1d2000-7ffd3a1d4000 r-xp 00000000 00:00 0                          [vdso]
`
	want := []addressRange{{0x400000, 0x3d76000}, {0x3d76000, 0x814a000}}
	got := programRanges([]byte(maps), "/usr/local/bin/errand")
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(addressRange{})); diff != "" {
		t.Errorf("ranges (-want +got):\n%s", diff)
	}
}

// The program goes on after its pages have gone, with fewer of them.
func TestSettle(t *testing.T) {
	before := fileBackedKB(t)
	if err := settle(); err != nil {
		t.Fatal(err)
	}
	if after := fileBackedKB(t); after >= before {
		t.Errorf("%d KiB of files are mapped, %d before", after, before)
	}
}

func fileBackedKB(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "RssFile:")
	if !ok {
		t.Fatalf("no RssFile in:\n%s", b)
	}
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
