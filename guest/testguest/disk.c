/* virtio-blk: says how large each disk is and what it begins with. */
#include "guest.h"

#define SECTOR 512
#define PATIENCE_MS 2000
#define FEATURE_READ_ONLY (1u << 5)
#define REQUEST_READ 0

struct request {
	uint32_t type, reserved;
	uint64_t sector;
};

static bool read_first_sector(struct virtio *device, uint8_t data[SECTOR])
{
	static struct queue queues[8];
	static uint32_t used;
	static struct request request = { .type = REQUEST_READ };
	struct queue *queue = &queues[used];
	volatile uint8_t status = 0xff;
	uint32_t head, length, start = now_ms;

	if (used == ARRAY_SIZE(queues) || !virtio_queue(device, 0, queue))
		return false;
	used++;
	virtio_ready(device);
	queue->descriptors[0] = (struct descriptor){ (uint32_t)&request, sizeof(request), DESCRIPTOR_NEXT, 1 };
	queue->descriptors[1] =
		(struct descriptor){ (uint32_t)data, SECTOR, DESCRIPTOR_NEXT | DESCRIPTOR_WRITE, 2 };
	queue->descriptors[2] = (struct descriptor){ (uint32_t)&status, 1, DESCRIPTOR_WRITE, 0 };
	queue_add(queue, 0);
	queue_kick(device, queue);
	while (!queue_take(queue, &head, &length))
		if (now_ms - start > PATIENCE_MS)
			return false;
	return status == 0;
}

void disk_add(struct virtio *device)
{
	static uint8_t data[SECTOR];
	static uint32_t number;

	print("disk%u: ", number++);
	if (!virtio_negotiate(device, FEATURE_READ_ONLY)) {
		print("no features in common\n");
		return;
	}
	print("%u sectors%s", REG32(device->config), device->features & FEATURE_READ_ONLY ? ", read-only" : "");
	if (read_first_sector(device, data)) {
		print(", first bytes ");
		print_bytes(data, 16);
		print("\n");
	} else {
		print(", unreadable\n");
	}
}
