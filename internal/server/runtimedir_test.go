package server

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Others may go through the runtime directory, and neither see nor change anything in it.
func TestRuntimeDir(t *testing.T) {
	for name, tc := range map[string]struct {
		make func(path string) error
		ok   bool
	}{
		"none":                   {func(string) error { return nil }, true},
		"as it is made":          {func(p string) error { return os.Mkdir(p, 0o711) }, true},
		"of an older errand":     {func(p string) error { return os.Mkdir(p, 0o700) }, true},
		"others can list it":     {func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.Chmod(p, 0o755)) }, false},
		"others can write to it": {func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.Chmod(p, 0o733)) }, false},
		"a file":                 {func(p string) error { return os.WriteFile(p, nil, 0o600) }, false},
		"a link":                 {func(p string) error { return os.Symlink(os.TempDir(), p) }, false},
	} {
		path := filepath.Join(t.TempDir(), "run")
		if err := tc.make(path); err != nil {
			t.Fatal(err)
		}
		err := makeRuntimeDir(path, false)
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
		if !tc.ok {
			continue
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o711 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
}
