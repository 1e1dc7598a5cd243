/*
 * Room for a mount point where nothing can be made: on a read-only root, or in a share whose files are another user's.
 * The folder that should hold it becomes a tmpfs, in which everything that was there is bound to its name. It is
 * read-only in the end, as the folder was for the guest.
 */
#include "init.h"

#include <asm/stat.h>
#include <linux/mount.h>
#include <linux/stat.h>

#define ROOM "/run/.urunc-room"
#define ALIKE (MS_NOSUID | MS_NODEV)

static const char **rooms; /* the folders, in the order in which they were replaced */
static size_t count;

static long show_link(const char *source, const char *target)
{
	char to[PATH_MAX];
	long length = call(readlinkat, AT_FDCWD, source, to, sizeof(to) - 1);

	if (length < 0)
		return length;
	to[length] = '\0';
	return call(symlinkat, to, AT_FDCWD, target);
}

static long show(const char *folder, const char *name)
{
	char source[PATH_MAX], target[PATH_MAX];
	struct stat status;
	long error;

	if (!join(source, sizeof(source), folder, "/", name) || !join(target, sizeof(target), ROOM, "/", name))
		return -ENAMETOOLONG;
	error = call(newfstatat, AT_FDCWD, source, &status, AT_SYMLINK_NOFOLLOW);
	if (error < 0)
		return error;
	if (S_ISLNK(status.st_mode))
		return show_link(source, target);
	error = S_ISDIR(status.st_mode) ? call(mkdirat, AT_FDCWD, target, 0700)
					: call(mknodat, AT_FDCWD, target, S_IFREG | 0600, 0);
	return error < 0 ? error : call(mount, source, target, 0, MS_BIND | MS_REC, 0);
}

static long show_all(const char *path)
{
	char entries[4096] __attribute__((aligned(8)));
	long folder = call(openat, AT_FDCWD, *path ? path : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), length, error = 0;

	if (folder < 0)
		return folder;
	while (error >= 0 && (length = call(getdents64, folder, entries, sizeof(entries))) != 0) {
		error = length < 0 ? length : 0;
		for (long at = 0; at < length && error >= 0;) {
			const struct entry *entry = (const void *)(entries + at);

			if (!equal(entry->name, ".") && !equal(entry->name, ".."))
				error = show(path, entry->name);
			at += entry->length;
		}
	}
	call(close, folder);
	return error;
}

/* Cut a path down to the deepest folder of it that is there; "" is the root. */
static void find_folder(char *path)
{
	size_t end = strlen(path);

	do {
		while (end > 0 && path[--end] != '/')
			;
		path[end] = '\0';
	} while (end > 0 && call(faccessat, AT_FDCWD, path, 0) < 0);
}

/* What is mounted at ROOM becomes the folder. */
static long take_place(const char *folder)
{
	long error;

	if (*folder)
		return call(mount, ROOM, folder, 0, MS_MOVE, 0);
	error = call(chdir, ROOM);
	if (error >= 0)
		error = call(mount, ".", "/", 0, MS_MOVE, 0);
	return error < 0 ? error : call(chroot, ".");
}

/* Unbindable for as long as it is filled: it lies in one of the folders that are bound. */
static long replace(const char *folder)
{
	struct stat status;
	long error = call(newfstatat, AT_FDCWD, *folder ? folder : "/", &status, 0);

	call(mkdirat, AT_FDCWD, ROOM, 0700);
	if (error >= 0)
		error = call(mount, "tmpfs", ROOM, "tmpfs", ALIKE, "");
	if (error < 0)
		return error;
	call(mount, 0, ROOM, 0, MS_UNBINDABLE, 0);
	error = show_all(folder);
	call(fchownat, AT_FDCWD, ROOM, status.st_uid, status.st_gid, 0);
	call(fchmodat, AT_FDCWD, ROOM, status.st_mode & 07777);
	call(mount, 0, ROOM, 0, MS_PRIVATE, 0);
	if (error >= 0)
		error = take_place(folder);
	if (error < 0)
		call(umount2, ROOM, MNT_DETACH);
	return error;
}

long make_room(const char *target)
{
	char *folder = allocate(strlen(target) + 1);
	long error;

	copy_text(folder, strlen(target) + 1, target);
	find_folder(folder);
	error = replace(folder);
	call(unlinkat, AT_FDCWD, ROOM, AT_REMOVEDIR);
	if (error < 0)
		return error;
	if (!rooms)
		rooms = allocate(config.count * sizeof(*rooms));
	rooms[count++] = folder;
	return 0;
}

void close_rooms(void)
{
	for (size_t i = 0; i < count; i++)
		call(mount, 0, *rooms[i] ? rooms[i] : "/", 0, MS_REMOUNT | MS_BIND | MS_RDONLY | ALIKE, 0);
}
