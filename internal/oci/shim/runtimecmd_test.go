package shim

import (
	"os"
	"path/filepath"
	"testing"

	"errand.dev/errand/internal/oci/shimapi"
)

func TestRuntimeError(t *testing.T) {
	const head = `{"level":"info","msg":"container setup","time":"x"}` + "\n" + `{"level":"warning","msg":"exec: \"w\" is only a warning"}` + "\n"
	for name, tc := range map[string]struct {
		cmd, log string
		code     shimapi.Code
		want     string
	}{
		"runc, no such command": {
			"run", head + `{"level":"error","msg":"runc run failed: unable to start container process: error during container init: exec: \"x\": executable file not found in $PATH","time":"t"}`,
			shimapi.CodeStart, `OCI runtime create failed: runc run failed: unable to start container process: error during container init: exec: "x": executable file not found in $PATH`,
		},
		"runc, mount": {
			"run", head + `{"level":"error","msg":"runc run failed: error mounting \"/a\""}` + "\n",
			shimapi.CodeRuntime, `OCI runtime create failed: runc run failed: error mounting "/a"`,
		},
		"runc, working directory": {
			"run", `{"level":"error","msg":"runc run failed: chdir to cwd (\"/x\") set in config.json failed: permission denied"}`,
			shimapi.CodeStart, `OCI runtime create failed: runc run failed: chdir to cwd ("/x") set in config.json failed: permission denied`,
		},
		"crun, no such command": {
			"run", "{\"msg\":\"executable file `x` not found in $PATH: No such file or directory\",\"level\":\"error\"}",
			shimapi.CodeStart, "OCI runtime create failed: run: executable file `x` not found in $PATH: No such file or directory",
		},
		"exec": {
			"exec", `{"level":"error","msg":"runc exec failed: exec: \"x\": permission denied"}`,
			shimapi.CodeStart, `OCI runtime exec failed: runc exec failed: exec: "x": permission denied`,
		},
		"several errors": {"run", `{"level":"error","msg":"runc first"}` + "\n" + `{"level":"error","msg":"runc last"}`, shimapi.CodeRuntime, "OCI runtime create failed: runc last"},
		"runc, of an exec": {
			"exec", `{"level":"error","msg":"exec failed: unable to start container process: exec: \"x\": permission denied"}`,
			shimapi.CodeStart, `OCI runtime exec failed: exec failed: unable to start container process: exec: "x": permission denied`,
		},
		"not JSON, killed": {"update", "panic\n", shimapi.CodeRuntime, "OCI runtime update failed: update: the runtime was killed or failed without a message"},
	} {
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(log, []byte(tc.log), 0o600); err != nil {
				t.Fatal(err)
			}
			err := runtimeError(tc.cmd, log)
			if e, ok := err.(*shimapi.Error); !ok || e.Code != tc.code || e.Message != tc.want {
				t.Errorf("got %#v\nwant %s: %s", err, tc.code, tc.want)
			}
		})
	}
}
