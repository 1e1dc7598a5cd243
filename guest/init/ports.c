/* Virtio-serial ports, found by the name that the host gave them. */
#include "init.h"

#define PORTS "/sys/class/virtio-ports"

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

/* Ports appear some time after their driver, all of them together: one that is missing is waited for only once. */
long open_port(const char *wanted, int flags)
{
	static int patience_ms = 3000;
	char path[PATH_MAX];
	long port = -1;

	for (;; patience_ms -= 5) {
		if (find_port(wanted, path, sizeof(path)))
			port = call(openat, AT_FDCWD, path, flags | O_NONBLOCK | O_CLOEXEC);
		if (port >= 0 || patience_ms <= 0)
			return port;
		sleep_ms(5);
	}
}
