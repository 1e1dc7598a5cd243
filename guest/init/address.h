/* Internet and hardware addresses from text. */
#ifndef ADDRESS_H
#define ADDRESS_H

#include "init.h"

#define AF_INET 2
#define AF_INET6 10

struct address {
	uint8_t family; /* AF_INET or AF_INET6 */
	uint8_t prefix; /* bits */
	uint8_t octets[16];
};

static inline size_t address_size(const struct address *address)
{
	return address->family == AF_INET ? 4 : 16;
}

bool parse_ip(const char *text, struct address *address); /* the prefix becomes the whole length */
bool parse_cidr(const char *text, struct address *address); /* IP/PREFIX */
bool parse_mac(const char *text, uint8_t mac[6]);

#endif
