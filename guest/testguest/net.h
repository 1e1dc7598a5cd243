/* Between the cards (net.c) and what their frames say (protocols.c). */
#ifndef NET_H
#define NET_H

#include "guest.h"

struct nic;

void nic_send(struct nic *nic, const void *frame, size_t size);
const uint8_t *nic_mac(const struct nic *nic);
struct nic *nic_first(void); /* NULL without any */
void handle_frame(struct nic *nic, uint8_t *frame, size_t size);

#endif
