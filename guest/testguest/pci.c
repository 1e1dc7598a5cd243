/* PCI configuration space by ports 0xcf8 and 0xcfc. A function is named by bus << 16 | device << 11 | number << 8. */
#include "guest.h"

#define ADDRESS 0xcf8
#define VALUE 0xcfc
#define ENABLE 0x80000000

#define NOTHING 0xffffffff
#define CLASS 0x08
#define HEADER_TYPE 0x0c
#define MANY_FUNCTIONS 0x00800000
#define BRIDGE 0x0604
#define BUS_NUMBERS 0x18
#define BAR0 0x10
#define BAR_64_BIT 0x4

bool have_pci;

uint32_t pci_read(uint32_t function, uint32_t offset)
{
	out32(ADDRESS, ENABLE | function | (offset & 0xfc));
	return in32(VALUE) >> 8 * (offset & 3);
}

void pci_write(uint32_t function, uint32_t offset, uint32_t value)
{
	out32(ADDRESS, ENABLE | function | (offset & 0xfc));
	out32(VALUE, value);
}

/* Newer firmware puts 64-bit BARs where a machine without paging cannot reach: bring them back. */
static void lower_bar(uint32_t function, uint32_t offset)
{
	static uint32_t next = 0xd0000000;

	pci_write(function, offset, next);
	pci_write(function, offset + 4, 0);
	next += 0x100000;
}

uint32_t pci_bar(uint32_t function, uint32_t bar)
{
	uint32_t offset = BAR0 + 4 * bar;

	if (pci_read(function, offset) & BAR_64_BIT && pci_read(function, offset + 4))
		lower_bar(function, offset);
	return pci_read(function, offset) & ~0xfu;
}

static uint32_t scan_device(uint32_t device, void (*found)(uint32_t, uint32_t, uint32_t))
{
	uint32_t last_bus = 0, count = pci_read(device, HEADER_TYPE) & MANY_FUNCTIONS ? 8 : 1;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t function = device | i << 8, id = pci_read(function, 0);

		if (id == NOTHING)
			continue;
		if (pci_read(function, CLASS) >> 16 == BRIDGE)
			last_bus = pci_read(function, BUS_NUMBERS) >> 16 & 0xff;
		found(function, id & 0xffff, id >> 16);
	}
	return last_bus;
}

void pci_scan(void (*found)(uint32_t function, uint32_t vendor, uint32_t device))
{
	uint32_t last_bus = 0, host_bridge = pci_read(0, 0);

	/* Where there is no bus, Firecracker leaves what was last written: a vendor of 0, which nobody is. */
	have_pci = host_bridge != NOTHING && (host_bridge & 0xffff) != 0;
	if (!have_pci)
		return;
	for (uint32_t bus = 0; bus <= last_bus; bus++)
		for (uint32_t device = 0; device < 32; device++) {
			uint32_t behind = scan_device(bus << 16 | device << 11, found);

			if (behind > last_bus)
				last_bus = behind;
		}
}
