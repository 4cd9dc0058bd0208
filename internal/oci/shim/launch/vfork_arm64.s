#include "textflag.h"

// func vfork(args *cloneArgs, size uintptr) (pid, errno uintptr)
//
// The child comes back first, on the parent's stack. The return address is in a register, which is the thread's own.
TEXT ·vfork(SB),NOSPLIT|NOFRAME,$0-32
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	$435, R8	// clone3
	SVC
	CMN	$4095, R0
	BCC	born
	MOVD	ZR, pid+16(FP)
	NEG	R0, R0
	MOVD	R0, errno+24(FP)
	RET
born:
	MOVD	R0, pid+16(FP)
	MOVD	ZR, errno+24(FP)
	RET
