/* Words, numbers and a checksum of the test guest. */
#include "guest.h"

bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

bool word_is(const char *word, const char *name)
{
	char end;

	if (!starts_with(word, name))
		return false;
	end = word[strlen(name)];
	return end == '\0' || is_space(end);
}

const char *skip_word(const char *s)
{
	while (*s && !is_space(*s))
		s++;
	while (is_space(*s))
		s++;
	return s;
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

uint32_t parse_number(const char *s, const char **end)
{
	uint32_t value = 0;
	int base = 10;

	if (starts_with(s, "0x")) {
		base = 16;
		s += 2;
	}
	for (; digit(*s) < base; s++)
		value = value * base + digit(*s);
	if (end)
		*end = s;
	return value;
}

bool parse_ip(const char *s, uint8_t ip[4])
{
	for (int i = 0; i < 4; i++) {
		const char *end;
		uint32_t value = parse_number(s, &end);

		if (end == s || value > 255 || (i < 3 && *end != '.'))
			return false;
		ip[i] = (uint8_t)value;
		s = end + 1;
	}
	return true;
}

size_t parse_bytes(const char *s, uint8_t *to, size_t size)
{
	size_t n = 0;

	for (; n < size && digit(s[0]) < 16 && digit(s[1]) < 16; s += 2)
		to[n++] = (uint8_t)(digit(s[0]) << 4 | digit(s[1]));
	return n;
}

/* The CRC of zip, gzip and Python's zlib.crc32. By table: an initrd has millions of bytes. */
uint32_t crc32(const uint8_t *data, size_t size)
{
	static uint32_t table[256];
	uint32_t crc = 0xffffffff;

	for (uint32_t i = 0; i < 256; i++) {
		table[i] = i;
		for (int bit = 0; bit < 8; bit++)
			table[i] = (table[i] >> 1) ^ (table[i] & 1 ? 0xedb88320 : 0);
	}
	while (size--)
		crc = (crc >> 8) ^ table[(crc ^ *data++) & 0xff];
	return ~crc;
}
