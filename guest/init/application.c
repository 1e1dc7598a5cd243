/* The application: a child with the identity, limits, arguments and environment of the configuration. */
#include "init.h"

#include <asm/signal.h>
#include <asm/stat.h>
#include <linux/resource.h>

#define NOT_FOUND 127
#define NOT_EXECUTABLE 126
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define ID_MAX 0xfffffffe
#define GROUPS_MAX 65536
#define NULL_DEVICE 0x103 /* 1:3, /dev/null */

static const char *const limits[] = {
	[RLIMIT_CPU] = "RLIMIT_CPU",
	[RLIMIT_FSIZE] = "RLIMIT_FSIZE",
	[RLIMIT_DATA] = "RLIMIT_DATA",
	[RLIMIT_STACK] = "RLIMIT_STACK",
	[RLIMIT_CORE] = "RLIMIT_CORE",
	[RLIMIT_RSS] = "RLIMIT_RSS",
	[RLIMIT_NPROC] = "RLIMIT_NPROC",
	[RLIMIT_NOFILE] = "RLIMIT_NOFILE",
	[RLIMIT_MEMLOCK] = "RLIMIT_MEMLOCK",
	[RLIMIT_AS] = "RLIMIT_AS",
	[RLIMIT_LOCKS] = "RLIMIT_LOCKS",
	[RLIMIT_SIGPENDING] = "RLIMIT_SIGPENDING",
	[RLIMIT_MSGQUEUE] = "RLIMIT_MSGQUEUE",
	[RLIMIT_NICE] = "RLIMIT_NICE",
	[RLIMIT_RTPRIO] = "RLIMIT_RTPRIO",
	[RLIMIT_RTTIME] = "RLIMIT_RTTIME",
};

/* A record `rlimit` is "RLIMIT_NOFILE SOFT HARD", in decimal; the largest 64-bit number is infinity. */
static long set_limit(const char *value)
{
	char name[32], soft[24], hard[24];
	struct rlimit64 limit;
	uint64_t number;

	if (!next_word(&value, name, sizeof(name)) || !next_word(&value, soft, sizeof(soft)) ||
	    !next_word(&value, hard, sizeof(hard)) || *value)
		return -EINVAL;
	if (!parse_number(soft, UINT64_MAX, &number))
		return -EINVAL;
	limit.rlim_cur = number;
	if (!parse_number(hard, UINT64_MAX, &number))
		return -EINVAL;
	limit.rlim_max = number;
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
		if (equal(name, limits[i]))
			return call(prlimit64, 0, i, &limit, 0);
	return -EINVAL;
}

static bool set_limits(void)
{
	for (char **value = config_list("rlimit"); *value; value++) {
		long error = set_limit(*value);

		if (error < 0) {
			say("cannot set the limit `%s`: %s", *value, error_text(error));
			return false;
		}
	}
	return true;
}

static bool set_groups(void)
{
	static uint32_t groups[GROUPS_MAX];
	size_t count = 0;

	for (char **value = config_list("group"); *value; value++) {
		uint64_t group;

		if (count == GROUPS_MAX || !parse_number(*value, ID_MAX, &group)) {
			say("cannot use the group `%s`", *value);
			return false;
		}
		groups[count++] = (uint32_t)group;
	}
	if (call(setgroups, count, groups) >= 0)
		return true;
	say("cannot take the supplementary groups");
	return false;
}

/*
 * So that the application can open /dev/stdin, /dev/stdout and /dev/stderr, which lead here, once more. The null device
 * is everybody's.
 */
static void own_streams(uint64_t uid)
{
	struct stat status;

	for (long i = 0; i < 3; i++)
		if (call(fstat, i, &status) >= 0 && status.st_rdev != NULL_DEVICE)
			call(fchown, i, uid, -1);
}

static bool set_identity(void)
{
	uint64_t uid, gid, mask;

	if (!config_number("uid", 0, ID_MAX, &uid) || !config_number("gid", 0, ID_MAX, &gid) ||
	    !config_number("umask", 022, 0777, &mask) || !set_groups())
		return false;
	call(umask, mask);
	own_streams(uid);
	if (call(setresgid, gid, gid, gid) < 0 || call(setresuid, uid, uid, uid) < 0) {
		say("cannot become the user");
		return false;
	}
	return true;
}

