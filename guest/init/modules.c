/*
 * Kernel modules: those that the configuration names, and the drivers that this machine needs, where the image
 * carries them (/lib/modules/VERSION with modules.dep). A driver that is not there may be built in: what misses it
 * says so.
 */
#include "init.h"

#include <linux/module.h>
#include <linux/utsname.h>

#define DEPENDENCIES_MAX (4u << 20)

#ifndef MODULE_INIT_COMPRESSED_FILE
#define MODULE_INIT_COMPRESSED_FILE 4
#endif

static char folder[PATH_MAX]; /* /lib/modules/VERSION/ */
static char *dependencies; /* modules.dep, "" where there is none */

static bool ends_with(const char *s, const char *end)
{
	size_t length = strlen(s), tail = strlen(end);

	return length >= tail && equal(s + length - tail, end);
}

static long insert(const char *path)
{
	bool compressed = !ends_with(path, ".ko");
	long file = call(openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC), error;

	if (file < 0)
		return file;
	error = call(finit_module, file, "", compressed ? MODULE_INIT_COMPRESSED_FILE : 0);
	call(close, file);
	return error == -EEXIST ? 0 : error;
}

static void read_dependencies(void)
{
	struct new_utsname name;
	char path[PATH_MAX];
	long file, size = 0, n = 0;

	dependencies = "";
	if (call(uname, &name) < 0 || !join(folder, sizeof(folder), "/lib/modules/", name.release, "/") ||
	    !join(path, sizeof(path), folder, "modules.dep", ""))
		return;
	file = call(openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return;
	size = call(lseek, file, 0, 2 /* SEEK_END */);
	call(lseek, file, 0, 0 /* SEEK_SET */);
	if (size > 0 && size < DEPENDENCIES_MAX) {
		dependencies = allocate((size_t)size + 1);
		n = call(read, file, dependencies, size);
		dependencies[n > 0 ? n : 0] = '\0';
	}
	call(close, file);
}

/* Is the path "kernel/net/some-name.ko.xz" of the module "some_name"? `-` and `_` are one. */
static bool names_module(const char *path, const char *end, const char *name)
{
	for (const char *p = path; p < end; p++)
		if (*p == '/')
			path = p + 1;
	for (; *name; name++, path++)
		if (*path != *name && !(*path == '-' && *name == '_') && !(*path == '_' && *name == '-'))
			return false;
	return starts_with(path, ".ko");
}

static long insert_listed(const char *start, const char *end)
{
	char path[PATH_MAX];
	size_t length = strlen(folder);

	if (length + (size_t)(end - start) >= sizeof(path))
		return -ENAMETOOLONG;
	copy_text(path, sizeof(path), folder);
	memcpy(path + length, start, (size_t)(end - start));
	path[length + (size_t)(end - start)] = '\0';
	return insert(path);
}

/* Load what stands on a line "MODULE: NEEDED NEEDED", last one first, as depmod orders it. */
static long insert_line(const char *line, const char *colon, const char *end)
{
	long error = 0;

	while (end > colon && error >= 0) {
		const char *start = end;

		while (start[-1] != ' ' && start[-1] != ':')
			start--;
		if (start < end)
			error = insert_listed(start, end);
		end = start - 1;
	}
	return error < 0 ? error : insert_listed(line, colon);
}

static long insert_by_name(const char *name)
{
	for (const char *line = dependencies; *line;) {
		const char *end = find_char(line, '\n'), *colon = find_char(line, ':');

		if (colon < end && names_module(line, colon, name))
			return insert_line(line, colon, end);
		line = *end ? end + 1 : end;
	}
	return -ENOENT;
}

/* Not there is no error: it may be built in. */
static void want(const char *name)
{
	long error = insert_by_name(name);

	if (error < 0 && error != -ENOENT)
		say("cannot load the module %s: %s", name, error_text(error));
}

static bool load_named_modules(void)
{
	for (size_t i = 0; i < config.count; i++) {
		const char *module = config.records[i].value;
		long error;

		if (!equal(config.records[i].key, "module"))
			continue;
		error = *find_char(module, '/') ? insert(module) : insert_by_name(module);
		if (error < 0) {
			say("cannot load the module `%s`: %s", module, error_text(error));
			return false;
		}
	}
	return true;
}

static void load_file_system(const char *source, const char *type)
{
	if (source[0] == '/')
		want("virtio_blk");
	if (!equal(type, "bind") && !equal(type, "tmpfs"))
		want(type);
	if (equal(type, "9p"))
		want("9pnet_virtio");
}

/* A root is "/dev/vda ext4 .." or "9p TAG ..", a mount "/dev/vdb ext4 .." or "TAG 9p ..". */
static void load_file_systems(void)
{
	char first[PATH_MAX], second[256];

	for (size_t i = 0; i < config.count; i++) {
		const char *what = config.records[i].value;
		bool root = equal(config.records[i].key, "root");

		if (!root && !equal(config.records[i].key, "mount"))
			continue;
		if (!next_word(&what, first, sizeof(first)) || !next_word(&what, second, sizeof(second)))
			continue;
		if (root && first[0] != '/')
			load_file_system(second, first);
		else
			load_file_system(first, second);
	}
}

bool load_modules(void)
{
	bool nic = config_value("nic", NULL), control = config_value("control", NULL);
	bool storage = config_value("root", NULL) || config_value("mount", NULL);
	bool balloon = config_value("balloon", NULL);

	read_dependencies();
	if (!load_named_modules())
		return false;
	if (nic || control || storage || balloon) {
		want("virtio_pci");
		want("virtio_mmio");
	}
	if (nic)
		want("virtio_net");
	if (control) {
		want("virtio_console");
		want("pvpanic_mmio"); /* a PC's too, by ACPI: without it QEMU takes a panic for a clean end */
	}
	if (balloon)
		want("virtio_balloon");
	load_file_systems();
	return true;
}
