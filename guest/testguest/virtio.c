/* virtio devices and queues (OASIS virtio 1.2): modern PCI, and MMIO both legacy (version 1) and modern. */
#include "guest.h"

#define VENDOR 0x1af4
#define FIRST_DEVICE 0x1000
#define FIRST_MODERN 0x1040
#define LAST_DEVICE 0x107f

#define PCI_COMMAND 0x04
#define PCI_MEMORY_AND_MASTER 0x6
#define PCI_SUBSYSTEM 0x2e
#define PCI_CAPABILITIES 0x34
#define PCI_CAPABILITY_VENDOR 0x09

enum { CAPABILITY_COMMON = 1, CAPABILITY_NOTIFY = 2, CAPABILITY_CONFIG = 4 };

enum { /* the common configuration on PCI */
	COMMON_DEVICE_FEATURES_SELECT = 0,
	COMMON_DEVICE_FEATURES = 4,
	COMMON_DRIVER_FEATURES_SELECT = 8,
	COMMON_DRIVER_FEATURES = 12,
	COMMON_STATUS = 20,
	COMMON_QUEUE_SELECT = 22,
	COMMON_QUEUE_SIZE = 24,
	COMMON_QUEUE_ENABLE = 28,
	COMMON_QUEUE_NOTIFY_OFFSET = 30,
	COMMON_QUEUE_DESCRIPTORS = 32,
	COMMON_QUEUE_AVAILABLE = 40,
	COMMON_QUEUE_USED = 48,
};

enum { /* registers on MMIO */
	MMIO_MAGIC = 0x00,
	MMIO_VERSION = 0x04,
	MMIO_DEVICE = 0x08,
	MMIO_DEVICE_FEATURES = 0x10,
	MMIO_DEVICE_FEATURES_SELECT = 0x14,
	MMIO_DRIVER_FEATURES = 0x20,
	MMIO_DRIVER_FEATURES_SELECT = 0x24,
	MMIO_LEGACY_PAGE_SIZE = 0x28,
	MMIO_QUEUE_SELECT = 0x30,
	MMIO_QUEUE_MAXIMUM = 0x34,
	MMIO_QUEUE_SIZE = 0x38,
	MMIO_LEGACY_QUEUE_ALIGN = 0x3c,
	MMIO_LEGACY_QUEUE_PAGE = 0x40,
	MMIO_QUEUE_READY = 0x44,
	MMIO_QUEUE_NOTIFY = 0x50,
	MMIO_STATUS = 0x70,
	MMIO_QUEUE_DESCRIPTORS = 0x80,
	MMIO_QUEUE_AVAILABLE = 0x90,
	MMIO_QUEUE_USED = 0xa0,
	MMIO_CONFIG = 0x100,
};

#define MMIO_MAGIC_VALUE 0x74726976 /* "virt" */
#define PAGE 4096

/* Where QEMU's microvm has its transports, at most; with ACPI it does not name them in the boot string. */
#define MICROVM_MMIO 0xfeb00000
#define MICROVM_MMIO_SIZE 0x200
#define MICROVM_TRANSPORTS 24

#define STATUS_ACKNOWLEDGE 1
#define STATUS_DRIVER 2
#define STATUS_DRIVER_OK 4
#define STATUS_FEATURES_OK 8

#define FEATURES_HIGH_VERSION_1 1 /* bit 32 */

static void (*report)(struct virtio *);

static void pci_capability(struct virtio *device, uint32_t function, uint32_t offset)
{
	uint32_t type = pci_read(function, offset + 3) & 0xff;
	uint32_t bar = pci_read(function, offset + 4) & 0xff;
	uint32_t address;

	if (bar > 5 || (type != CAPABILITY_COMMON && type != CAPABILITY_NOTIFY && type != CAPABILITY_CONFIG))
		return;
	address = pci_bar(function, bar) + pci_read(function, offset + 8);
	if (type == CAPABILITY_COMMON) {
		device->common = address;
	} else if (type == CAPABILITY_CONFIG) {
		device->config = address;
	} else {
		device->notify = address;
		device->notify_multiplier = pci_read(function, offset + 16);
	}
}

