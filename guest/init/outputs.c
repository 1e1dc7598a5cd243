/*
 * The application's standard output and error, where they are not the console itself: a pipe each, as a container's
 * have always been, from which the first goes to a virtio-serial port and the second to the console; or one pipe for
 * both, where the host has one file for both.
 *
 * To a port goes one piece at a time. A write does not wait for the host, nor does it tell later whether the host has
 * taken what was written, but the port wakes whoever watches it when the host has taken something: with one piece on
 * its way, that one. So the machine ends with nothing of it lost, however slow its reader is.
 */
#include "init.h"

#define PATIENCE_MS 600000 /* with a reader who pauses, as of a pager */
#define PIECE 32768 /* a port takes no more at once */

struct output {
	long source; /* the pipe; -1 where there is none, or nobody reads what comes from it */
	long sink;
	bool is_port;
	bool ready; /* the port takes the next piece */
	bool on_its_way; /* the host has not taken the last piece yet */
	char *waiting;
	size_t start, end;
};

static char buffers[2][PIECE];
static struct output outputs[2] = {
	{ .source = -1, .sink = -1, .waiting = buffers[0] },
	{ .source = -1, .sink = -1, .waiting = buffers[1] },
};

/* Make the pipe. Returns the application's end, -1 without one. */
static long connect(struct output *output, long sink)
{
	int ends[2];

	if (sink < 0 || call(pipe2, ends, O_CLOEXEC) < 0)
		return -1;
	call(fcntl, ends[0], F_SETFL, O_RDONLY | O_NONBLOCK);
	output->source = ends[0];
	output->sink = sink;
	return ends[1];
}

void open_outputs(long *out, long *error)
{
	const char *wanted = config_value("stdout", NULL);

	*out = *error = -1;
	if (!wanted)
		return;
	outputs[0].is_port = true;
	*out = connect(&outputs[0], open_port(wanted, O_WRONLY));
	if (*out < 0)
		say("no virtio-serial port `%s`: the application's output goes to the console", wanted);
	else if (equal(config_value("stderr", ""), "stdout"))
		*error = *out;
	else
		*error = connect(&outputs[1],
				 call(openat, AT_FDCWD, "/dev/console", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
}

void watch_outputs(long epoll)
{
	for (size_t i = 0; i < ARRAY_SIZE(outputs); i++) {
		watch(epoll, outputs[i].source, EPOLLIN | EPOLLET);
		watch(epoll, outputs[i].sink, EPOLLOUT | EPOLLET);
	}
}

/* Fill the empty buffer, as far as there is something. */
static void take(struct output *output)
{
	long n = call(read, output->source, output->waiting, PIECE);

	output->start = 0;
	output->end = n > 0 ? (size_t)n : 0;
}

/* False where the sink takes no more for now. */
static bool give(struct output *output)
{
	long n;

	if (output->is_port && !output->ready)
		return false;
	n = call(write, output->sink, output->waiting + output->start, output->end - output->start);
	if (n <= 0)
		return false;
	output->start += (size_t)n;
	output->ready = false;
	output->on_its_way = output->is_port;
	return true;
}

/* Pass on what there is. Returns whether some of it has not been taken yet. */
static bool pass(struct output *output)
{
	if (output->source < 0)
		return false;
	for (;;) {
		if (output->start == output->end)
			take(output);
		if (output->start == output->end)
			return output->on_its_way;
		if (!give(output))
			return true;
	}
}

bool pass_outputs(long file, uint32_t events)
{
	bool left = false;

	for (size_t i = 0; i < ARRAY_SIZE(outputs); i++) {
		if (outputs[i].sink == file && events & EPOLLOUT) {
			outputs[i].ready = true;
			outputs[i].on_its_way = false;
		}
		left |= pass(&outputs[i]);
	}
	return left;
}

/* Nobody reads on the host: the application is to hear of it by its next write, as of any pipe. */
void close_output(void)
{
	call(close, outputs[0].source);
	outputs[0].source = -1;
}

/* A sink has room again once the host has taken something. */
static bool has_taken(const struct epoll_event *event)
{
	for (size_t i = 0; i < ARRAY_SIZE(outputs); i++)
		if (outputs[i].sink == (long)event->data && event->events & EPOLLOUT)
			return true;
	return false;
}

void drain_outputs(long epoll)
{
	struct patience patience = { .ms = PATIENCE_MS };
	struct epoll_event event = { 0 };
	int left = patience_left(&patience, true);

	while (left > 0 && pass_outputs((long)event.data, event.events)) {
		if (call(epoll_pwait, epoll, &event, 1, left, 0, 0) <= 0)
			event.events = 0;
		left = patience_left(&patience, has_taken(&event));
	}
}
