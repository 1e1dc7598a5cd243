/*
 * The least of a network: ARP, ping, UDP echo (port 7), commands by UDP (port 9), and a web page (port 80). Every
 * answer goes to the MAC that the question came from, so a /32 address and a gateway off the link need no routes.
 */
#include "net.h"

#define ETHERTYPE_IP 0x0800
#define ETHERTYPE_ARP 0x0806
#define ARP_REQUEST 1
#define ARP_REPLY 2
#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define ICMP_ECHO_REPLY 0
#define ICMP_ECHO 8
#define PORT_ECHO 7
#define PORT_COMMAND 9
#define PORT_HTTP 80

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_PSH 0x08
#define TCP_ACK 0x10
#define TCP_FIRST 0x10000000 /* our first sequence number, of every connection */
#define PAGE_MAX 1000

struct ethernet {
	uint8_t to[6], from[6];
	uint8_t type[2];
};

struct arp {
	struct ethernet ethernet;
	uint8_t hardware[2], protocol[2], hardware_size, protocol_size, operation[2];
	uint8_t sender_mac[6], sender_ip[4], target_mac[6], target_ip[4];
};

struct ip {
	struct ethernet ethernet;
	uint8_t version, tos, length[2], id[2], fragment[2], ttl, protocol, checksum[2];
	uint8_t from[4], to[4];
};

struct icmp {
	struct ip ip;
	uint8_t type, code, checksum[2];
};

struct udp {
	struct ip ip;
	uint8_t from_port[2], to_port[2], length[2], checksum[2];
	char data[];
};

struct tcp {
	struct ip ip;
	uint8_t from_port[2], to_port[2], sequence[4], acknowledged[4];
	uint8_t offset, flags, window[2], checksum[2], urgent[2];
	char data[];
};

static uint8_t our_ip[4];
static bool have_ip;

static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

static uint32_t get16(const uint8_t p[2])
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t p[4])
{
	return get16(p) << 16 | get16(p + 2);
}

static void put16(uint8_t p[2], uint32_t value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
}

static void put32(uint8_t p[4], uint32_t value)
{
	put16(p, value >> 16);
	put16(p + 2, value);
}

static void swap(uint8_t *a, uint8_t *b, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		uint8_t byte = a[i];

		a[i] = b[i];
		b[i] = byte;
	}
}

/* The Internet checksum (RFC 1071) of `size` octets, on top of `sum`. */
static uint32_t checksum(const uint8_t *data, size_t size, uint32_t sum)
{
	for (; size > 1; size -= 2, data += 2)
		sum += get16(data);
	if (size)
		sum += (uint32_t)data[0] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum & 0xffff;
}

static void send_arp(struct nic *nic, uint32_t operation, const uint8_t mac[6], const uint8_t ip[4])
{
	struct arp arp = { .hardware = { 0, 1 }, .protocol = { 8, 0 }, .hardware_size = 6, .protocol_size = 4 };

	memcpy(arp.ethernet.to, mac, 6);
	memcpy(arp.ethernet.from, nic_mac(nic), 6);
	put16(arp.ethernet.type, ETHERTYPE_ARP);
	put16(arp.operation, operation);
	memcpy(arp.sender_mac, nic_mac(nic), 6);
	memcpy(arp.sender_ip, our_ip, 4);
	memcpy(arp.target_mac, mac, 6);
	memcpy(arp.target_ip, ip, 4);
	nic_send(nic, &arp, sizeof(arp));
}

static void handle_arp(struct nic *nic, const struct arp *arp, size_t size)
{
	if (size < sizeof(*arp) || get16(arp->operation) != ARP_REQUEST || memcmp(arp->target_ip, our_ip, 4) != 0)
		return;
	send_arp(nic, ARP_REPLY, arp->sender_mac, arp->sender_ip);
}

/* Send a received packet back to where it came from; `size` octets from the Ethernet header on. */
static void answer(struct nic *nic, struct ip *ip, size_t size)
{
	swap(ip->from, ip->to, 4);
	memcpy(ip->ethernet.to, ip->ethernet.from, 6);
	memcpy(ip->ethernet.from, nic_mac(nic), 6);
	put16(ip->length, size - sizeof(ip->ethernet));
	ip->ttl = 64;
	put16(ip->checksum, 0);
	put16(ip->checksum, checksum(&ip->version, 20, 0));
	nic_send(nic, ip, size);
}

static void handle_icmp(struct nic *nic, struct icmp *icmp, size_t size)
{
	if (size < sizeof(*icmp) || icmp->type != ICMP_ECHO)
		return;
	icmp->type = ICMP_ECHO_REPLY;
	put16(icmp->checksum, 0);
	put16(icmp->checksum, checksum(&icmp->type, size - sizeof(icmp->ip), 0));
	answer(nic, &icmp->ip, size);
}

static void handle_udp(struct nic *nic, struct udp *udp, size_t size)
{
	uint32_t port = get16(udp->to_port);
	char line[LINE_MAX];
	size_t length;

	if (size < sizeof(*udp) || (port != PORT_ECHO && port != PORT_COMMAND))
		return;
	length = size - sizeof(*udp) < LINE_MAX ? size - sizeof(*udp) : LINE_MAX - 1;
	memcpy(line, udp->data, length);
	line[length] = '\0';
	/* The checksum stays right: source and destination only change places. */
	swap(udp->from_port, udp->to_port, 2);
	answer(nic, &udp->ip, size);
	if (port == PORT_COMMAND) {
		net_flush();
		run_line(line);
	}
}

