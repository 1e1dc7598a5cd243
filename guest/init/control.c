/*
 * The control port, a virtio-serial port: lines, both ways. In: `signal N`, `size ROWS COLUMNS` of the terminal.
 * Out: `started`, `panics` where the monitor would be told of one, `exit STATUS`.
 *
 * Nobody may be connected on the host, ever or for a while: nothing here waits for long, and what could not be said
 * is said when somebody connects.
 */
#include "init.h"

#define PORTS "/sys/class/virtio-ports"
#define PATIENCE_MS 3000
#define SIGNAL_MAX 64

struct entry { /* of getdents64 */
	uint64_t inode;
	int64_t offset;
	uint16_t length;
	uint8_t type;
	char name[];
};

static long port = -1;
static char waiting[256]; /* what the host has not taken yet */
static size_t waiting_length;

/* Does PORTS/NAME/name hold `wanted`? */
static bool is_named(const char *entry, const char *wanted)
{
	char path[PATH_MAX], name[256];
	long length;

	if (!join(path, sizeof(path), PORTS "/", entry, "/name"))
		return false;
	length = read_file(path, name, sizeof(name));
	if (length <= 0)
		return false;
	if (name[length - 1] == '\n')
		name[length - 1] = '\0';
	return equal(name, wanted);
}

static bool find_port(const char *wanted, char *path, size_t size)
{
	char entries[4096] __attribute__((aligned(8)));
	long folder = call(openat, AT_FDCWD, PORTS, O_RDONLY | O_DIRECTORY | O_CLOEXEC), length;
	bool found = false;

	if (folder < 0)
		return false;
	while (!found && (length = call(getdents64, folder, entries, sizeof(entries))) > 0)
		for (long at = 0; at < length && !found;) {
			const struct entry *entry = (const void *)(entries + at);

			found = entry->name[0] != '.' && is_named(entry->name, wanted) &&
				join(path, size, "/dev/", entry->name, "");
			at += entry->length;
		}
	call(close, folder);
	return found;
}

/* The port appears some time after its driver. */
long open_control_port(void)
{
	const char *wanted = config_value("control", NULL);
	char path[PATH_MAX];

	if (!wanted)
		return -1;
	for (int ms = 0; ms < PATIENCE_MS; ms += 5) {
		if (find_port(wanted, path, sizeof(path))) {
			port = call(openat, AT_FDCWD, path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
			if (port >= 0)
				return port;
		}
		sleep_ms(5);
	}
	say("no virtio-serial port `%s`: signals will not reach the application", wanted);
	return -1;
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
	memcpy(waiting, waiting + n, waiting_length);
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

	if (starts_with(line, "size "))
		resize_console(line + strlen("size "));
	if (starts_with(line, "signal ") && parse_number(line + strlen("signal "), SIGNAL_MAX, &number))
		return (int)number;
	return 0;
}

/* One signal a call; a line that is too long, or none of ours, is dropped. */
int control_read(void)
{
	static char line[64];
	static size_t length;
	int signal;
	char c;

	while (call(read, port, &c, 1) == 1) {
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
