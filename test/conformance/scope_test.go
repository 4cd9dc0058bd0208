package main

import (
	"encoding/json"
	"os/exec"
	"testing"

	"errand.dev/errand/test/ginkgoreport"
)

// People read of the same tests and reasons, and of no others.
func TestDocumentationTellsTheScope(t *testing.T) {
	for head, told := range map[string]ginkgoreport.Exclusions{
		"| tests | why they are out of scope |":               outOfScope.Everywhere(),
		"| tests | what they do that not every machine can |": outOfScope.SomeMachines(),
	} {
		if err := told.CheckTable("../../docs/conformance.md", head); err != nil {
			t.Error(err)
		}
	}
}

// What both modules need has the same version in both: then what is tested with is what is served, and Go compiles it once.
func TestUpstreamsModuleHasOurVersions(t *testing.T) {
	ours, theirs := moduleOf(t, "../../go.mod"), moduleOf(t, "upstream/go.mod")
	for path, version := range theirs.versions {
		if our, ok := ours.versions[path]; ok && our != version {
			t.Errorf("test/conformance/upstream/go.mod has %s %s, go.mod has %s: run go get %s@%s in test/conformance/upstream", path, version, our, path, our)
		}
	}
	for path, version := range ours.replaced {
		if theirs.replaced[path] != version {
			t.Errorf("go.mod replaces %s by %s, test/conformance/upstream/go.mod by %q", path, version, theirs.replaced[path])
		}
	}
}

type module struct {
	versions, replaced map[string]string
}

func moduleOf(t *testing.T, path string) module {
	t.Helper()
	out, err := exec.Command("go", "mod", "edit", "-json", path).Output()
	if err != nil {
		t.Fatalf("go mod edit -json %s: %v", path, err)
	}
	type version struct{ Path, Version string }
	var read struct {
		Require []version
		Replace []struct{ Old, New version }
	}
	if err := json.Unmarshal(out, &read); err != nil {
		t.Fatal(err)
	}
	m := module{versions: map[string]string{}, replaced: map[string]string{}}
	for _, r := range read.Require {
		m.versions[r.Path] = r.Version
	}
	for _, r := range read.Replace {
		m.replaced[r.Old.Path] = r.New.Path + " " + r.New.Version
	}
	// What a replacement names counts for both alike.
	for path := range m.replaced {
		delete(m.versions, path)
	}
	return m
}
