package main

import (
	"path/filepath"
	"strconv"
	"time"

	"errand.dev/errand/test/ginkgosuite"
)

// suiteTimeout is for all tests together; [Slow] ones alone wait for five minutes.
const suiteTimeout = 3 * time.Hour

// ginkgoArgs has ginkgo run upstream's e2e.test against an errand.
func ginkgoArgs(s *ginkgosuite.Suite, procs int, kubeconfig string) []string {
	args := []string{
		"--procs", strconv.Itoa(procs), "--timeout", suiteTimeout.String(), "--no-color", "-v",
		"--output-dir", filepath.Dir(s.ReportPath()), "--json-report", filepath.Base(s.ReportPath()),
		"--focus", s.Focus.String(),
	}
	args = append(args, s.Skips("--skip")...)
	return append(args, filepath.Join(s.Tools, "e2e.test"), "--",
		"--kubeconfig", kubeconfig,
		"--kubectl-path", filepath.Join(s.Bin, "kubectl"),
		"--provider", "skeleton",
		// There are no DaemonSets to wait for, and no system pods.
		"--allowed-not-ready-nodes", "-1",
		"--minStartupPods", "-1",
		// Its logs are in the report's folder.
		"--disable-log-dump",
	)
}
