/* virtio-balloon (virtio 1.2, 5.5), driven from the command `balloon` on: pages from the end of memory go and come. */
#include "guest.h"

#define PATIENCE_MS 2000
#define MESSAGE_PAGES 256
#define PAGE_KIB 4
#define FEATURE_STATISTICS (1u << 1)

enum { CONFIG_TARGET = 0, CONFIG_ACTUAL = 4 };
enum { GIVE, TAKE, STATISTICS, QUEUES };
enum { MEMORY_FREE = 4, MEMORY_TOTAL = 5 };

struct statistic {
	uint16_t tag;
	uint64_t value;
} __attribute__((packed));

static struct virtio balloon;
static struct queue queues[QUEUES];
static struct statistic statistics[] = { { MEMORY_FREE, 0 }, { MEMORY_TOTAL, 0 } };
static uint32_t given; /* pages */
static bool driven;

void balloon_add(struct virtio *device)
{
	balloon = *device;
}

static void send(uint16_t number, const void *data, uint32_t size)
{
	queues[number].descriptors[0] = (struct descriptor){ (uint32_t)data, size, 0, 0 };
	queue_add(&queues[number], 0);
	queue_kick(&balloon, &queues[number]);
}

static void tell_statistics(void)
{
	statistics[0].value = statistics[1].value = ((uint64_t)facts.memory_kib - given * PAGE_KIB) << 10;
	send(STATISTICS, statistics, sizeof(statistics));
}

void balloon_drive(void)
{
	bool ready = balloon.common && virtio_negotiate(&balloon, FEATURE_STATISTICS);

	for (uint16_t i = 0; i < QUEUES; i++)
		if (i != STATISTICS || balloon.features & FEATURE_STATISTICS)
			ready = ready && virtio_queue(&balloon, i, &queues[i]);
	if (!ready) {
		print("balloon: none\n");
		return;
	}
	virtio_ready(&balloon);
	if (balloon.features & FEATURE_STATISTICS)
		tell_statistics();
	driven = true;
	print("balloon: driven\n");
}

/* One message's worth on the way to what the monitor wants. */
static bool change(uint32_t target)
{
	static uint32_t pages[MESSAGE_PAGES];
	uint16_t number = target > given ? GIVE : TAKE;
	uint32_t count = 0, head, length, start = now_ms;

	while (count < MESSAGE_PAGES && given != target) {
		given += number == GIVE ? 1 : -1u;
		pages[count++] = facts.memory_kib / PAGE_KIB - (number == GIVE ? given : given + 1);
	}
	send(number, pages, count * sizeof(pages[0]));
	while (!queue_take(&queues[number], &head, &length))
		if (now_ms - start > PATIENCE_MS)
			return false;
	REG32(balloon.config + CONFIG_ACTUAL) = given;
	return true;
}

bool balloon_poll(void)
{
	uint32_t head, length, target;

	if (!driven)
		return false;
	if (queue_take(&queues[STATISTICS], &head, &length))
		tell_statistics();
	target = REG32(balloon.config + CONFIG_TARGET);
	if (target == given)
		return false;
	driven = change(target);
	return true;
}