static void pci_found(uint32_t function, uint32_t vendor, uint32_t id)
{
	struct virtio device = { .pci = true };
	uint32_t offset;

	if (vendor != VENDOR || id < FIRST_DEVICE || id > LAST_DEVICE)
		return;
	device.id = id >= FIRST_MODERN ? id - FIRST_MODERN : pci_read(function, PCI_SUBSYSTEM) & 0xffff;
	pci_write(function, PCI_COMMAND, pci_read(function, PCI_COMMAND) | PCI_MEMORY_AND_MASTER);
	offset = pci_read(function, PCI_CAPABILITIES) & 0xfc;
	for (; offset; offset = pci_read(function, offset + 1) & 0xfc)
		if ((pci_read(function, offset) & 0xff) == PCI_CAPABILITY_VENDOR)
			pci_capability(&device, function, offset);
	if (device.common && device.notify)
		report(&device);
	else
		print("virtio device %u: not modern, left out\n", device.id);
}

static void mmio_probe(uint32_t base)
{
	struct virtio device = { .common = base, .config = base + MMIO_CONFIG };

	if (REG32(base + MMIO_MAGIC) != MMIO_MAGIC_VALUE)
		return;
	device.id = REG32(base + MMIO_DEVICE);
	device.legacy = REG32(base + MMIO_VERSION) == 1;
	if (device.id)
		report(&device);
}

/* virtio_mmio.device=SIZE@ADDRESS:IRQ, as Firecracker, and microvm without ACPI, append to the boot string. */
static bool mmio_from_cmdline(void)
{
	bool any = false;

	for (const char *word = facts.cmdline; *word; word = skip_word(word)) {
		if (!starts_with(word, "virtio_mmio.device="))
			continue;
		while (*word && !is_space(*word) && *word != '@')
			word++;
		if (*word != '@')
			continue;
		mmio_probe(parse_number(word + 1, NULL));
		any = true;
	}
	return any;
}

void virtio_scan(void (*found)(struct virtio *device))
{
	report = found;
	pci_scan(pci_found);
	if (have_pci || mmio_from_cmdline())
		return;
	/* QEMU fills the transports from the last one down: this way disk0 is the first that it was given. */
	for (uint32_t i = MICROVM_TRANSPORTS; i--;)
		mmio_probe(MICROVM_MMIO + i * MICROVM_MMIO_SIZE);
}

static void set_status(struct virtio *device, uint8_t status)
{
	if (device->pci)
		REG8(device->common + COMMON_STATUS) = status;
	else
		REG32(device->common + MMIO_STATUS) = status;
}

static uint8_t get_status(struct virtio *device)
{
	return device->pci ? REG8(device->common + COMMON_STATUS) : (uint8_t)REG32(device->common + MMIO_STATUS);
}

static uint32_t device_features(struct virtio *device, uint32_t word)
{
	if (device->pci) {
		REG32(device->common + COMMON_DEVICE_FEATURES_SELECT) = word;
		return REG32(device->common + COMMON_DEVICE_FEATURES);
	}
	REG32(device->common + MMIO_DEVICE_FEATURES_SELECT) = word;
	return REG32(device->common + MMIO_DEVICE_FEATURES);
}

static void accept_features(struct virtio *device, uint32_t word, uint32_t features)
{
	if (device->pci) {
		REG32(device->common + COMMON_DRIVER_FEATURES_SELECT) = word;
		REG32(device->common + COMMON_DRIVER_FEATURES) = features;
	} else {
		REG32(device->common + MMIO_DRIVER_FEATURES_SELECT) = word;
		REG32(device->common + MMIO_DRIVER_FEATURES) = features;
	}
}

