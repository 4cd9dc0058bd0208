// Package seccompbpf compiles the seccomp profile of an OCI runtime
// configuration to the classic-BPF program that seccomp(2) loads, without
// libseccomp: a profile is compiled once, in a fraction of a millisecond, and
// loaded for every container that has it.
//
// What a program decides is what runc 1.5 with libseccomp decides for the same
// profile; how it gets there is its own: a binary search over intervals of
// system call numbers, arguments loaded only for the calls whose rules look at
// them. In particular:
//
//   - A rule's name that no architecture of the machine has is ignored.
//   - A rule whose action is the default one is ignored.
//   - The arguments of a rule all have to match, unless two are of the same
//     index: then each is a rule of its own.
//   - Of several rules for a call, the first without arguments decides alone.
//   - Values are 64 bits wide, and on 32-bit architectures (x32 is one) only
//     their lower halves are looked at.
//   - Where 32-bit x86 multiplexes calls through socketcall(2) and ipc(2), a
//     rule holds for both ways in. Behind socketcall the first argument, which
//     then is the number of the call, can't be looked at.
//   - Calls beyond the last that the profile names get ENOSYS, so that programs
//     fall back to older ones, unless the default action lets calls through.
//   - Calls of an architecture that isn't in the profile end their thread. The
//     machine's own architecture is always in it.
//
// Rules decide by what they say: libseccomp 2.5.4 gets some mixtures of ordering
// comparisons for one 64-bit argument wrong, and isn't followed in that.
//
// What it doesn't take (notifications, rules of different actions that overlap,
// machines other than amd64 and arm64) is an *Unsupported error, and so is what
// isn't valid: the OCI runtime has the last word on both.
//
// The numbers of system calls stand in syscalls.csv, which gensyscalls writes.
// They are golang.org/x/sys's, which follow the kernel's releases by some
// weeks, so this table often knows more names than a host's libseccomp. The
// tables of github.com/elastic/go-seccomp-bpf would serve but for x32 and ARM's
// private calls, which they lack, and for being some kernels behind; and 450
// lines of text cost no start-up time, which maps in Go would.
package seccompbpf

//go:generate go run ./gensyscalls
