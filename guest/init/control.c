/*
 * The control port, a virtio-serial port: lines, both ways. In: `signal N`, `size ROWS COLUMNS` of the terminal,
 * `closed` where nobody reads standard output any more.
 * Out: `started`, `panics` where the monitor would be told of one, `exit STATUS`.
 *
 * Nobody may be connected on the host, ever or for a while: nothing here waits for long, and what could not be said
 * is said when somebody connects.
 */
#include "init.h"

#define SIGNAL_MAX 64

static long port = -1;
static char waiting[256]; /* what the host has not taken yet */
static size_t waiting_length;

long open_control_port(void)
{
	const char *wanted = config_value("control", NULL);

	if (!wanted)
		return -1;
	port = open_port(wanted, O_RDWR);
	if (port < 0)
		say("no virtio-serial port `%s`: signals will not reach the application", wanted);
	return port;
}

void control_resume(void)
{
	long n;

	if (port < 0 || waiting_length == 0)
		return;
	n = call(write, port, waiting, waiting_length);
	if (n <= 0)
		return;
	waiting_length -= (size_t)n;
	memmove(waiting, waiting + n, waiting_length);
}

void control_say(const char *line, uint64_t number)
{
	char text[64], digits[24] = "";

	if (line[strlen(line) - 1] == ' ')
		format_number(digits, number);
	join(text, sizeof(text), line, digits, "\n");
	if (waiting_length + strlen(text) <= sizeof(waiting)) {
		memcpy(waiting + waiting_length, text, strlen(text));
		waiting_length += strlen(text);
	}
	control_resume();
}

/* Do what a line says; return the signal to pass on, or 0. */
static int take_line(const char *line)
{
	uint64_t number;

	if (equal(line, "closed"))
		close_output();
	if (starts_with(line, "size "))
		resize_console(line + strlen("size "));
	if (starts_with(line, "signal ") && parse_number(line + strlen("signal "), SIGNAL_MAX, &number))
		return (int)number;
	return 0;
}

/* One signal a call, 0 where there is none; a line that is too long, or none of ours, is dropped. */
int control_read(void)
{
	static char line[64];
	static size_t length;
	int signal;
	char c;

	while (port >= 0 && call(read, port, &c, 1) == 1) {
		if (c != '\n') {
			if (length < sizeof(line) - 1)
				line[length++] = c;
			continue;
		}
		line[length] = '\0';
		length = 0;
		signal = take_line(line);
		if (signal)
			return signal;
	}
	return 0;
}

/*
 * The end of the machine follows, and a host whose processors are busy may see that before it takes what was said,
 * for which a write does not wait. Closing does: the kernel waits until the host has heard of it, on another queue,
 * and when it looks at that one it looks at both.
 */
void control_close(void)
{
	if (port >= 0)
		call(close, port);
	port = -1;
}
