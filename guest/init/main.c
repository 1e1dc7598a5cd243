/*
 * urunc-init: the first process of a Linux guest. It is started from the initrd (rdinit=/.urunc/init), makes the
 * system that the container's configuration describes, runs the one application, and ends the machine with it.
 *
 * It must never die: the kernel panics when its first process does.
 */
#include "init.h"

#include <asm/signal.h>
#include <linux/mount.h>
#include <linux/wait.h>

#define SYSLOG_CONSOLE_LEVEL 8
#define STRAGGLERS_MS 2000

void init_main(void) __attribute__((noreturn, used));

/* The kernel passes argc and argv on the stack; neither is of use here. */
#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tand $-16, %rsp\n\tcall init_main\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tbl init_main\n");
#endif

static void set_kernel_log_level(void)
{
	uint64_t level;

	if (config_value("loglevel", NULL) && config_number("loglevel", 0, 8, &level))
		call(syslog, SYSLOG_CONSOLE_LEVEL, 0, level);
}

static void set_hostname(void)
{
	const char *name = config_value("hostname", "");

	if (*name)
		call(sethostname, name, strlen(name));
}

static bool set_up(void)
{
	if (!config_value("arg", NULL)) {
		say("no application is named");
		return false;
	}
	set_kernel_log_level();
	set_up_console();
	lead_session();
	set_hostname();
	if (!load_modules() || !set_up_network())
		return false;
	open_own_files();
	return switch_root() && place_files() && mount_volumes();
}

/* Reap whoever has died: our child, or orphans that became ours. True once the application has, with its status. */
static bool reap(long application, int *status)
{
	bool ended = false;
	int how;
	long pid;

	while ((pid = call(wait4, -1, &how, WNOHANG, 0)) > 0)
		if (pid == application) {
			ended = true;
			*status = how & 0x7f ? 128 + (how & 0x7f) : how >> 8 & 0xff;
		}
	return ended;
}

void watch(long epoll, long file, uint32_t events)
{
	struct epoll_event event = { .events = events, .data = (uint64_t)file };

	if (file >= 0)
		call(epoll_ctl, epoll, EPOLL_CTL_ADD, file, &event);
}

/*
 * Serve the application until it ends. What is watched tells its news once: a port that nobody is connected to is
 * "hung up" all the time.
 */
static int serve(long application, long port, long signals, long epoll)
{
	struct epoll_event event = { 0 };
	int status = 0, wait = 0;

	watch(epoll, signals, EPOLLIN | EPOLLET);
	watch(epoll, port, EPOLLIN | EPOLLOUT | EPOLLET);
	watch_stdin(epoll);
	watch_outputs(epoll);
	while (!reap(application, &status)) {
		if (call(epoll_pwait, epoll, &event, 1, wait, 0, 0) <= 0)
			event.events = 0;
		control_resume();
		pass_signals(application);
		wait = pass_stdin();
		pass_outputs((long)event.data, event.events);
	}
	return status;
}

/* As in a container: when the main process ends, so do all others. */
static void end_stragglers(void)
{
	int ignored;

	call(kill, -1, SIGKILL);
	for (int ms = 0; ms < STRAGGLERS_MS && call(wait4, -1, &ignored, WNOHANG, 0) != -ECHILD; ms++)
		sleep_ms(1);
}

/* Is there a device that tells the monitor of a panic, and a driver for it? Then an end without a word was wanted. */
static bool tells_panics(void)
{
	return call(faccessat, AT_FDCWD, "/sys/bus/platform/drivers/pvpanic-mmio/QEMU0001:00", 0) == 0;
}

static int run_application(void)
{
	uint64_t all = ~0ul;
	long port = open_control_port(), streams[3] = { open_stdin(), -1, -1 }, signals, pid;
	long epoll = call(epoll_create1, O_CLOEXEC);
	bool panics = tells_panics();
	int status;

	open_outputs(&streams[1], &streams[2]);
	call(rt_sigprocmask, SIG_SETMASK, &all, 0, sizeof(all));
	signals = open_signals();
	remove_own_files();
	close_root();
	pid = start_application(streams);
	if (pid < 0) {
		say("cannot start a process: %s", error_text(pid));
		return SETUP_FAILED;
	}
	control_say("started", 0);
	if (panics)
		control_say("panics", 0);
	status = serve(pid, port, signals, epoll);
	end_stragglers();
	call(sync); /* the machine may be killed while it waits for a reader */
	drain_outputs(epoll);
	return status;
}

void init_main(void)
{
	int status = SETUP_FAILED;

	mount_kernel_filesystems();
	open_console();
	if (read_config(URUNC "/config")) {
		expect_failure();
		if (set_up())
			status = run_application();
	}
	control_say("exit ", (uint64_t)status);
	release_disks();
	end_machine(status);
}
