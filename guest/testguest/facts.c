/* What the loader said: boot string, memory map, initrd; by Multiboot 1, Xen's PVH start or Linux's boot parameters. */
#include "guest.h"

struct facts facts = { .cmdline = "" };

#define MEMORY_RAM 1

#define MULTIBOOT_CMDLINE 0x04
#define MULTIBOOT_MODULES 0x08
#define MULTIBOOT_MAP 0x40

struct multiboot_info {
	uint32_t flags;
	uint32_t mem_lower, mem_upper; /* KiB */
	uint32_t boot_device;
	uint32_t cmdline;
	uint32_t modules_count, modules;
	uint32_t symbols[4];
	uint32_t map_length, map;
};

struct multiboot_module {
	uint32_t start, end;
	uint32_t string, reserved;
};

struct multiboot_range {
	uint32_t size; /* of what follows */
	uint64_t start, length;
	uint32_t type;
} __attribute__((packed));

struct pvh_info {
	uint32_t magic, version, flags;
	uint32_t modules_count;
	uint64_t modules;
	uint64_t cmdline;
	uint64_t rsdp;
	uint64_t map; /* from version 1 */
	uint32_t map_count, reserved;
};

struct pvh_module {
	uint64_t start, size;
	uint64_t cmdline, reserved;
};

struct pvh_range {
	uint64_t start, length;
	uint32_t type, reserved;
};

/* Linux's "zero page" (Documentation/arch/x86/zero-page.rst), as far as it is read. */
struct linux_parameters {
	uint8_t before_ranges_count[0x1e8], ranges_count;
	uint8_t before_initrd[0x218 - 0x1e9];
	uint32_t initrd, initrd_size;
	uint8_t before_cmdline[0x228 - 0x220];
	uint32_t cmdline;
	uint8_t before_ranges[0x2d0 - 0x22c];
	struct {
		uint64_t start, length;
		uint32_t type;
	} __attribute__((packed)) ranges[128];
};

static void add_memory(uint32_t type, uint64_t length)
{
	if (type == MEMORY_RAM)
		facts.memory_kib += (uint32_t)(length >> 10);
}

static void read_multiboot_map(const struct multiboot_info *info)
{
	uint32_t range = info->map;

	while (range < info->map + info->map_length) {
		const struct multiboot_range *r = (const void *)range;

		add_memory(r->type, r->length);
		range += r->size + 4;
	}
}

void read_multiboot(const void *pointer)
{
	const struct multiboot_info *info = pointer;

	/* QEMU puts the kernel's path before the boot string. */
	if (info->flags & MULTIBOOT_CMDLINE)
		facts.cmdline = skip_word((const char *)info->cmdline);
	if (info->flags & MULTIBOOT_MODULES && info->modules_count) {
		const struct multiboot_module *module = (const void *)info->modules;

		facts.initrd = (const uint8_t *)module->start;
		facts.initrd_size = module->end - module->start;
	}
	if (info->flags & MULTIBOOT_MAP)
		read_multiboot_map(info);
	else
		facts.memory_kib = 1024 + info->mem_upper;
}

void read_pvh(const void *pointer)
{
	const struct pvh_info *info = pointer;
	const struct pvh_range *ranges = (const void *)(uint32_t)info->map;

	if (info->cmdline)
		facts.cmdline = (const char *)(uint32_t)info->cmdline;
	if (info->modules_count) {
		const struct pvh_module *module = (const void *)(uint32_t)info->modules;

		facts.initrd = (const uint8_t *)(uint32_t)module->start;
		facts.initrd_size = (uint32_t)module->size;
	}
	for (uint32_t i = 0; info->version >= 1 && i < info->map_count; i++)
		add_memory(ranges[i].type, ranges[i].length);
}

void read_linux(const void *pointer)
{
	const struct linux_parameters *info = pointer;

	if (info->cmdline)
		facts.cmdline = (const char *)info->cmdline;
	facts.initrd = (const uint8_t *)info->initrd;
	facts.initrd_size = info->initrd_size;
	for (uint32_t i = 0; i < info->ranges_count; i++)
		add_memory(info->ranges[i].type, info->ranges[i].length);
}

static uint32_t cpus(void)
{
	const uint16_t selector = 0x510, data = 0x511, signature = 0, cpu_count = 5;

	out16(selector, signature);
	if (in8(data) != 'Q' || in8(data) != 'E')
		return 0;
	out16(selector, cpu_count);
	return in8(data) | in8(data) << 8;
}

void print_facts(void)
{
	uint32_t size = facts.initrd_size;

	print("cmdline: %s\n", facts.cmdline);
	/* Rounded up: firmware keeps some hundred KiB for itself. */
	print("memory: %u MiB\n", (facts.memory_kib + 1023) >> 10);
	if (cpus())
		print("cpus: %u\n", cpus());
	if (!facts.initrd) {
		print("initrd: none\n");
		return;
	}
	print("initrd: %u bytes, crc32 %08x, first bytes ", size, crc32(facts.initrd, size));
	print_bytes(facts.initrd, size < 16 ? size : 16);
	print("\n");
}
