/*
 * /bin/sh of the images that stand in for upstream's: busybox's, but that a command
 * of one word is run without it.
 *
 * busybox's shell takes the environment apart into variables and drops what can't be
 * one's name, such as data-1. Kubernetes allows such names, and upstream's tests run
 * "sh -c env" to see them: a shell that keeps them would do no more than to run env.
 */
#include <string.h>
#include <unistd.h>

#define BUSYBOX "/bin/busybox"

static const char word[] = "abcdefghijklmnopqrstuvwxyz0123456789-_";

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "-c") == 0 && argv[2][0] != '\0' && argv[2][strspn(argv[2], word)] == '\0')
		execlp(argv[2], argv[2], (char *)NULL); /* one of the shell's own if this returns */
	argv[0] = "sh";
	execv(BUSYBOX, argv);
	return 127;
}
