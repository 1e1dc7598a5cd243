/*
 * The signals for the application: those of the control port, and Ctrl-Alt-Del, which is how Firecracker asks a guest to
 * stop. Whoever waits for the host asks here, too, whether the container is being stopped.
 */
#include "init.h"

#include <asm/siginfo.h>
#include <asm/signal.h>
#include <linux/reboot.h>
#include <linux/signalfd.h>

static long signals = -1;

/* Children, and the kernel's SIGINT for Ctrl-Alt-Del. */
long open_signals(void)
{
	uint64_t wanted = 1ul << (SIGCHLD - 1) | 1ul << (SIGINT - 1);

	call(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_CAD_OFF, 0);
	signals = call(signalfd4, -1, &wanted, sizeof(wanted), O_NONBLOCK | O_CLOEXEC);
	return signals;
}

/* The next signal to pass on, 0 where there is none. */
static int next_signal(void)
{
	struct signalfd_siginfo info;

	while (call(read, signals, &info, sizeof(info)) == sizeof(info))
		if (info.ssi_signo == SIGINT && info.ssi_code == SI_KERNEL)
			return SIGTERM;
	return control_read();
}

/* Engines stop a container by one of these, unless its image has another. */
static bool stops(int signal)
{
	return signal == SIGTERM || signal == SIGINT || signal == SIGQUIT;
}

bool pass_signals(long application)
{
	static bool stopped;
	int signal;

	while ((signal = next_signal())) {
		stopped |= stops(signal);
		if (application)
			call(kill, application, signal);
	}
	return stopped;
}
