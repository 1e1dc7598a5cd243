/* Internet and hardware addresses from text. */
#include "address.h"

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_ipv4(const char *s, uint8_t octets[4])
{
	for (int i = 0; i < 4; i++) {
		unsigned value = 0, digits = 0;

		for (; *s >= '0' && *s <= '9' && digits < 4; s++, digits++)
			value = 10 * value + (unsigned)(*s - '0');
		if (digits == 0 || value > 255 || *s != (i < 3 ? '.' : '\0'))
			return false;
		octets[i] = (uint8_t)value;
		s++;
	}
	return true;
}

/* Groups of up to four digits, one "::" for as many zeros as are missing, an IPv4 address at the end (RFC 4291). */
static bool parse_ipv6(const char *s, uint8_t octets[16])
{
	int filled = 0, gap = -1;

	memset(octets, 0, 16);
	if (s[0] == ':' && s[1] != ':')
		return false;
	if (s[0] == ':')
		s++;
	while (*s && filled < 16) {
		unsigned value = 0, digits = 0;

		if (*s == ':' && gap < 0) {
			gap = filled;
			s++;
			continue;
		}
		if (!*find_char(s, ':') && *find_char(s, '.') && filled <= 12 && parse_ipv4(s, octets + filled)) {
			filled += 4;
			s = find_char(s, '\0');
			break;
		}
		for (; hex_digit(*s) >= 0 && digits < 5; s++, digits++)
			value = value << 4 | (unsigned)hex_digit(*s);
		if (digits == 0 || digits > 4 || (*s && *s != ':') || (*s == ':' && !s[1]))
			return false;
		octets[filled++] = (uint8_t)(value >> 8);
		octets[filled++] = (uint8_t)value;
		s += *s == ':';
	}
	if (*s || (gap < 0) != (filled == 16))
		return false;
	for (int i = 0; gap >= 0 && i < filled - gap; i++) {
		octets[15 - i] = octets[filled - 1 - i];
		octets[filled - 1 - i] = 0;
	}
	return true;
}

bool parse_ip(const char *text, struct address *address)
{
	address->family = *find_char(text, ':') ? AF_INET6 : AF_INET;
	address->prefix = (uint8_t)(8 * address_size(address));
	if (address->family == AF_INET)
		return parse_ipv4(text, address->octets);
	return parse_ipv6(text, address->octets);
}

bool parse_cidr(const char *text, struct address *address)
{
	const char *slash = find_char(text, '/');
	char ip[64];
	uint64_t prefix;

	if (!*slash || slash - text >= (long)sizeof(ip))
		return false;
	memcpy(ip, text, (size_t)(slash - text));
	ip[slash - text] = '\0';
	if (!parse_ip(ip, address) || !parse_number(slash + 1, address->prefix, &prefix))
		return false;
	address->prefix = (uint8_t)prefix;
	return true;
}

bool parse_mac(const char *text, uint8_t mac[6])
{
	for (int i = 0; i < 6; i++, text += 3) {
		int high = hex_digit(text[0]), low = high < 0 ? -1 : hex_digit(text[1]);

		if (low < 0 || text[2] != (i < 5 ? ':' : '\0'))
			return false;
		mac[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}
