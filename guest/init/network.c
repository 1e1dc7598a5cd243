/*
 * The network as the container's namespace has it: for each NIC, found by its MAC, the MTU, addresses, permanent
 * neighbours and routes of the configuration, whatever they look like (a /32 with a gateway off the link, IPv6).
 */
#include "address.h"
#include "netlink.h"

#include <linux/if_addr.h>
#include <linux/neighbour.h>

#define IFF_UP 1 /* linux/if.h wants a C library */
#define LOOPBACK_INDEX 1
#define NIC_PATIENCE_MS 3000
#define WORD 128

struct nic {
	uint32_t index;
	char name[32];
	size_t first, end; /* its records */
};

static long add_address(const struct nic *nic, const char *value)
{
	struct address address;
	struct ifaddrmsg message = { .ifa_index = nic->index };
	struct request request;
	uint32_t flags = IFA_F_PERMANENT | IFA_F_NODAD;

	if (!parse_cidr(value, &address))
		return -EINVAL;
	message.ifa_family = address.family;
	message.ifa_prefixlen = address.prefix;
	netlink_begin(&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &message, sizeof(message));
	netlink_add(&request, IFA_LOCAL, address.octets, address_size(&address));
	netlink_add(&request, IFA_ADDRESS, address.octets, address_size(&address));
	if (address.family == AF_INET6)
		netlink_add(&request, IFA_FLAGS, &flags, sizeof(flags));
	return netlink_do(&request);
}

/* "IP MAC" */
static long add_neighbour(const struct nic *nic, const char *value)
{
	struct ndmsg message = { .ndm_ifindex = (int)nic->index, .ndm_state = NUD_PERMANENT };
	struct address address;
	struct request request;
	char ip[WORD];
	uint8_t mac[6];

	if (!next_word(&value, ip, sizeof(ip)) || !parse_ip(ip, &address) || !parse_mac(value, mac))
		return -EINVAL;
	message.ndm_family = address.family;
	netlink_begin(&request, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &message, sizeof(message));
	netlink_add(&request, NDA_DST, address.octets, address_size(&address));
	netlink_add(&request, NDA_LLADDR, mac, sizeof(mac));
	return netlink_do(&request);
}

struct route {
	struct address destination, gateway, source;
	bool is_default, onlink;
	const char *scope;
	uint64_t metric;
};

static bool parse_route_option(const char *name, const char *value, struct route *route)
{
	static const char *const scopes[] = { "global", "link", "host" };

	if (equal(name, "via"))
		return parse_ip(value, &route->gateway);
	if (equal(name, "src"))
		return parse_ip(value, &route->source);
	if (equal(name, "metric"))
		return parse_number(value, UINT32_MAX, &route->metric);
	for (size_t i = 0; equal(name, "scope") && i < ARRAY_SIZE(scopes); i++)
		if (equal(value, scopes[i])) {
			route->scope = scopes[i];
			return true;
		}
	return false;
}

/* "default|DESTINATION/PREFIX [via IP] [onlink] [scope global|link|host] [metric N] [src IP]" */
static bool parse_route(const char *text, struct route *route)
{
	char name[WORD], value[WORD];

	memset(route, 0, sizeof(*route));
	if (!next_word(&text, name, sizeof(name)))
		return false;
	route->is_default = equal(name, "default");
	if (!route->is_default && !parse_cidr(name, &route->destination))
		return false;
	while (*text) {
		if (!next_word(&text, name, sizeof(name)))
			return false;
		if (equal(name, "onlink"))
			route->onlink = true;
		else if (!next_word(&text, value, sizeof(value)) || !parse_route_option(name, value, route))
			return false;
	}
	if (route->is_default)
		route->destination.family = route->gateway.family ?: route->source.family ?: AF_INET;
	return true;
}

/* Without a word about it, a route without a gateway has link scope, as with ip(8). */
static uint8_t route_scope(const struct route *route)
{
	bool on_link = !route->gateway.family && route->destination.family == AF_INET;

	if (!route->scope)
		return on_link ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
	if (equal(route->scope, "link"))
		return RT_SCOPE_LINK;
	return equal(route->scope, "host") ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE;
}

static void add_gateway(struct request *request, const struct route *route)
{
	struct {
		uint16_t family;
		uint8_t octets[16];
	} via = { .family = route->gateway.family };

	if (!route->gateway.family)
		return;
	if (route->gateway.family == route->destination.family) {
		netlink_add(request, RTA_GATEWAY, route->gateway.octets, address_size(&route->gateway));
		return;
	}
	/* IPv4 by an IPv6 gateway. */
	memcpy(via.octets, route->gateway.octets, address_size(&route->gateway));
	netlink_add(request, RTA_VIA, &via, sizeof(via.family) + address_size(&route->gateway));
}

