/* What is mounted: the kernel's own file systems, the root, the volumes. */
#include "init.h"

#include <asm/stat.h>
#include <linux/mount.h>

#define NEW_ROOT URUNC "/root"
#define ASIDE "/run/.urunc-share"
#define DEVICE_PATIENCE_MS 3000
/* mmap: shared writable mappings work, and what another writes to the folder is seen. */
#define SHARE_OPTIONS "trans=virtio,version=9p2000.L,msize=262144,cache=mmap"

struct mount {
	const char *type, *target, *options;
	unsigned long flags;
	uint32_t mode;
};

static const struct mount mounts[] = {
	{ "proc", "/proc", "", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0555 },
	{ "sysfs", "/sys", "", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0555 },
	{ "devtmpfs", "/dev", "mode=0755", MS_NOSUID, 0755 },
	{ "devpts", "/dev/pts", "ptmxmode=0666,mode=0620,gid=5", MS_NOSUID | MS_NOEXEC, 0755 },
	{ "tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV, 0755 },
	{ "mqueue", "/dev/mqueue", "", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0755 },
	{ "tmpfs", "/run", "mode=0755", MS_NOSUID | MS_NODEV, 0755 },
	{ "cgroup2", "/sys/fs/cgroup", "", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0755 },
};

static bool is_mounted(const char *target)
{
	char parent[PATH_MAX];
	struct stat here, above;

	join(parent, sizeof(parent), target, "/..", "");
	return call(newfstatat, AT_FDCWD, target, &here, 0) == 0 &&
	       call(newfstatat, AT_FDCWD, parent, &above, 0) == 0 && here.st_dev != above.st_dev;
}

/* Every one is for the application's comfort: a kernel without it is no reason to stop. */
void mount_kernel_filesystems(void)
{
	static const char *const links[][2] = {
		{ "/proc/self/fd", "/dev/fd" },
		{ "/proc/self/fd/0", "/dev/stdin" },
		{ "/proc/self/fd/1", "/dev/stdout" },
		{ "/proc/self/fd/2", "/dev/stderr" },
		{ "pts/ptmx", "/dev/ptmx" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		const struct mount *m = &mounts[i];

		call(mkdirat, AT_FDCWD, m->target, m->mode);
		if (!is_mounted(m->target))
			call(mount, m->type, m->target, m->type, m->flags, m->options);
	}
	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		call(symlinkat, links[i][0], AT_FDCWD, links[i][1]);
}

/* Disks appear some time after their driver. */
static void wait_for_device(const char *path)
{
	for (int ms = 0; ms < DEVICE_PATIENCE_MS && call(faccessat, AT_FDCWD, path, 0) < 0; ms += 5)
		sleep_ms(5);
}

/* Mount what the record `root` says: "/dev/vda ext4 rw", "9p TAG", "virtiofs TAG". */
static long mount_root(const char *what)
{
	char first[PATH_MAX], second[256], mode[8] = "rw";
	unsigned long flags;

	if (!next_word(&what, first, sizeof(first)) || !next_word(&what, second, sizeof(second)))
		return -EINVAL;
	if (*what && !next_word(&what, mode, sizeof(mode)))
		return -EINVAL;
	flags = equal(mode, "ro") ? MS_RDONLY : 0;
	call(mkdirat, AT_FDCWD, NEW_ROOT, 0755);
	if (first[0] == '/') {
		wait_for_device(first);
		return call(mount, first, NEW_ROOT, second, flags, "");
	}
	if (equal(first, "9p"))
		return call(mount, second, NEW_ROOT, first, flags, SHARE_OPTIONS);
	return call(mount, second, NEW_ROOT, first, flags, "");
}

static bool is_folder(const char *path)
{
	char inside[PATH_MAX];

	return join(inside, sizeof(inside), path, "/.", "") && call(faccessat, AT_FDCWD, inside, 0) == 0;
}

/* Make every folder of a path. One that is there is fine, on a read-only file system too. */
static long make_folders(const char *path)
{
	long above = make_parents(path);
	long error = call(mkdirat, AT_FDCWD, path, 0755);

	if (error >= 0 || is_folder(path))
		return 0;
	return above < 0 ? above : error;
}

static long make_empty_file(const char *path)
{
	long above = make_parents(path);
	long file = call(openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0644);

	if (file >= 0)
		return call(close, file);
	if (call(faccessat, AT_FDCWD, path, 0) >= 0)
		return 0;
	return above < 0 ? above : file;
}

/* A record `mount`, "SOURCE TYPE ro|rw[,noexec] TARGET". A tmpfs has its options in SOURCE's place. */
struct volume {
	char source[256], type[64], mode[16];
	const char *target;
	const char *name; /* the one file of a share that is mounted; NULL for the whole of it */
};

/* False where the record is another. A broken one has no target. */
static bool read_volume(size_t i, struct volume *volume)
{
	const struct record *next = i + 1 < config.count ? &config.records[i + 1] : NULL;
	const char *rest = config.records[i].value;

	if (!equal(config.records[i].key, "mount"))
		return false;
	volume->name = next && equal(next->key, "mount-file") ? next->value : NULL;
	volume->target = next_word(&rest, volume->source, sizeof(volume->source)) &&
				 next_word(&rest, volume->type, sizeof(volume->type)) &&
				 next_word(&rest, volume->mode, sizeof(volume->mode)) && *rest == '/'
			 ? rest
			 : NULL;
	return true;
}

static long make_mount_point(const struct volume *volume)
{
	bool file = volume->name || equal(volume->type, "bind");

	return file ? make_empty_file(volume->target) : make_folders(volume->target);
}

static bool is_in_another(const char *target)
{
	struct volume volume;
	char folder[PATH_MAX];

	for (size_t i = 0; i < config.count; i++)
		if (read_volume(i, &volume) && volume.target && join(folder, sizeof(folder), volume.target, "/", "") &&
		    starts_with(target, folder))
			return true;
	return false;
}

/*
 * Before anything is mounted: what stands in its own room is bound there, and a volume would then be mounted twice. Where
 * this fails, mounting says why.
 */
static void make_mount_points(void)
{
	struct volume volume;

	for (size_t i = 0; i < config.count; i++) {
		long error;

		if (!read_volume(i, &volume) || !volume.target || is_in_another(volume.target))
			continue;
		error = make_mount_point(&volume);
		if ((error == -EROFS || error == -EACCES) && make_room(volume.target) >= 0)
			make_mount_point(&volume);
	}
	close_rooms();
}

static long mount_folder(const struct volume *volume, unsigned long flags, const char *target)
{
	const char *source = volume->source, *type = volume->type;
	long error = make_folders(target);

	if (error < 0)
		return error;
	if (source[0] == '/')
		wait_for_device(source);
	if (equal(type, "tmpfs"))
		return call(mount, "tmpfs", target, type, flags, equal(source, "tmpfs") ? "" : source);
	return call(mount, source, target, type, flags, equal(type, "9p") ? SHARE_OPTIONS : "");
}

/* A disk at the path of the container's device. */
static long bind_device(const char *source, const char *target)
{
	long error;

	wait_for_device(source);
	if (equal(source, target))
		return 0;
	error = make_empty_file(target);
	return error < 0 ? error : call(mount, source, target, 0, MS_BIND, 0);
}

/* One file of a share: the share is mounted aside for as long as it takes to bind the file. */
static long mount_file(const struct volume *volume, unsigned long flags)
{
	char file[PATH_MAX];
	long error = mount_folder(volume, flags, ASIDE);

	if (error < 0)
		return error;
	error = make_empty_file(volume->target);
	if (error >= 0)
		error = join(file, sizeof(file), ASIDE "/", volume->name, "") ? 0 : -ENAMETOOLONG;
	if (error >= 0)
		error = call(mount, file, volume->target, 0, MS_BIND, 0);
	call(umount2, ASIDE, MNT_DETACH);
	call(unlinkat, AT_FDCWD, ASIDE, AT_REMOVEDIR);
	return error;
}

static long mount_volume(const struct volume *volume)
{
	unsigned long flags = MS_NODEV | MS_NOSUID;

	if (!volume->target)
		return -EINVAL;
	if (equal(volume->type, "bind"))
		return bind_device(volume->source, volume->target);
	if (starts_with(volume->mode, "ro"))
		flags |= MS_RDONLY;
	if (equal(find_char(volume->mode, ','), ",noexec"))
		flags |= MS_NOEXEC;
	return volume->name ? mount_file(volume, flags) : mount_folder(volume, flags, volume->target);
}

bool mount_volumes(void)
{
	struct volume volume;

	make_mount_points();
	for (size_t i = 0; i < config.count; i++) {
		long error;

		if (!read_volume(i, &volume))
			continue;
		error = mount_volume(&volume);
		if (error < 0) {
			say("cannot mount the volume `%s`: %s", config.records[i].value, error_text(error));
			return false;
		}
	}
	return true;
}

bool switch_root(void)
{
	const char *what = config_value("root", "");
	char target[PATH_MAX];
	long error;

	if (!*what)
		return true;
	error = mount_root(what);
	if (error < 0) {
		say("cannot mount the root `%s`: %s", what, error_text(error));
		return false;
	}
	/* Mounts below others move with them. */
	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		join(target, sizeof(target), NEW_ROOT, mounts[i].target, "");
		call(mkdirat, AT_FDCWD, target, mounts[i].mode);
		call(mount, mounts[i].target, target, 0, MS_MOVE, 0);
	}
	call(chdir, NEW_ROOT);
	error = call(mount, ".", "/", 0, MS_MOVE, 0);
	if (error >= 0)
		error = call(chroot, ".");
	if (error < 0)
		say("cannot switch to the root `%s`: %s", what, error_text(error));
	return error >= 0;
}

/*
 * A read-only disk or share is one from its mount on. An initrd becomes one when nothing more is to be put there: the
 * application's folder is the last.
 */
void close_root(void)
{
	if (!config_value("readonly", NULL))
		return;
	make_folders(config_value("cwd", "/"));
	call(mount, 0, "/", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0);
}

/* Disks must be whole when the power goes: what was mounted last goes first, and the root becomes read-only. */
void release_disks(void)
{
	struct volume volume;

	for (size_t i = config.count; i-- > 0;)
		if (read_volume(i, &volume) && volume.target)
			call(umount2, volume.target, 0);
	call(mount, 0, "/", 0, MS_REMOUNT | MS_RDONLY, 0);
}
