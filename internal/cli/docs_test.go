package cli

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"errand.dev/errand/internal/server"
)

// docs/configuration.md has every setting, and no other.
func TestTheManualHasEverySetting(t *testing.T) {
	b, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(b)
	var flags, fields []string
	newServe().Flags().VisitAll(func(f *pflag.Flag) { flags = append(flags, "--"+f.Name) })
	for _, flag := range flags {
		if flag != "--help" && !strings.Contains(manual, "`"+flag+"` |") {
			t.Errorf("it lacks %s", flag)
		}
	}
	fields = yamlFields("", reflect.TypeFor[server.Options]())
	for _, field := range fields {
		if !strings.Contains(manual, "| `"+field+"` |") {
			t.Errorf("it lacks the field %s", field)
		}
	}
	rows := strings.Count(manual, "\n| `-")
	if rows != len(flags) {
		t.Errorf("it has %d flags, errand serve has %d", rows, len(flags))
	}
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
