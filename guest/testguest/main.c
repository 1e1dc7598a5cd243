/* The test guest: says what machine it is in, does what its boot string tells it, then serves for ever. */
#include "guest.h"

#define STAY_AWAKE_MS 100

void guest_main(uint32_t loader, const void *info);

static void device_found(struct virtio *device)
{
	if (device->id == VIRTIO_NET)
		net_add(device);
	else if (device->id == VIRTIO_BLOCK)
		disk_add(device);
	else if (device->id == VIRTIO_9P)
		share_add(device);
	else if (device->id == VIRTIO_BALLOON)
		balloon_add(device);
}

static bool console_poll(void)
{
	char line[LINE_MAX];

	if (!console_line(line))
		return false;
	if (!run_line(line))
		print("console: %s\n", line);
	return true;
}

/* Idle in hlt: hundreds of these guests run at once, on few CPUs. */
static void serve(void)
{
	uint32_t last = now_ms;

	for (;;) {
		bool busy = console_poll();

		busy |= net_poll();
		busy |= balloon_poll();
		if (power_button()) {
			print("power button\n");
			power_off();
		}
		if (ctrl_alt_del()) {
			print("ctrl-alt-del\n");
			power_off();
		}
		if (busy)
			last = now_ms;
		poll_fast(now_ms - last < STAY_AWAKE_MS);
		if (!busy)
			wait_for_tick();
	}
}

/* Where the boot string has a `--`, as Unikraft's, the commands are what follows it. */
static const char *command_words(void)
{
	for (const char *word = facts.cmdline; *word; word = skip_word(word))
		if (word_is(word, "--"))
			return skip_word(word);
	return facts.cmdline;
}

void guest_main(uint32_t loader, const void *info)
{
	static void (*const readers[])(const void *) = { read_multiboot, read_pvh, read_linux };

	console_init();
	machine_init();
	readers[loader](info);
	print_facts();
	virtio_scan(device_found);
	net_start();
	run_commands(command_words());
	print("ready\n");
	serve();
}
