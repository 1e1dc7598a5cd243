/* virtio-net: cards, their queues, and the frames that come and go by them. */
#include "net.h"

#define NICS 4
#define FRAME 9216
#define HEADER_MODERN 12
#define HEADER_LEGACY 10
#define FEATURE_MTU (1u << 3)
#define FEATURE_MAC (1u << 5)
#define CONFIG_MTU 10
#define FLUSH_MS 200

struct buffer {
	uint8_t header[HEADER_MODERN];
	uint8_t frame[FRAME];
};

struct nic {
	struct virtio device;
	uint8_t mac[6];
	uint32_t header; /* octets of the virtio header: it ends where `frame` begins */
	uint16_t sent;
	struct queue receive, transmit;
	struct buffer in[QUEUE_SIZE], out[QUEUE_SIZE];
};

static struct nic nics[NICS];
static uint32_t nic_count;

static struct descriptor descriptor_of(struct nic *nic, struct buffer *buffer, size_t size, uint16_t flags)
{
	uint32_t start = (uint32_t)buffer->frame - nic->header;

	return (struct descriptor){ start, (uint32_t)(nic->header + size), flags, 0 };
}

void nic_send(struct nic *nic, const void *frame, size_t size)
{
	uint16_t slot = nic->sent % QUEUE_SIZE;
	struct buffer *buffer = &nic->out[slot];

	/* Full: a peer that does not read loses frames, as on any network. */
	if ((uint16_t)(nic->sent - nic->transmit.used.index) >= QUEUE_SIZE)
		return;
	memcpy(buffer->frame, frame, size);
	nic->transmit.descriptors[slot] = descriptor_of(nic, buffer, size, 0);
	nic->sent++;
	queue_add(&nic->transmit, slot);
	queue_kick(&nic->device, &nic->transmit);
}

const uint8_t *nic_mac(const struct nic *nic)
{
	return nic->mac;
}

struct nic *nic_first(void)
{
	return nic_count ? &nics[0] : NULL;
}

void net_flush(void)
{
	uint32_t start = now_ms;

	for (uint32_t i = 0; i < nic_count; i++)
		while (nics[i].transmit.used.index != nics[i].sent && now_ms - start < FLUSH_MS)
			wait_for_tick();
}

static void offer(struct nic *nic, uint16_t slot)
{
	nic->receive.descriptors[slot] = descriptor_of(nic, &nic->in[slot], FRAME, DESCRIPTOR_WRITE);
	queue_add(&nic->receive, slot);
}

static bool poll_nic(struct nic *nic)
{
	uint32_t slot, length;
	bool any = false;

	while (queue_take(&nic->receive, &slot, &length)) {
		if (length > nic->header)
			handle_frame(nic, nic->in[slot].frame, length - nic->header);
		offer(nic, (uint16_t)slot);
		any = true;
	}
	if (any)
		queue_kick(&nic->device, &nic->receive);
	return any;
}

bool net_poll(void)
{
	bool any = false;

	for (uint32_t i = 0; i < nic_count; i++)
		any |= poll_nic(&nics[i]);
	return any;
}

static void print_nic(const struct nic *nic)
{
	print("nic%u: mac ", nic_count);
	for (int i = 0; i < 6; i++)
		print("%s%02x", i ? ":" : "", nic->mac[i]);
	if (nic->device.features & FEATURE_MTU)
		print(", mtu %u", (uint32_t)REG16(nic->device.config + CONFIG_MTU));
	print("\n");
}

void net_add(struct virtio *device)
{
	struct nic *nic = &nics[nic_count];

	if (nic_count == NICS)
		return;
	if (!virtio_negotiate(device, FEATURE_MAC | FEATURE_MTU) || !virtio_queue(device, 0, &nic->receive) ||
	    !virtio_queue(device, 1, &nic->transmit)) {
		print("nic%u: refused its set-up\n", nic_count);
		return;
	}
	nic->device = *device;
	nic->header = device->legacy ? HEADER_LEGACY : HEADER_MODERN;
	for (uint32_t i = 0; i < 6; i++)
		nic->mac[i] = REG8(device->config + i);
	for (uint16_t i = 0; i < QUEUE_SIZE; i++)
		offer(nic, i);
	virtio_ready(device);
	queue_kick(device, &nic->receive);
	print_nic(nic);
	nic_count++;
}
