/*
 * The application's standard input, where it is not the console: nothing, or what comes by a virtio-serial port.
 *
 * From the port it goes through a pipe, as a container's has always been one: a port can be opened by one alone, so
 * that `cat /dev/stdin` would fail, and it gives its end by being "not connected", which it also is at first.
 *
 * The host connects when it makes the port, and disconnects when its input has ended; it does not read that before
 * the port is open here. So the news that it has connected is on its way once the port is open, and to see nobody
 * there means "not yet" for a moment, and after that, or once somebody was there, the end.
 */
#include "init.h"

#define PATIENCE_MS 1000
#define ROUNDS 16 /* so that a flood does not keep signals out */

static long port = -1, sink = -1;
static bool connected;
static int64_t deadline;
static char waiting[16384]; /* what the application has not taken yet */
static size_t start, end;

long open_stdin(void)
{
	const char *wanted = config_value("stdin", NULL);
	int ends[2];

	if (!wanted)
		return -1;
	if (!equal(wanted, "null")) {
		port = open_port(wanted, O_RDONLY);
		if (port >= 0 && call(pipe2, ends, O_CLOEXEC) == 0) {
			sink = ends[1];
			call(fcntl, sink, F_SETFL, O_WRONLY | O_NONBLOCK);
			deadline = now_ms() + PATIENCE_MS;
			return ends[0];
		}
		say("no virtio-serial port `%s`: the application gets no standard input", wanted);
	}
	return call(openat, AT_FDCWD, "/dev/null", O_RDONLY | O_CLOEXEC);
}

void watch_stdin(long epoll)
{
	watch(epoll, port, EPOLLIN | EPOLLET);
	watch(epoll, sink, EPOLLOUT | EPOLLET);
}

static void finish(void)
{
	call(close, port);
	call(close, sink);
	port = sink = -1;
}

/* Fill the empty buffer. Where nothing came, *wait says for how long that may mean nothing. */
static bool take(int *wait)
{
	long n = call(read, port, waiting, sizeof(waiting));
	int64_t left = deadline - now_ms();

	*wait = -1;
	start = 0;
	end = n > 0 ? (size_t)n : 0;
	if (n > 0 || n == -EAGAIN)
		connected = true;
	else if (n == 0 && !connected && left > 0)
		*wait = (int)left;
	else
		finish();
	return n > 0;
}

/* False where the pipe is full, or nobody reads it any more. */
static bool give(void)
{
	long n = call(write, sink, waiting + start, end - start);

	if (n > 0)
		start += (size_t)n;
	else if (n != -EAGAIN)
		finish();
	return n > 0;
}

int pass_stdin(void)
{
	int wait = -1;

	for (int round = 0; round < ROUNDS; round++)
		if (port < 0 || (start == end && !take(&wait)) || !give())
			return wait;
	return 0;
}
