/* The end of the machine, in the way that its monitor understands. */
#include "init.h"

#include <linux/reboot.h>
#include <linux/time.h>
#include <linux/time_types.h>

#define STOPPED_MS 3000 /* whoever stops a container waits for its end, and ten seconds at most as a rule */
#define DEBUG_EXIT 0x501
#define REBOOT_TYPE "/sys/kernel/reboot/type"

void sleep_ms(long ms)
{
	struct __kernel_timespec time = { ms / 1000, ms % 1000 * 1000000 };

	call(nanosleep, &time, 0);
}

int64_t now_ms(void)
{
	struct __kernel_timespec time = { 0 };

	call(clock_gettime, CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

int patience_left(struct patience *patience, bool taken)
{
	bool stopped = pass_signals(0);

	if (taken || stopped != patience->stopped)
		patience->since = now_ms();
	patience->stopped = stopped;
	return (int)(patience->since + (stopped ? STOPPED_MS : patience->ms) - now_ms());
}

/* QEMU's isa-debug-exit turns N into (N << 1) | 1: an even status ends as the odd one after it. */
static void debug_exit(int status)
{
#if defined(__x86_64__)
	uint8_t value = (uint8_t)(status & 1 ? (status - 1) / 2 : status / 2);

	if (call(iopl, 3) >= 0)
		__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"((uint16_t)DEBUG_EXIT));
#else
	(void)status;
#endif
}

static bool ends_by_fault(void)
{
	return equal(config_value("exit", ""), "triple-fault");
}

/*
 * Firecracker ends with a failure after a triple fault, and with 0 after the keyboard controller's reset: whatever
 * ends the machine before the application's status is known, such as a panic, is to be a failure.
 */
void expect_failure(void)
{
	if (ends_by_fault())
		write_file(REBOOT_TYPE, "triple");
}

static void reboot(unsigned long how)
{
	call(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, how, 0);
}

/* Without a configuration nobody knows which way is right: all are tried. */
void end_machine(int status)
{
	bool known = config.count > 0;

	drain_console();
	control_close();
	/* The kernel's farewell, an emergency message in its own eyes, is none of the application's output. */
	write_file("/proc/sys/kernel/printk", "0");
	call(sync);
	if (status != 0 && (!known || equal(config_value("exit", ""), "debug-exit")))
		debug_exit(status);
	if (status == 0 && ends_by_fault())
		write_file(REBOOT_TYPE, "kbd");
	if (equal(config_value("end", "poweroff"), "reboot"))
		reboot(LINUX_REBOOT_CMD_RESTART);
	reboot(LINUX_REBOOT_CMD_POWER_OFF);
	reboot(LINUX_REBOOT_CMD_RESTART);
	for (;;)
		sleep_ms(1000);
}
