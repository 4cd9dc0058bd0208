package ginkgoreport

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

func TestExclusionsFitNamesAlone(t *testing.T) {
	for _, tc := range []struct {
		e    Exclusion
		name string
		want bool
	}{
		{Exclusion{Begins: "[sig-apps] Job should (not) do"}, "[sig-apps] Job should (not) do this [Slow]", true},
		{Exclusion{Begins: "[sig-apps] Job should (not) do"}, "[sig-apps] Job should do", false},
		{Exclusion{Begins: "[sig-node] ", Has: "[Feature:X]"}, "[sig-node] Pods [Feature:X] should", true},
		{Exclusion{Begins: "[sig-node] ", Has: "[Feature:X]"}, "[sig-node] Pods [Feature:XY] should", false},
		{Exclusion{Begins: "[sig-node] ", Has: "[Feature:X]"}, "[sig-storage] Pods [Feature:X] should", false},
		{Exclusion{Has: "[Provider:"}, "[sig-node] crictl [Provider:gce] should", true},
	} {
		if got := tc.e.Fits(tc.name); got != tc.want {
			t.Errorf("%q fits %q: %v", tc.e.Name(), tc.name, got)
		}
		if got := regexp.MustCompile(tc.e.Pattern()).MatchString("Kubernetes e2e suite " + tc.name); got != tc.want {
			t.Errorf("%s matches %q: %v", tc.e.Pattern(), tc.name, got)
		}
	}
}

// What a machine lacks takes tests out of scope there and nowhere else.
func TestExclusionsOfSomeMachines(t *testing.T) {
	always := Exclusion{Begins: "a"}
	here := Exclusion{Begins: "b", Lacks: func() string { return "a disk" }}
	elsewhere := Exclusion{Begins: "c", Lacks: func() string { return "" }}
	x := Exclusions{always, here, elsewhere}
	for name, want := range map[string]bool{"a": true, "b": true, "c": false, "d": false} {
		if got := x.Of(name); (got != nil) != want {
			t.Errorf("%s is taken out of scope by %v", name, got)
		}
	}
	if got, want := x.Args("--skip"), []string{"--skip", always.Pattern(), "--skip", here.Pattern()}; !slices.Equal(got, want) {
		t.Errorf("arguments %q, want %q", got, want)
	}
}

func TestCheckTable(t *testing.T) {
	const head = "| tests | why |"
	page := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(page, []byte("# Page\n\n"+head+"\n|---|---|\n| a … | one |\n| b … c | two |\n\nMore.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	a, b := Exclusion{Begins: "a ", Why: "one"}, Exclusion{Begins: "b ", Has: "c", Why: "two"}
	if err := (Exclusions{a, b}).CheckTable(page, head); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"a row too many": Exclusions{a}.CheckTable(page, head),
		"one too few":    Exclusions{a, b, a}.CheckTable(page, head),
		"another order":  Exclusions{b, a}.CheckTable(page, head),
		"no such table":  Exclusions{a, b}.CheckTable(page, "| test | why |"),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