static size_t append(char *page, size_t length, const char *text)
{
	while (*text && length < PAGE_MAX)
		page[length++] = *text++;
	return length;
}

/* Without a Content-Length: the end of the connection is the end of the page. */
static size_t write_page(char *page)
{
	size_t length = append(page, 0, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n");

	length = append(page, length, "testguest: ");
	length = append(page, length, facts.cmdline);
	page[length++] = '\n';
	return length;
}

static void send_tcp(struct nic *nic, struct tcp *tcp, uint8_t flags, uint32_t next, size_t length)
{
	size_t size = sizeof(*tcp) - sizeof(tcp->ip) + length;
	uint32_t pseudo_header;

	swap(tcp->from_port, tcp->to_port, 2);
	put32(tcp->sequence, flags & TCP_SYN ? TCP_FIRST : get32(tcp->acknowledged));
	put32(tcp->acknowledged, next);
	tcp->offset = 5 << 4;
	tcp->flags = flags;
	put16(tcp->window, 8192);
	put16(tcp->urgent, 0);
	put16(tcp->checksum, 0);
	pseudo_header = get16(tcp->ip.from) + get16(tcp->ip.from + 2) + get16(tcp->ip.to) + get16(tcp->ip.to + 2) +
			PROTOCOL_TCP + size;
	put16(tcp->checksum, checksum(tcp->from_port, size, pseudo_header));
	answer(nic, &tcp->ip, sizeof(*tcp) + length);
}

/*
 * TCP without any state: what we have sent is read off the other side's acknowledgement number, so a repeated
 * segment gets the same answer again. One request in one segment, one page in one segment.
 */
static void handle_tcp(struct nic *nic, struct tcp *tcp, size_t size)
{
	size_t header = sizeof(tcp->ip) + (tcp->offset >> 4) * 4u;
	uint32_t length, next;

	if (size < sizeof(*tcp) || header < sizeof(*tcp) || header > size || tcp->flags & TCP_RST)
		return;
	length = size - header;
	next = get32(tcp->sequence) + length + !!(tcp->flags & TCP_SYN) + !!(tcp->flags & TCP_FIN);
	if (get16(tcp->to_port) != PORT_HTTP)
		send_tcp(nic, tcp, TCP_RST | TCP_ACK, next, 0);
	else if (tcp->flags & TCP_SYN)
		send_tcp(nic, tcp, TCP_SYN | TCP_ACK, next, 0);
	else if (length)
		send_tcp(nic, tcp, TCP_PSH | TCP_FIN | TCP_ACK, next, write_page(tcp->data));
	else if (tcp->flags & TCP_FIN)
		send_tcp(nic, tcp, get32(tcp->acknowledged) == TCP_FIRST + 1 ? TCP_FIN | TCP_ACK : TCP_ACK, next, 0);
}

static void handle_ip(struct nic *nic, struct ip *ip, size_t size)
{
	size_t length = get16(ip->length) + sizeof(ip->ethernet);

	/* Neither IP options nor fragments: nobody sends them to a test guest. */
	if (size < sizeof(*ip) || length > size || length < sizeof(*ip) || ip->version != 0x45 ||
	    get16(ip->fragment) & 0x3fff || memcmp(ip->to, our_ip, 4) != 0)
		return;
	if (ip->protocol == PROTOCOL_ICMP)
		handle_icmp(nic, (struct icmp *)ip, length);
	else if (ip->protocol == PROTOCOL_UDP)
		handle_udp(nic, (struct udp *)ip, length);
	else if (ip->protocol == PROTOCOL_TCP)
		handle_tcp(nic, (struct tcp *)ip, length);
}

void handle_frame(struct nic *nic, uint8_t *frame, size_t size)
{
	const struct ethernet *ethernet = (const void *)frame;

	if (!have_ip || size < sizeof(*ethernet))
		return;
	if (get16(ethernet->type) == ETHERTYPE_ARP)
		handle_arp(nic, (const void *)frame, size);
	else if (get16(ethernet->type) == ETHERTYPE_IP)
		handle_ip(nic, (void *)frame, size);
}

/* The addresses of Unikraft (new and old), MirageOS and mewz. */
static bool find_ip(void)
{
	static const char *const keys[] = { "netdev.ip=", "netdev.ipv4_addr=", "--ipv4=", "ip=" };

	for (const char *word = facts.cmdline; *word; word = skip_word(word))
		for (uint32_t i = 0; i < ARRAY_SIZE(keys); i++)
			if (starts_with(word, keys[i]) && parse_ip(word + strlen(keys[i]), our_ip))
				return true;
	return false;
}

void net_start(void)
{
	have_ip = find_ip();
	if (!have_ip)
		return;
	print("ip: %u.%u.%u.%u\n", our_ip[0], our_ip[1], our_ip[2], our_ip[3]);
	if (nic_first())
		send_arp(nic_first(), ARP_REQUEST, broadcast, our_ip);
}
