/* rtnetlink(7): requests with an acknowledgement, and the search for an interface by its hardware address. */
#include "netlink.h"

#define AF_NETLINK 16
#define SOCK_RAW 3
#define SOCK_CLOEXEC O_CLOEXEC
#define MAC_SIZE 6

static long netlink_socket(void)
{
	static long file = -1;

	if (file < 0)
		file = call(socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	return file;
}

void netlink_begin(struct request *request, uint16_t type, uint16_t flags, const void *body, size_t size)
{
	memset(request, 0, sizeof(*request));
	request->header.nlmsg_len = (uint32_t)NLMSG_LENGTH(size);
	request->header.nlmsg_type = type;
	request->header.nlmsg_flags = NLM_F_REQUEST | flags;
	memcpy(request->body, body, size);
}

void netlink_add(struct request *request, uint16_t type, const void *value, size_t size)
{
	uint32_t start = NLMSG_ALIGN(request->header.nlmsg_len);
	struct rtattr *attribute = (void *)((char *)request + start);

	attribute->rta_type = type;
	attribute->rta_len = (uint16_t)RTA_LENGTH(size);
	memcpy(RTA_DATA(attribute), value, size);
	request->header.nlmsg_len = start + (uint32_t)RTA_SPACE(size);
}

static long send(struct request *request)
{
	static uint32_t sequence;

	request->header.nlmsg_seq = ++sequence;
	return call(sendto, netlink_socket(), request, request->header.nlmsg_len, 0, 0, 0);
}

long netlink_do(struct request *request)
{
	char answer[1024] __attribute__((aligned(8)));
	const struct nlmsghdr *header = (const void *)answer;
	long n;

	request->header.nlmsg_flags |= NLM_F_ACK;
	n = send(request);
	if (n < 0)
		return n;
	n = call(recvfrom, netlink_socket(), answer, sizeof(answer), 0, 0, 0);
	if (n < 0)
		return n;
	if (n < (long)NLMSG_LENGTH(sizeof(struct nlmsgerr)) || header->nlmsg_type != NLMSG_ERROR)
		return -EIO;
	return ((const struct nlmsgerr *)NLMSG_DATA(header))->error;
}

/* The index of the link in one message of the dump, where its address is `mac`. */
static long match_link(const struct nlmsghdr *header, const uint8_t mac[MAC_SIZE], char *name, size_t size)
{
	const struct ifinfomsg *link = NLMSG_DATA(header);
	const struct rtattr *attribute = IFLA_RTA(link);
	int left = (int)IFLA_PAYLOAD(header);
	bool found = false;

	for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
		if (attribute->rta_type == IFLA_IFNAME)
			copy_text(name, size, RTA_DATA(attribute));
		if (attribute->rta_type == IFLA_ADDRESS && RTA_PAYLOAD(attribute) == MAC_SIZE)
			found = memcmp(RTA_DATA(attribute), mac, MAC_SIZE) == 0;
	}
	return found ? link->ifi_index : 0;
}

/* The dump is read to its end in any case: what is left would answer the next request. */
long netlink_find_link(const uint8_t mac[MAC_SIZE], char *name, size_t size)
{
	static char answer[32768] __attribute__((aligned(8)));
	struct ifinfomsg any = { .ifi_family = 0 };
	struct request request;
	long index = 0;

	netlink_begin(&request, RTM_GETLINK, NLM_F_DUMP, &any, sizeof(any));
	if (send(&request) < 0)
		return 0;
	for (;;) {
		long left = call(recvfrom, netlink_socket(), answer, sizeof(answer), 0, 0, 0);
		const struct nlmsghdr *header = (const void *)answer;

		if (left <= 0)
			return index;
		for (; NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
			char other[64];

			if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR)
				return index;
			if (!index)
				index = match_link(header, mac, name, size);
			else
				match_link(header, mac, other, sizeof(other));
		}
	}
}
