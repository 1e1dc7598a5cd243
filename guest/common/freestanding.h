/*
 * What both guest programs have of a C library. The compiler calls the first five by itself.
 */
#ifndef FREESTANDING_H
#define FREESTANDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t strlen(const char *s);
bool starts_with(const char *s, const char *prefix);

#endif
