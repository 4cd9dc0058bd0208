package cli

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"errand.dev/errand/internal/cli/controller"
	"errand.dev/errand/internal/server"
)

// docs/configuration.md has every setting of errand serve, and no other.
func TestTheManualHasEverySetting(t *testing.T) {
	manual := wantFlags(t, "../../docs/configuration.md", newServe())
	for _, field := range yamlFields("", reflect.TypeFor[server.Options]()) {
		if !strings.Contains(manual, "| `"+field+"` |") {
			t.Errorf("it lacks the field %s", field)
		}
	}
}

// docs/controller.md has every one of errand controller, and no other.
func TestTheControllersManualHasEverySetting(t *testing.T) {
	wantFlags(t, "../../docs/controller.md", controller.New())
}

// docs/cri.md has every one of errand cri, and no other.
func TestTheRuntimesManualHasEverySetting(t *testing.T) {
	wantFlags(t, "../../docs/cri.md", newCRI())
}

// wantFlags compares a command's flags with the table in its manual, which it
// returns.
func wantFlags(t *testing.T, path string, cmd *cobra.Command) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	manual := string(b)
	var flags []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { flags = append(flags, "--"+f.Name) })
	for _, flag := range flags {
		if flag != "--help" && !strings.Contains(manual, "`"+flag+"` |") {
			t.Errorf("it lacks %s", flag)
		}
	}
	if rows := strings.Count(manual, "\n| `-"); rows != len(flags) {
		t.Errorf("it has %d flags, %s has %d", rows, cmd.Name(), len(flags))
	}
	return manual
}

// yamlFields lists the names of a struct's fields in a file.
func yamlFields(at string, typ reflect.Type) []string {
	var names []string
	for i := range typ.NumField() {
		f := typ.Field(i)
		name := at + f.Tag.Get("yaml")
		if f.Type.Kind() == reflect.Struct {
			names = append(names, yamlFields(name+".", f.Type)...)
			continue
		}
		names = append(names, name)
	}
	return names
}
