package shimapi

// Pause is the argument with which errand-shim, run as a program of its own, does nothing but reap: as the first process of a
// PID namespace that a pod's containers share.
const Pause = "pause"

// ExitRunning is errand-shim's exit code where another one lives on the directory, which may not serve yet.
const ExitRunning = 3
