/*
 * nc of the image that stands in for agnhost: busybox's, and "nc -lU PATH", which
 * busybox hasn't: it listens on a Unix socket, for tests that want one to be there.
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int s;

	if (argc != 3 || strcmp(argv[1], "-lU") != 0) {
		execv("/bin/busybox", argv);
		return 127;
	}
	if (strlen(argv[2]) >= sizeof(address.sun_path)) {
		fprintf(stderr, "nc: %s: too long for a socket\n", argv[2]);
		return 1;
	}
	strcpy(address.sun_path, argv[2]);
	s = socket(AF_UNIX, SOCK_STREAM, 0);
	if (s < 0 || bind(s, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(s, 1) != 0) {
		perror("nc");
		return 1;
	}
	accept(s, NULL, NULL);
	return 0;
}
