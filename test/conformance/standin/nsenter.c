/*
 * nsenter of the image that stands in for agnhost: busybox's, and what upstream's
 * tests do on the node, "nsenter --mount=NAMESPACE -- COMMAND...", with the node's own
 * programs: busybox would take its own of the same names.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MOUNT "--mount="

int main(int argc, char **argv)
{
	int ns;

	if (argc < 4 || strncmp(argv[1], MOUNT, strlen(MOUNT)) != 0 || strcmp(argv[2], "--") != 0) {
		execv("/bin/busybox", argv);
		return 127;
	}
	ns = open(argv[1] + strlen(MOUNT), O_RDONLY | O_CLOEXEC);
	if (ns < 0 || setns(ns, CLONE_NEWNS) != 0) {
		perror(argv[1]);
		return 1;
	}
	execvp(argv[3], argv + 3);
	perror(argv[3]);
	return 127;
}
