/*
 * What the test guest's files know of each other. The guest has one address space, one CPU, no heap, and code
 * that uses integer registers alone: the software KVM of some machines cannot run SSE.
 */
#ifndef GUEST_H
#define GUEST_H

#include "freestanding.h"

#define LINE_MAX 512

/* io: ports, memory-mapped registers */

static inline void out8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void out16(uint16_t port, uint16_t value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void out32(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t in8(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline uint16_t in16(uint16_t port)
{
	uint16_t value;

	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline uint32_t in32(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline volatile void *at(uint32_t address)
{
	return (volatile void *)address;
}

#define REG8(address) (*(volatile uint8_t *)at(address))
#define REG16(address) (*(volatile uint16_t *)at(address))
#define REG32(address) (*(volatile uint32_t *)at(address))

/* text.c: strings and numbers */

bool is_space(char c);
bool word_is(const char *word, const char *name); /* a word ends at a blank or at the end of the string */
const char *skip_word(const char *s); /* the next word's first character, or the end of the string */
uint32_t parse_number(const char *s, const char **end); /* decimal, or hexadecimal after 0x */
bool parse_ip(const char *s, uint8_t ip[4]);
size_t parse_bytes(const char *s, uint8_t *to, size_t size); /* pairs of hexadecimal digits; how many there were */
uint32_t crc32(const uint8_t *data, size_t size);

/* console.c: COM1 */

void console_init(void);
void print(const char *format, ...) __attribute__((format(printf, 1, 2))); /* %s %u %x %02x %08x %c */
void print_bytes(const uint8_t *data, size_t size);
bool console_line(char line[LINE_MAX]); /* true where a whole line has come */

/* facts.c: what the loader said */

struct facts {
	const char *cmdline;
	uint32_t memory_kib;
	const uint8_t *initrd;
	uint32_t initrd_size;
};

extern struct facts facts;

void read_multiboot(const void *info);
void read_pvh(const void *info);
void read_linux(const void *info);
void print_facts(void);

/* machine.c: time, ends, the power button */

extern volatile uint32_t now_ms;
extern volatile uint32_t tick_ms;

void machine_init(void);
void exception(uint32_t vector) __attribute__((noreturn));
void poll_fast(bool fast); /* wake up 1000 times a second, or 100 */
void wait_for_tick(void);
void sleep_ms(uint32_t ms);
void power_off(void) __attribute__((noreturn));
void reset(void) __attribute__((noreturn));
void end_with(uint32_t status) __attribute__((noreturn));
void panic(void) __attribute__((noreturn));
bool power_button(void);
bool ctrl_alt_del(void);

/* pci.c */

extern bool have_pci;

uint32_t pci_read(uint32_t function, uint32_t offset);
void pci_write(uint32_t function, uint32_t offset, uint32_t value);
uint32_t pci_bar(uint32_t function, uint32_t bar);
void pci_scan(void (*found)(uint32_t function, uint32_t vendor, uint32_t device));

/* virtio.c: the devices, by PCI (modern) or MMIO (legacy and modern) */

#define QUEUE_SIZE 16

struct descriptor {
	uint64_t address;
	uint32_t length;
	uint16_t flags;
	uint16_t next;
};

#define DESCRIPTOR_NEXT 1
#define DESCRIPTOR_WRITE 2

/* The legacy layout, which the modern interface takes as well: the used ring on a page of its own. */
struct queue {
	struct descriptor descriptors[QUEUE_SIZE];
	struct {
		uint16_t flags;
		volatile uint16_t index;
		uint16_t ring[QUEUE_SIZE];
	} available;
	struct {
		uint16_t flags;
		volatile uint16_t index;
		struct {
			uint32_t id;
			uint32_t length;
		} ring[QUEUE_SIZE];
	} used __attribute__((aligned(4096)));
	uint16_t number;
	uint16_t seen; /* used entries taken so far */
	uint32_t doorbell;
} __attribute__((aligned(4096)));

struct virtio {
	uint32_t id; /* VIRTIO_NET, .. */
	bool pci;
	bool legacy;
	uint32_t common; /* PCI: common configuration; MMIO: the registers */
	uint32_t notify;
	uint32_t notify_multiplier;
	uint32_t config;
	uint32_t features;
};

#define VIRTIO_NET 1
#define VIRTIO_BLOCK 2
#define VIRTIO_BALLOON 5
#define VIRTIO_9P 9

void virtio_scan(void (*found)(struct virtio *device));
bool virtio_negotiate(struct virtio *device, uint32_t wanted);
bool virtio_queue(struct virtio *device, uint16_t number, struct queue *queue);
void virtio_ready(struct virtio *device);
void queue_add(struct queue *queue, uint16_t head);
void queue_kick(struct virtio *device, struct queue *queue);
bool queue_take(struct queue *queue, uint32_t *head, uint32_t *length);

/* disk.c, share.c, balloon.c, net.c, protocols.c */

void disk_add(struct virtio *device);
void balloon_add(struct virtio *device);
void balloon_drive(void);
bool balloon_poll(void); /* true where memory went or came */
void share_add(struct virtio *device);
void share_send(const char *digits); /* a 9P message in hexadecimal digits */
void net_add(struct virtio *device);
void net_start(void); /* take the address from the boot string, tell the network */
bool net_poll(void); /* true where something came */
void net_flush(void); /* wait until what was sent has left */

/* commands.c */

void run_commands(const char *words);
bool run_line(const char *line); /* false where the line does not begin with a command */

#endif
