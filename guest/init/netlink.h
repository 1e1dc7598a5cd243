/* One rtnetlink request after the other. */
#ifndef NETLINK_H
#define NETLINK_H

#include "init.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

struct request {
	struct nlmsghdr header;
	char body[512];
};

void netlink_begin(struct request *request, uint16_t type, uint16_t flags, const void *body, size_t size);
void netlink_add(struct request *request, uint16_t type, const void *value, size_t size);
long netlink_do(struct request *request); /* send it; the kernel's answer: 0 or a negative errno */
long netlink_find_link(const uint8_t mac[6], char *name, size_t size); /* the interface's index, 0 where none is */

#endif
