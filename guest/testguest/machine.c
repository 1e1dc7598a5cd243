/* Time, the ways a machine ends, and its power button, for QEMU's pc, q35 and microvm and for Firecracker. */
#include "guest.h"

#define LAPIC 0xfee00000
#define LAPIC_SPURIOUS (LAPIC + 0xf0)
#define LAPIC_TIMER (LAPIC + 0x320)
#define LAPIC_TIMER_COUNT (LAPIC + 0x380)
#define LAPIC_TIMER_DIVIDE (LAPIC + 0x3e0)
#define LAPIC_ENABLE 0x100
#define LAPIC_PERIODIC 0x20000
#define LAPIC_DIVIDE_BY_16 3
#define COUNTS_PER_MS (1000000 / 16) /* QEMU's and KVM's local APIC counts nanoseconds */

#define TIMER_VECTOR 0x40
#define SPURIOUS_VECTOR 0xff
#define CODE_SEGMENT 0x08
#define INTERRUPT_GATE 0x8e00

#define PIC1_MASK 0x21
#define PIC2_MASK 0xa1

#define DEBUG_EXIT 0x501
#define PVPANIC 0x505
#define PVPANIC_PANICKED 1

/* Where SeaBIOS puts the power management block of pc and q35. */
#define PM1_STATUS 0x600
#define PM1_ENABLE 0x602
#define PM1_CONTROL 0x604
#define PM1_POWER_BUTTON 0x100
#define PM1_SLEEP_S5 0x2000

/* The ACPI Generic Event Device of microvm. */
#define GED_EVENTS 0xfea00000
#define GED_SLEEP 0xfea00200
#define GED_POWER_DOWN 0x2
#define GED_SLEEP_S5 0x34

#define RESET_CONTROL 0xcf9
#define KEYBOARD_DATA 0x60
#define KEYBOARD_STATUS 0x64
#define KEYBOARD_FULL 0x01
#define KEYBOARD_RESET 0xfe
#define RESET_PORT_READS 2000

volatile uint32_t now_ms;
volatile uint32_t tick_ms = 10;

extern char timer_interrupt[], ignore_interrupt[], exception_stubs[];

struct gate {
	uint16_t offset_low, segment, type, offset_high;
};

static struct gate gates[256];

struct table {
	uint16_t limit;
	const void *base;
} __attribute__((packed));

static void set_gate(uint32_t vector, const char *handler)
{
	uint32_t address = (uint32_t)handler;

	gates[vector] = (struct gate){ (uint16_t)address, CODE_SEGMENT, INTERRUPT_GATE, (uint16_t)(address >> 16) };
}

void machine_init(void)
{
	struct table table = { sizeof(gates) - 1, gates };

	for (uint32_t i = 0; i < ARRAY_SIZE(gates); i++)
		set_gate(i, i < 32 ? exception_stubs + 16 * i : ignore_interrupt);
	set_gate(TIMER_VECTOR, timer_interrupt);
	__asm__ volatile("lidt %0" : : "m"(table));
	/* Everything is polled; the local APIC's timer alone wakes us, as it is there without PIT and PIC too. */
	out8(PIC1_MASK, 0xff);
	out8(PIC2_MASK, 0xff);
	REG32(LAPIC_SPURIOUS) = LAPIC_ENABLE | SPURIOUS_VECTOR;
	REG32(LAPIC_TIMER_DIVIDE) = LAPIC_DIVIDE_BY_16;
	REG32(LAPIC_TIMER) = LAPIC_PERIODIC | TIMER_VECTOR;
	poll_fast(true);
	out16(PM1_ENABLE, PM1_POWER_BUTTON);
	__asm__ volatile("sti" : : : "memory");
}

void poll_fast(bool fast)
{
	uint32_t ms = fast ? 1 : 10;

	if (ms == tick_ms)
		return;
	tick_ms = ms;
	REG32(LAPIC_TIMER_COUNT) = ms * COUNTS_PER_MS;
}

void wait_for_tick(void)
{
	__asm__ volatile("hlt" : : : "memory");
}

void sleep_ms(uint32_t ms)
{
	uint32_t start = now_ms;

	while (now_ms - start < ms)
		wait_for_tick();
}

void exception(uint32_t vector)
{
	print("exception %u\n", vector);
	panic();
}

static void halt(void) __attribute__((noreturn));
static void halt(void)
{
	for (;;)
		__asm__ volatile("cli; hlt" : : : "memory");
}

void reset(void)
{
	const struct table nothing = { 0, NULL };

	out8(RESET_CONTROL, 0x02);
	out8(RESET_CONTROL, 0x06);
	out8(KEYBOARD_STATUS, KEYBOARD_RESET);
	/* Firecracker resets in another thread, and takes a fault that comes first for a failure. */
	for (int i = 0; i < RESET_PORT_READS; i++)
		in8(KEYBOARD_STATUS);
	/* A fault without a table is a triple fault: every machine resets. */
	__asm__ volatile("lidt %0; int3" : : "m"(nothing));
	halt();
}

void power_off(void)
{
	out16(PM1_CONTROL, PM1_SLEEP_S5);
	REG8(GED_SLEEP) = GED_SLEEP_S5;
	/* Firecracker, and microvm without ACPI, end by a reset alone. */
	reset();
}

/* isa-debug-exit turns N into (N << 1) | 1: an even status ends as the odd one after it. */
void end_with(uint32_t status)
{
	if (status)
		out8(DEBUG_EXIT, (uint8_t)(status & 1 ? (status - 1) / 2 : status / 2));
	power_off();
}

void panic(void)
{
	uint8_t events = in8(PVPANIC);

	print("panic\n");
	if (events != 0xff && events & PVPANIC_PANICKED)
		out8(PVPANIC, PVPANIC_PANICKED);
	halt();
}

/* Firecracker's keyboard has these keys alone, and says that they went down, in this order. */
bool ctrl_alt_del(void)
{
	static const uint8_t codes[] = { 0x14, 0x11, 0xe0, 0x71 };
	static uint32_t pressed;
	uint8_t status = in8(KEYBOARD_STATUS);

	if (status == 0xff || !(status & KEYBOARD_FULL))
		return false;
	pressed = in8(KEYBOARD_DATA) == codes[pressed] ? pressed + 1 : 0;
	if (pressed < ARRAY_SIZE(codes))
		return false;
	pressed = 0;
	return true;
}

bool power_button(void)
{
	uint32_t events;

	if (have_pci) {
		uint16_t status = in16(PM1_STATUS);

		if (status == 0xffff || !(status & PM1_POWER_BUTTON))
			return false;
		out16(PM1_STATUS, PM1_POWER_BUTTON);
		return true;
	}
	events = REG32(GED_EVENTS);
	return events != 0xffffffff && events & GED_POWER_DOWN;
}
