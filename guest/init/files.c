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

static long copy_file(long from, const char *target)
{
	long n = make_parents(target), to;
	struct stat status;

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
	return n;
}

/* The application's root becomes ours, so that links in it lead to places in it. Returns the way back, for `leave`. */
static long enter(const char *root)
{
	long outside = call(openat, AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC), error;

	if (outside < 0)
		return outside;
	error = call(chroot, *root ? root : "/");
	if (error >= 0)
		return outside;
	call(close, outside);
	return error;
}

static void leave(long outside)
{
	call(fchdir, outside);
	call(chroot, ".");
	call(close, outside);
}

static long write_copy(long from, const char *root, const char *path)
{
	long outside = enter(root), error;

	if (outside < 0)
		return outside;
	error = copy_file(from, path);
	leave(outside);
	return error;
}

/* Where nothing can be written: a copy in /run, bound to what is there. -ENOENT without anything there. */
static long bind_copy(long from, const char *root, const char *path)
{
	char copy[PATH_MAX], target[40] = "/proc/self/fd/";
	long outside = enter(root), file, error;

	if (outside < 0)
		return outside;
	file = call(openat, AT_FDCWD, path, O_PATH | O_CLOEXEC);
	leave(outside);
	if (file < 0)
		return file;
	format_number(target + strlen(target), (uint64_t)file);
	error = join(copy, sizeof(copy), COPIES, path, "") ? copy_file(from, copy) : -ENAMETOOLONG;
	if (error >= 0)
		error = call(mount, copy, target, 0, MS_BIND, 0);
	call(close, file);
	return error;
}

/* What cannot be written, or is a link that cannot be removed, is bound over. */
static long place(long from, const char *root, const char *path, bool asked_for)
{
	long error = write_copy(from, root, path);

	if (error != -EROFS && error != -EACCES && error != -ELOOP)
		return error;
	error = bind_copy(from, root, path);
	if (error != -ENOENT || asked_for)
		return error;
	say("`%s` is left out: the root has no such file, and cannot be written", path);
	return 0;
}

/*
 * A record `file` is an absolute path; what belongs there lies at the same path below /.urunc/files. Engines give their
 * files to every container, whether it has a place for them or not: `asked_for` is what may not be left out.
 */
static bool place_file(const char *root, const char *path, bool asked_for)
{
	char source[PATH_MAX];
	long error = -EINVAL, from;

	if (path[0] == '/' && join(source, sizeof(source), FILES, path, "")) {
		error = from = call(openat, AT_FDCWD, source, O_RDONLY | O_CLOEXEC);
		if (from >= 0) {
			error = place(from, root, path, asked_for);
			call(close, from);
		}
	}
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
	placed = place_file(root, "/etc/resolv.conf", true);
	call(unlinkat, AT_FDCWD, FILES "/etc/resolv.conf", 0);
	return placed;
}

bool place_files(const char *root)
{
	for (size_t i = 0; i < config.count; i++)
		if (equal(config.records[i].key, "file") && !place_file(root, config.records[i].value, false))
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