/* As runc: a folder that is not there is made. */
static bool enter_folder(void)
{
	const char *folder = config_value("cwd", "/");
	char below[PATH_MAX];
	long error = call(chdir, folder);

	if (error == -ENOENT && join(below, sizeof(below), folder, "/", "")) {
		make_parents(below);
		error = call(chdir, folder);
	}
	if (error < 0)
		say("cannot enter the folder `%s`: %s", folder, error_text(error));
	return error >= 0;
}

static const char *variable(char **environment, const char *prefix, const char *otherwise)
{
	for (; *environment; environment++)
		if (starts_with(*environment, prefix))
			return *environment + strlen(prefix);
	return otherwise;
}

/* Take the field up to the next colon off a line of /etc/passwd. */
static char *take_field(char **line)
{
	char *start = *line, *end = (char *)find_char(start, ':');

	*line = *end ? end + 1 : end;
	*end = '\0';
	return start;
}

/* The folder of the user with this number (name:password:uid:gid:comment:home:shell), "/" where he has none. */
static const char *home_of(const char *uid)
{
	static char users[65536];
	char *line = users, *next;

	if (read_file("/etc/passwd", users, sizeof(users)) <= 0)
		return "/";
	for (; *line; line = next) {
		char *end = (char *)find_char(line, '\n'), *home;
		bool found;

		next = *end ? end + 1 : end;
		*end = '\0';
		take_field(&line);
		take_field(&line);
		found = equal(take_field(&line), uid);
		take_field(&line);
		take_field(&line);
		home = take_field(&line);
		if (found && *home)
			return home;
	}
	return "/";
}

/* As runc: who is given no HOME gets his own. */
static char **complete_environment(void)
{
	char **given = config_list("env"), **all, *home;
	const char *folder;
	size_t n = 0;

	if (variable(given, "HOME=", NULL))
		return given;
	folder = home_of(config_value("uid", "0"));
	home = allocate(strlen(folder) + sizeof("HOME="));
	join(home, strlen(folder) + sizeof("HOME="), "HOME=", folder, "");
	while (given[n])
		n++;
	all = allocate((n + 2) * sizeof(*all));
	memcpy(all, given, n * sizeof(*all));
	all[n] = home;
	return all;
}

/* Try each folder of PATH; an empty one is the current folder. Returns why the best candidate could not run. */
static long execute_on_path(char **arguments, char **environment)
{
	const char *path = variable(environment, "PATH=", DEFAULT_PATH);
	char file[PATH_MAX];
	long result = -ENOENT;

	for (const char *end;; path = end + 1) {
		size_t length;
		long error;

		end = find_char(path, ':');
		length = (size_t)(end - path);
		if (length + strlen(arguments[0]) + 2 < sizeof(file)) {
			memcpy(file, path, length);
			copy_text(file + length, sizeof(file) - length, length ? "/" : "");
			copy_text(file + strlen(file), sizeof(file) - strlen(file), arguments[0]);
			error = call(execve, file, arguments, environment);
			if (error != -ENOENT && error != -ENOTDIR)
				result = error;
		}
		if (!*end)
			return result;
	}
}

static int execute(void)
{
	char **arguments = config_list("arg"), **environment = complete_environment();
	const char *name = arguments[0];
	long error = -ENOENT;

	if (*find_char(name, '/'))
		error = call(execve, name, arguments, environment);
	else if (*name)
		error = execute_on_path(arguments, environment);
	say("cannot run `%s`: %s", name, error_text(error));
	return error == -ENOENT || error == -ENOTDIR ? NOT_FOUND : NOT_EXECUTABLE;
}

static void run(const long streams[3]) __attribute__((noreturn));
static void run(const long streams[3])
{
	uint64_t none = 0;
	int status = SETUP_FAILED;

	join_session();
	for (long i = 0; i < 3; i++)
		if (streams[i] >= 0)
			call(dup3, streams[i], i, 0);
	if (set_limits() && enter_folder() && set_identity()) {
		call(rt_sigprocmask, SIG_SETMASK, &none, 0, sizeof(none));
		status = execute();
	}
	for (;;)
		call(exit_group, status);
}

long start_application(const long streams[3])
{
	long pid = call(clone, SIGCHLD);

	if (pid == 0)
		run(streams);
	for (size_t i = 0; i < 3; i++)
		if (streams[i] >= 0)
			call(close, streams[i]);
	return pid;
}
