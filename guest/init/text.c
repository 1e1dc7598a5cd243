/* Text, memory and messages: the little more that a C library would have done. */
#include "init.h"

#include <linux/mman.h>
#include <stdarg.h>

bool equal(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

const char *find_char(const char *s, char c)
{
	while (*s && *s != c)
		s++;
	return s;
}

bool copy_text(char *to, size_t size, const char *from)
{
	return join(to, size, from, "", "");
}

bool join(char *to, size_t size, const char *a, const char *b, const char *c)
{
	const char *parts[] = { a, b, c };
	size_t length = 0;

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		size_t more = strlen(parts[i]);

		if (length + more >= size)
			return false;
		memcpy(to + length, parts[i], more);
		length += more;
	}
	to[length] = '\0';
	return true;
}

bool next_word(const char **s, char *word, size_t size)
{
	const char *end = find_char(*s, ' ');
	size_t length = (size_t)(end - *s);

	if (length == 0 || length >= size)
		return false;
	memcpy(word, *s, length);
	word[length] = '\0';
	*s = *end ? end + 1 : end;
	return true;
}

bool parse_number(const char *s, uint64_t maximum, uint64_t *value)
{
	uint64_t n = 0;

	if (!*s)
		return false;
	for (; *s; s++) {
		uint64_t digit = (uint64_t)(*s - '0');

		if (*s < '0' || *s > '9' || n > maximum / 10 || digit > maximum - 10 * n)
			return false;
		n = 10 * n + digit;
	}
	*value = n;
	return true;
}

void format_number(char *to, uint64_t value)
{
	char digits[20];
	int n = 0;

	do
		digits[n++] = (char)('0' + value % 10);
	while (value /= 10);
	while (n)
		*to++ = digits[--n];
	*to = '\0';
}

void *allocate(size_t size)
{
	static char *pool;
	static size_t left;
	char *memory;

	size = (size + 15) & ~(size_t)15;
	if (size > left) {
		size_t wanted = size > 65536 ? size : 65536;
		long mapped = call(mmap, 0, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (mapped < 0 && mapped > -4096) {
			say("out of memory");
			end_machine(SETUP_FAILED);
		}
		pool = (char *)mapped;
		left = wanted;
	}
	memory = pool;
	pool += size;
	left -= size;
	return memory;
}

static size_t add(char *line, size_t size, size_t length, const char *text)
{
	while (*text && length < size)
		line[length++] = *text++;
	return length;
}

void say(const char *format, ...)
{
	char line[512];
	size_t size = sizeof(line) - 1, length = add(line, size, 0, "urunc-init: ");
	va_list args;

	va_start(args, format);
	for (; *format && length < size; format++) {
		if (*format != '%') {
			line[length++] = *format;
		} else {
			format++;
			length = add(line, size, length, va_arg(args, const char *));
		}
	}
	va_end(args);
	line[length++] = '\n';
	call(write, 2, line, length);
}

const char *error_text(long error)
{
	static const struct {
		long number;
		const char *text;
	} texts[] = {
		{ EPERM, "operation not permitted" },
		{ ENOENT, "no such file or directory" },
		{ EIO, "input/output error" },
		{ ENXIO, "no such device or address" },
		{ E2BIG, "argument list too long" },
		{ ENOEXEC, "exec format error" },
		{ ENOMEM, "out of memory" },
		{ EACCES, "permission denied" },
		{ EEXIST, "file exists" },
		{ ENODEV, "no such device" },
		{ ENOTDIR, "not a directory" },
		{ EISDIR, "is a directory" },
		{ EINVAL, "invalid argument" },
		{ ENOSPC, "no space left on device" },
		{ EROFS, "read-only file system" },
		{ ENAMETOOLONG, "file name too long" },
		{ ENOSYS, "function not implemented" },
		{ ELOOP, "too many levels of symbolic links" },
		{ ENETUNREACH, "network is unreachable" },
		{ EHOSTUNREACH, "no route to host" },
		{ EADDRNOTAVAIL, "cannot assign requested address" },
		{ EOPNOTSUPP, "operation not supported" },
	};
	static char other[32];
	char number[24];

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (texts[i].number == -error)
			return texts[i].text;
	format_number(number, (uint64_t)-error);
	join(other, sizeof(other), "error ", number, "");
	return other;
}
