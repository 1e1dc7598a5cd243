/* Files: the engine's, which are put in their places, and what the init needs of any file. */
#include "init.h"

#include <asm/stat.h>
#include <linux/mount.h>

#define FILES URUNC "/files"
#define COPIES "/run/.urunc-files"

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

static long copy_file(const char *source, const char *target)
{
	long from = call(openat, AT_FDCWD, source, O_RDONLY | O_CLOEXEC), to, n;
	struct stat status;

	if (from < 0)
		return from;
	n = make_parents(target);
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
	call(fstat, from, &status);
	/* The engine's files, such as /etc/hosts, are for every user of the guest to read. */
	call(fchmod, to, (status.st_mode & 0777) | 0444);
	call(close, to);
	call(close, from);
	return n;
}

/* Where nothing can be written: a copy in /run, bound to what is there. Without anything there, the file is left out. */
static long bind_copy(const char *source, const char *path, const char *target)
{
	char copy[PATH_MAX];
	long error = call(faccessat, AT_FDCWD, target, 0);

	if (error == -ENOENT) {
		say("`%s` is left out: the root has no such file, and cannot be written", path);
		return 0;
	}
	if (error < 0)
		return error;
	if (!join(copy, sizeof(copy), COPIES, path, ""))
		return -ENAMETOOLONG;
	error = copy_file(source, copy);
	return error < 0 ? error : call(mount, copy, target, 0, MS_BIND, 0);
}

/* A record `file` is an absolute path; what belongs there lies at the same path below /.urunc/files. */
static bool place_file(const char *root, const char *path)
{
	char source[PATH_MAX], target[PATH_MAX];
	long error = -EINVAL;

	if (path[0] == '/' && join(source, sizeof(source), FILES, path, "") &&
	    join(target, sizeof(target), root, path, ""))
		error = copy_file(source, target);
	if (error == -EROFS || error == -EACCES)
		error = bind_copy(source, path, target);
	if (error < 0)
		say("cannot place the file `%s`: %s", path, error_text(error));
	return error >= 0;
}

static bool is_placed(const char *target)
{
	for (size_t i = 0; i < config.count; i++)
		if (equal(config.records[i].key, "file") && equal(config.records[i].value, target))
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
static bool write_resolv_conf(const char *root)
{
	char **servers = config_list("dns"), **search = config_list("search");
	bool placed;
	long file;

	if ((!*servers && !*search) || is_placed("/etc/resolv.conf"))
		return true;
	make_parents(FILES "/etc/resolv.conf");
	file = call(openat, AT_FDCWD, FILES "/etc/resolv.conf", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (file < 0) {
		say("cannot write /etc/resolv.conf: %s", error_text(file));
		return false;
	}
	for (; *servers; servers++)
		write_all(file, "nameserver ", *servers, "\n");
	for (const char *before = "search "; *search; search++, before = " ")
		write_all(file, before, *search, search[1] ? "" : "\n");
	call(close, file);
	placed = place_file(root, "/etc/resolv.conf");
	call(unlinkat, AT_FDCWD, FILES "/etc/resolv.conf", 0);
	return placed;
}

bool place_files(const char *root)
{
	for (size_t i = 0; i < config.count; i++)
		if (equal(config.records[i].key, "file") && !place_file(root, config.records[i].value))
			return false;
	return write_resolv_conf(root);
}

/* What was for us alone need not stay in the guest's memory, nor in its sight. */
void remove_own_files(void)
{
	char path[PATH_MAX];

	for (size_t i = 0; i < config.count; i++) {
		const char *value = config.records[i].value;

		if (equal(config.records[i].key, "file") && join(path, sizeof(path), FILES, value, ""))
			call(unlinkat, AT_FDCWD, path, 0);
		else if (equal(config.records[i].key, "module") && starts_with(value, URUNC "/"))
			call(unlinkat, AT_FDCWD, value, 0);
	}
	call(unlinkat, AT_FDCWD, URUNC "/config", 0);
	call(unlinkat, AT_FDCWD, URUNC "/init", 0);
}