bool virtio_negotiate(struct virtio *device, uint32_t wanted)
{
	set_status(device, 0);
	set_status(device, STATUS_ACKNOWLEDGE); /* Firecracker takes no step for two */
	set_status(device, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
	device->features = device_features(device, 0) & wanted;
	accept_features(device, 0, device->features);
	if (device->legacy) {
		REG32(device->common + MMIO_LEGACY_PAGE_SIZE) = PAGE;
		return true;
	}
	accept_features(device, 1, device_features(device, 1) & FEATURES_HIGH_VERSION_1);
	set_status(device, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
	return get_status(device) & STATUS_FEATURES_OK;
}

void virtio_ready(struct virtio *device)
{
	set_status(device, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK |
				   (device->legacy ? 0 : STATUS_FEATURES_OK));
}

static void set_address(uint32_t at_register, const volatile void *address)
{
	REG32(at_register) = (uint32_t)address;
	REG32(at_register + 4) = 0;
}

static bool pci_queue(struct virtio *device, struct queue *queue)
{
	uint32_t common = device->common;

	REG16(common + COMMON_QUEUE_SELECT) = queue->number;
	if (REG16(common + COMMON_QUEUE_SIZE) < QUEUE_SIZE)
		return false;
	REG16(common + COMMON_QUEUE_SIZE) = QUEUE_SIZE;
	set_address(common + COMMON_QUEUE_DESCRIPTORS, queue->descriptors);
	set_address(common + COMMON_QUEUE_AVAILABLE, &queue->available);
	set_address(common + COMMON_QUEUE_USED, &queue->used);
	queue->doorbell = device->notify + REG16(common + COMMON_QUEUE_NOTIFY_OFFSET) * device->notify_multiplier;
	REG16(common + COMMON_QUEUE_ENABLE) = 1;
	return true;
}

static bool mmio_queue(struct virtio *device, struct queue *queue)
{
	uint32_t base = device->common;

	REG32(base + MMIO_QUEUE_SELECT) = queue->number;
	if (REG32(base + MMIO_QUEUE_MAXIMUM) < QUEUE_SIZE)
		return false;
	REG32(base + MMIO_QUEUE_SIZE) = QUEUE_SIZE;
	queue->doorbell = base + MMIO_QUEUE_NOTIFY;
	if (device->legacy) {
		REG32(base + MMIO_LEGACY_QUEUE_ALIGN) = PAGE;
		REG32(base + MMIO_LEGACY_QUEUE_PAGE) = (uint32_t)queue / PAGE;
		return true;
	}
	set_address(base + MMIO_QUEUE_DESCRIPTORS, queue->descriptors);
	set_address(base + MMIO_QUEUE_AVAILABLE, &queue->available);
	set_address(base + MMIO_QUEUE_USED, &queue->used);
	REG32(base + MMIO_QUEUE_READY) = 1;
	return true;
}

bool virtio_queue(struct virtio *device, uint16_t number, struct queue *queue)
{
	queue->number = number;
	return device->pci ? pci_queue(device, queue) : mmio_queue(device, queue);
}

void queue_add(struct queue *queue, uint16_t head)
{
	queue->available.ring[queue->available.index % QUEUE_SIZE] = head;
	__asm__ volatile("" : : : "memory"); /* the entry before the index; x86 keeps the order of stores */
	queue->available.index++;
}

void queue_kick(struct virtio *device, struct queue *queue)
{
	/* The index must be out before the doorbell's write asks for it. */
	__asm__ volatile("lock; addl $0, (%%esp)" : : : "memory");
	if (device->pci)
		REG16(queue->doorbell) = queue->number;
	else
		REG32(queue->doorbell) = queue->number;
}

bool queue_take(struct queue *queue, uint32_t *head, uint32_t *length)
{
	if (queue->used.index == queue->seen)
		return false;
	__asm__ volatile("" : : : "memory");
	*head = queue->used.ring[queue->seen % QUEUE_SIZE].id % QUEUE_SIZE;
	*length = queue->used.ring[queue->seen % QUEUE_SIZE].length;
	queue->seen++;
	return true;
}
