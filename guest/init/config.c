/*
 * /.urunc/config: a sequence of `key NUL value NUL`, the values' octets as the user gave them.
 *
 * The file is as trustworthy as whoever made the initrd, but a truncated one must not start half an application:
 * every record is checked before anything is done.
 */
#include "init.h"

#define CONFIG_MAX (16u << 20)

struct config config;

static const char *const keys[] = {
	"arg", "env", "cwd", "uid", "gid", "group", "umask", "rlimit", "hostname", "dns", "search",
	"nic", "mtu", "addr", "route", "neigh", "file", "needed-file", "module", "control", "terminal", "loglevel", "root",
	"mount", "mount-file", "end", "exit", "balloon", "readonly", "size", "stdin", "stdout",
	"stderr",
};

static bool is_key(const char *key)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (equal(key, keys[i]))
			return true;
	return false;
}

/* Read the whole file; its size is known, as it lies in the initrd. */
static char *read_whole(const char *path, size_t *size)
{
	long file = call(openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC), length, done = 0, n = 1;
	char *text;

	if (file < 0) {
		say("cannot open %s: %s", path, error_text(file));
		return NULL;
	}
	length = call(lseek, file, 0, 2 /* SEEK_END */);
	call(lseek, file, 0, 0 /* SEEK_SET */);
	if (length <= 0 || length > CONFIG_MAX) {
		say("%s is empty or larger than 16 MiB", path);
		return NULL;
	}
	text = allocate((size_t)length);
	while (done < length && n > 0) {
		n = call(read, file, text + done, length - done);
		done += n > 0 ? n : 0;
	}
	call(close, file);
	*size = (size_t)done;
	return text;
}

static size_t count_strings(const char *text, size_t size)
{
	size_t count = 0;

	for (size_t i = 0; i < size; i++)
		count += text[i] == '\0';
	return count;
}

static bool parse(const char *path, const char *text, size_t count)
{
	struct record *records = allocate(count * sizeof(*records));

	for (size_t i = 0; i < count; i++) {
		records[i].key = text;
		records[i].value = text += strlen(text) + 1;
		text += strlen(text) + 1;
		if (!is_key(records[i].key)) {
			say("%s: unknown key `%s`", path, records[i].key);
			return false;
		}
	}
	config = (struct config){ records, count };
	return true;
}

bool read_config(const char *path)
{
	size_t size, strings;
	char *text = read_whole(path, &size);

	if (!text)
		return false;
	strings = count_strings(text, size);
	if (strings == 0 || strings % 2 || text[size - 1] != '\0') {
		say("%s is truncated", path);
		return false;
	}
	return parse(path, text, strings / 2);
}

const char *config_value(const char *key, const char *otherwise)
{
	for (size_t i = 0; i < config.count; i++)
		if (equal(config.records[i].key, key))
			return config.records[i].value;
	return otherwise;
}

bool config_number(const char *key, uint64_t otherwise, uint64_t maximum, uint64_t *value)
{
	const char *text = config_value(key, NULL);

	*value = otherwise;
	if (!text || parse_number(text, maximum, value))
		return true;
	say("%s `%s` is not a number up to the limit", key, text);
	return false;
}

char **config_list(const char *key)
{
	char **list;
	size_t n = 0;

	for (size_t i = 0; i < config.count; i++)
		n += equal(config.records[i].key, key);
	list = allocate((n + 1) * sizeof(*list));
	n = 0;
	for (size_t i = 0; i < config.count; i++)
		if (equal(config.records[i].key, key))
			list[n++] = (char *)config.records[i].value;
	return list;
}
