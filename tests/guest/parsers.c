/* The init's parsers as an ordinary program, so that a test can throw anything at them under the sanitizers. */
#include "address.h"

#include <stdio.h>
#include <stdlib.h>

void end_machine(int status)
{
	exit(status);
}

static void print_address(bool good, const struct address *address)
{
	if (!good) {
		printf("bad\n");
		return;
	}
	for (size_t i = 0; i < address_size(address); i++)
		printf("%02x", address->octets[i]);
	printf("/%d\n", address->prefix);
}

static int print_config(const char *path)
{
	if (!read_config(path))
		return 1;
	for (size_t i = 0; i < config.count; i++) {
		fwrite(config.records[i].key, 1, strlen(config.records[i].key) + 1, stdout);
		fwrite(config.records[i].value, 1, strlen(config.records[i].value) + 1, stdout);
	}
	return 0;
}

/* parsers ip|cidr|mac TEXT.., or parsers config FILE */
int main(int count, char **words)
{
	struct address address = { 0 };
	uint8_t mac[6];

	if (equal(words[1], "config"))
		return print_config(words[2]);
	for (int i = 2; i < count; i++) {
		if (equal(words[1], "ip"))
			print_address(parse_ip(words[i], &address), &address);
		else if (equal(words[1], "cidr"))
			print_address(parse_cidr(words[i], &address), &address);
		else
			printf("%s\n", parse_mac(words[i], mac) ? "good" : "bad");
	}
	return 0;
}
