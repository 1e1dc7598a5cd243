/* Files: the engine's, which are put in their places, and what the init needs of any file. */
#include "init.h"

#include <asm/stat.h>
#include <linux/mount.h>
#include <linux/stat.h>

#define RESOLV_CONF "/etc/resolv.conf"

long make_parents(const char *path)
{
	char part[PATH_MAX];
	long error = 0;

	if (!copy_text(part, sizeof(part), path))
		return -ENAMETOOLONG;
	for (char *p = part + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		error = call(mkdirat, AT_FDCWD, part, 0755);
		*p = '/';
	}
	return error == -EEXIST ? 0 : error;
}

long read_file(const char *path, char *text, size_t size)
{
	long file = call(openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC), n;

	if (file < 0)
		return file;
	n = call(read, file, text, size - 1);
	call(close, file);
	text[n > 0 ? n : 0] = '\0';
	return n;
}

long write_file(const char *path, const char *text)
{
	long file = call(openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), n;

	if (file < 0)
		return file;
	n = call(write, file, text, strlen(text));
	call(close, file);
	return n;
}

/* The folder /.urunc, which is in the initrd and out of reach by its path when the application's root is ours. */
static long own = -1;

static long copy_file(long from, uint32_t mode, const char *target)
{
	long n = make_parents(target), to;

	if (n < 0 && n != -EROFS)
		return n;
	/* In its place, not through it: the image's file may be a link to anywhere. */
	call(unlinkat, AT_FDCWD, target, 0);
	to = call(openat, AT_FDCWD, target, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (to < 0)
		return n == -EROFS ? n : to;
	do
		n = call(sendfile, to, from, 0, 1 << 20);
	while (n > 0);
	call(fchmod, to, mode);
	call(close, to);
	return n;
}

/* Over what is there: -ENOENT without a file. A link may lead to a device, which others use as well. */
static long bind_file(const char *source, const char *target)
{
	struct stat status;
	long error = call(newfstatat, AT_FDCWD, target, &status, 0);

	if (error < 0)
		return error;
	if (!S_ISREG(status.st_mode))
		return -ENOENT;
	call(fchdir, own);
	error = call(mount, source, target, 0, MS_BIND, 0);
	call(chdir, "/");
	return error;
}

/*
 * What belongs at a path lies at the same path below /.urunc/files. Engines give their files to every container,
 * whether it has a place for them or not: `asked_for`, as a volume's, is what may not be left out.
 */
static long place(const char *path, bool asked_for)
{
	char source[PATH_MAX];
	struct stat status;
	long from, error;
	uint32_t mode;

	if (path[0] != '/' || !join(source, sizeof(source), "files", path, ""))
		return -EINVAL;
	from = call(openat, own, source, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return from;
	/* The engine's files, such as /etc/hosts, are for every user of the guest to read. */
	call(fstat, from, &status);
	mode = (status.st_mode & 0777) | 0444;
	call(fchmod, from, mode);
	error = copy_file(from, mode, path);
	call(close, from);
	/* A folder that cannot be written may have a link there, which then stays: ELOOP. */
	if (error != -EROFS && error != -EACCES && error != -ELOOP)
		return error;
	error = bind_file(source, path);
	if (error != -ENOENT || asked_for)
		return error;
	say("`%s` is left out: the root has no such file, and cannot be written", path);
	return 0;
}

static bool place_file(const char *path, bool asked_for)
{
	long error = place(path, asked_for);

	if (error < 0)
		say("cannot place the file `%s`: %s", path, error_text(error));
	return error >= 0;
}

static bool is_needed(const struct record *record)
{
	return equal(record->key, "needed-file");
}

static bool is_file(const struct record *record)
{
	return equal(record->key, "file") || is_needed(record);
}

static bool is_placed(const char *target)
{
	for (size_t i = 0; i < config.count; i++)
		if (is_file(&config.records[i]) && equal(config.records[i].value, target))
			return true;
	return false;
}

static void write_all(long file, const char *a, const char *b, const char *c)
{
	call(write, file, a, strlen(a));
	call(write, file, b, strlen(b));
	call(write, file, c, strlen(c));
}

/* What no engine gave is made where an engine's would lie, and placed as that is. */
static bool write_resolv_conf(void)
{
	char **servers = config_list("dns"), **search = config_list("search");
	bool placed;
	long file;

	if ((!*servers && !*search) || is_placed(RESOLV_CONF))
		return true;
	call(mkdirat, own, "files", 0755);
	call(mkdirat, own, "files/etc", 0755);
	file = call(openat, own, "files" RESOLV_CONF, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (file < 0) {
		say("cannot write " RESOLV_CONF ": %s", error_text(file));
		return false;
	}
	for (; *servers; servers++)
		write_all(file, "nameserver ", *servers, "\n");
	for (const char *before = "search "; *search; search++, before = " ")
		write_all(file, before, *search, search[1] ? "" : "\n");
	call(close, file);
	placed = place_file(RESOLV_CONF, true);
	call(unlinkat, own, "files" RESOLV_CONF, 0);
	return placed;
}

void open_own_files(void)
{
	own = call(openat, AT_FDCWD, URUNC, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

bool place_files(void)
{
	for (size_t i = 0; i < config.count; i++) {
		const struct record *record = &config.records[i];

		if (is_file(record) && !place_file(record->value, is_needed(record)))
			return false;
	}
	return write_resolv_conf();
}

/* What was for us alone need not stay in the guest's memory, nor in its sight. */
void remove_own_files(void)
{
	char path[PATH_MAX];

	for (size_t i = 0; i < config.count; i++) {
		const char *value = config.records[i].value;

		if (is_file(&config.records[i]) && join(path, sizeof(path), "files", value, ""))
			call(unlinkat, own, path, 0);
		else if (equal(config.records[i].key, "module") && starts_with(value, URUNC "/"))
			call(unlinkat, own, value + strlen(URUNC "/"), 0);
	}
	call(unlinkat, own, "config", 0);
	call(unlinkat, own, "init", 0);
	call(close, own);
}
