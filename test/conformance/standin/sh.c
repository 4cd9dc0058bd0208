/*
 * /bin/sh of the images that stand in for upstream's: busybox's, but that a command
 * of plain words is run without it.
 *
 * busybox's shell takes the environment apart into variables and drops what can't be
 * one's name, such as data-1, and it prefers its own commands to the image's. Upstream's
 * tests run "sh -c env" to see such names, and "sh -c 'nc -lU PATH'" for an nc that isn't
 * busybox's. Another shell would do no more than to run them.
 */
#include <string.h>
#include <unistd.h>

#define WORDS 32

static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./: ";

static void run(const char *command)
{
	static char copy[4096];
	char *words[WORDS + 1];
	int n = 0;

	if (strlen(command) >= sizeof(copy) || command[strspn(command, plain)] != '\0')
		return;
	strcpy(copy, command);
	for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " ")) {
		if (n == WORDS)
			return;
		words[n++] = word;
	}
	words[n] = NULL;
	if (n > 0)
		execvp(words[0], words); /* it returns for what only a shell has */
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "-c") == 0)
		run(argv[2]);
	execv("/bin/busybox", argv);
	return 127;
}