/* What has the same destination and metric is another way there, the next hop of a multipath route: it stands beside. */
static long add_route(const struct nic *nic, const char *value)
{
	struct rtmsg message = { .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_BOOT, .rtm_type = RTN_UNICAST };
	struct request request;
	struct route route;
	uint32_t metric;

	if (!parse_route(value, &route))
		return -EINVAL;
	metric = (uint32_t)route.metric;
	message.rtm_family = route.destination.family;
	message.rtm_dst_len = route.destination.prefix;
	message.rtm_scope = route_scope(&route);
	message.rtm_flags = route.onlink ? RTNH_F_ONLINK : 0;
	netlink_begin(&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, &message, sizeof(message));
	netlink_add(&request, RTA_OIF, &nic->index, sizeof(nic->index));
	if (!route.is_default)
		netlink_add(&request, RTA_DST, route.destination.octets, address_size(&route.destination));
	add_gateway(&request, &route);
	if (route.source.family)
		netlink_add(&request, RTA_PREFSRC, route.source.octets, address_size(&route.source));
	if (metric)
		netlink_add(&request, RTA_PRIORITY, &metric, sizeof(metric));
	return netlink_do(&request);
}

static bool each(const struct nic *nic, const char *key, const char *what,
		 long (*add)(const struct nic *, const char *))
{
	for (size_t i = nic->first; i < nic->end; i++) {
		long error = equal(config.records[i].key, key) ? add(nic, config.records[i].value) : 0;

		if (error < 0 && error != -EEXIST) {
			say("cannot give %s the %s `%s`: %s", nic->name, what, config.records[i].value,
			    error_text(error));
			return false;
		}
	}
	return true;
}

/* A route may need another to reach its gateway, in any order: go round while that helps. */
static bool add_routes(const struct nic *nic)
{
	size_t failed = nic->end - nic->first, before;

	do {
		before = failed;
		failed = 0;
		for (size_t i = nic->first; i < nic->end; i++)
			if (equal(config.records[i].key, "route")) {
				long error = add_route(nic, config.records[i].value);

				failed += error < 0 && error != -EEXIST;
			}
	} while (failed && failed < before);
	return !failed || each(nic, "route", "route", add_route);
}

static long set_link(uint32_t index, uint64_t mtu)
{
	struct ifinfomsg message = { .ifi_index = (int)index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
	struct request request;
	uint32_t value = (uint32_t)mtu;

	netlink_begin(&request, RTM_NEWLINK, 0, &message, sizeof(message));
	if (mtu)
		netlink_add(&request, IFLA_MTU, &value, sizeof(value));
	return netlink_do(&request);
}

/*
 * Addresses work at once: the container's namespace has checked already that nobody else has them. All is in the
 * configuration, so that routers need not advertise: any neighbour could (CVE-2020-10749).
 */
static void set_ipv6_options(const struct nic *nic)
{
	static const char *const options[] = { "/accept_dad", "/accept_ra" };
	char path[PATH_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		join(path, sizeof(path), "/proc/sys/net/ipv6/conf/", nic->name, options[i]);
		write_file(path, "0");
	}
}

static bool bring_up(const struct nic *nic)
{
	uint64_t mtu = 0;
	long error;

	for (size_t i = nic->first; i < nic->end; i++)
		if (equal(config.records[i].key, "mtu") && !parse_number(config.records[i].value, 65535, &mtu)) {
			say("mtu `%s` is not a number up to 65535", config.records[i].value);
			return false;
		}
	set_ipv6_options(nic);
	error = set_link(nic->index, mtu);
	if (error < 0)
		say("cannot bring %s up: %s", nic->name, error_text(error));
	return error >= 0;
}

/* The card appears some time after its driver. */
static bool find_nic(struct nic *nic, const char *value)
{
	uint8_t mac[6];

	if (!parse_mac(value, mac)) {
		say("nic `%s` is not a MAC address", value);
		return false;
	}
	for (int ms = 0; ms < NIC_PATIENCE_MS; ms += 5) {
		nic->index = (uint32_t)netlink_find_link(mac, nic->name, sizeof(nic->name));
		if (nic->index)
			return true;
		sleep_ms(5);
	}
	say("no NIC has the address %s: is virtio_net in the kernel, or in the image's /lib/modules?", value);
	return false;
}

static bool set_up_nic(size_t first)
{
	struct nic nic = { .first = first + 1, .end = first + 1 };

	while (nic.end < config.count && !equal(config.records[nic.end].key, "nic"))
		nic.end++;
	return find_nic(&nic, config.records[first].value) && bring_up(&nic) &&
	       each(&nic, "addr", "address", add_address) && each(&nic, "neigh", "neighbour", add_neighbour) &&
	       add_routes(&nic);
}

bool set_up_network(void)
{
	set_link(LOOPBACK_INDEX, 0);
	for (size_t i = 0; i < config.count; i++)
		if (equal(config.records[i].key, "nic") && !set_up_nic(i))
			return false;
	return true;
}
