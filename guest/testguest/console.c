/* COM1, polled. Lines end with a bare newline, so that a container's log holds exactly what was printed. */
#include "guest.h"

#include <stdarg.h>

#define COM1 0x3f8
#define DATA (COM1 + 0)
#define INTERRUPT_ENABLE (COM1 + 1)
#define FIFO_CONTROL (COM1 + 2)
#define LINE_CONTROL (COM1 + 3)
#define MODEM_CONTROL (COM1 + 4)
#define LINE_STATUS (COM1 + 5)

#define RECEIVED 0x01
#define CAN_SEND 0x20

void console_init(void)
{
	out8(INTERRUPT_ENABLE, 0);
	out8(LINE_CONTROL, 0x03); /* 8 bits, no parity */
	out8(FIFO_CONTROL, 0x01); /* on, without clearing: a line may have been typed before we came up */
	out8(MODEM_CONTROL, 0x03);
}

static void print_char(char c)
{
	while (!(in8(LINE_STATUS) & CAN_SEND))
		;
	out8(DATA, (uint8_t)c);
}

static void print_number(uint32_t value, uint32_t base, int width)
{
	char digits[10];
	int n = 0;

	do {
		digits[n++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	while (width-- > n)
		print_char('0');
	while (n)
		print_char(digits[--n]);
}

void print(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	for (; *format; format++) {
		int width = 0;

		if (*format != '%') {
			print_char(*format);
			continue;
		}
		format++;
		if (*format == '0') {
			width = format[1] - '0';
			format += 2;
		}
		if (*format == 's')
			for (const char *s = va_arg(args, const char *); *s; s++)
				print_char(*s);
		else if (*format == 'c')
			print_char((char)va_arg(args, int));
		else
			print_number(va_arg(args, uint32_t), *format == 'x' ? 16 : 10, width);
	}
	va_end(args);
}

void print_bytes(const uint8_t *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
		print("%s%02x", i ? " " : "", data[i]);
}

bool console_line(char line[LINE_MAX])
{
	static char typed[LINE_MAX];
	static size_t length;

	while (in8(LINE_STATUS) & RECEIVED) {
		char c = (char)in8(DATA);

		if (c == '\n' || c == '\r') {
			typed[length] = '\0';
			memcpy(line, typed, length + 1);
			length = 0;
			return true;
		}
		if (length < LINE_MAX - 1)
			typed[length++] = c;
	}
	return false;
}
