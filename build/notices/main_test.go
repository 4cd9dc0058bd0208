package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

func notices(t *testing.T, runc string) string {
	t.Helper()
	var b bytes.Buffer
	if err := run(&b, runc, []string{"errand.dev/errand/cmd/errand-shim"}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGosOwnLicenceIsThere(t *testing.T) {
	version, err := exec.Command("go", "env", "GOVERSION").Output()
	if err != nil {
		t.Fatal(err)
	}
	got := notices(t, "")
	for _, want := range []string{"library and runtime " + strings.TrimSpace(string(version)), "The Go Authors", "golang.org/x/sys v"} {
		if !strings.Contains(got, want) {
			t.Errorf("the notices lack %q", want)
		}
	}
	if strings.Contains(got, "libseccomp") {
		t.Error("without runc, they speak of its libraries")
	}
}

func TestRuncBringsItsModulesAndLibraries(t *testing.T) {
	got := notices(t, "../runc")
	for _, want := range []string{"github.com/opencontainers/runc v", "github.com/seccomp/libseccomp-golang v", "libseccomp, LGPL-2.1", "the GNU C Library, LGPL-2.1 or later"} {
		if !strings.Contains(got, want) {
			t.Errorf("the notices lack %q", want)
		}
	}
}

func TestCLibraries(t *testing.T) {
	got := cLibraries(func(pkg string) (string, string) {
		if pkg == "libc6-dev" {
			return "2.36-9", "glibc=2.36-9"
		}
		return "", ""
	})
	for _, want := range []string{
		"from Debian's package libc6-dev 2.36-9.\n  Source: apt-get source glibc=2.36-9, or https://snapshot.debian.org/package/glibc/2.36-9/\n",
		"libseccomp, LGPL-2.1. It isn't Debian's",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("it doesn't say %q:\n%s", want, got)
		}
	}
}
