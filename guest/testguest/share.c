/*
 * virtio-9p: sends the messages that it is told to, whatever they are, and prints the answers. What a 9P client would
 * never send is then a test's to write.
 */
#include "guest.h"

#define MESSAGE_MAX 16384
#define PATIENCE_MS 5000
#define FEATURE_MOUNT_TAG 1u

static struct virtio share;
static struct queue queue;

static void print_tag(void)
{
	uint32_t length = REG16(share.config);

	for (uint32_t i = 0; i < length; i++)
		print("%c", REG8(share.config + 2 + i));
}

void share_add(struct virtio *device)
{
	if (share.id) {
		print("share: one more, left out\n");
		return;
	}
	share = *device;
	print("share: ");
	if (!virtio_negotiate(&share, FEATURE_MOUNT_TAG) || !virtio_queue(&share, 0, &queue)) {
		print("no features in common\n");
		share.id = 0;
		return;
	}
	virtio_ready(&share);
	print_tag();
	print("\n");
}

/* Return the answer's length; 0 where there is none. */
static uint32_t ask(const uint8_t *message, size_t size, uint8_t *answer)
{
	uint32_t head, length, start = now_ms;

	queue.descriptors[0] = (struct descriptor){ (uint32_t)message, size, DESCRIPTOR_NEXT, 1 };
	queue.descriptors[1] = (struct descriptor){ (uint32_t)answer, MESSAGE_MAX, DESCRIPTOR_WRITE, 0 };
	queue_add(&queue, 0);
	queue_kick(&share, &queue);
	while (!queue_take(&queue, &head, &length))
		if (now_ms - start > PATIENCE_MS)
			return 0;
	return length;
}

void share_send(const char *digits)
{
	static uint8_t message[MESSAGE_MAX], answer[MESSAGE_MAX];
	size_t size = parse_bytes(digits, message, sizeof(message));
	uint32_t length = share.id && size ? ask(message, size, answer) : 0;

	print("9p: ");
	if (length)
		print_bytes(answer, length);
	else
		print("no answer");
	print("\n");
}
