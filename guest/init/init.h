/* What the init's files know of each other. */
#ifndef INIT_H
#define INIT_H

#include "freestanding.h"
#include "system.h"

#include <linux/eventpoll.h>

#define PATH_MAX 4096

#define URUNC "/.urunc"
#define MNT_DETACH 2
#define SETUP_FAILED 125 /* the status where the application could not even be tried, as Docker's */

/* text.c */

bool equal(const char *a, const char *b);
const char *find_char(const char *s, char c); /* the first c in s, or the end of s */
bool copy_text(char *to, size_t size, const char *from); /* false where it does not fit */
bool join(char *to, size_t size, const char *a, const char *b, const char *c);
bool next_word(const char **s, char *word, size_t size); /* parted by single blanks; false at the end */
bool parse_number(const char *s, uint64_t maximum, uint64_t *value); /* decimal, the whole string */
void format_number(char *to, uint64_t value); /* decimal; at most 21 octets */
void *allocate(size_t size); /* zeroed, never freed */
void say(const char *format, ...) __attribute__((format(printf, 1, 2))); /* a line on the console; %s alone */
const char *error_text(long error);

/* config.c: the records that urunc wrote */

struct record {
	const char *key;
	const char *value;
};

struct config {
	struct record *records;
	size_t count;
};

extern struct config config;

bool read_config(const char *path); /* false, and said why, where it cannot be understood */
const char *config_value(const char *key, const char *otherwise);
bool config_number(const char *key, uint64_t otherwise, uint64_t maximum, uint64_t *value);
char **config_list(const char *key); /* ended by NULL */

/* files.c */

struct entry { /* of getdents64 */
	uint64_t inode;
	int64_t offset;
	uint16_t length;
	uint8_t type;
	char name[];
};

long make_parents(const char *path);
long write_file(const char *path, const char *text);
long read_file(const char *path, char *text, size_t size); /* octets read; the text gets a NUL */
void open_own_files(void); /* before the root is another */
bool place_files(void); /* the engine's, in the application's root */
void remove_own_files(void);

/* mounts.c */

void mount_kernel_filesystems(void);
bool switch_root(void);
bool mount_volumes(void);
void close_root(void); /* read-only from now on, where that is wanted of an initrd */
void release_disks(void);

/* room.c */

long make_room(const char *target); /* from now on its folders can be made */
void close_rooms(void);

/* modules.c */

bool load_modules(void);

/* network.c */

bool set_up_network(void);

/* console.c */

void open_console(void);
void resize_console(const char *text); /* "ROWS COLUMNS"; anything else is passed over */
void set_up_console(void);
void lead_session(void); /* in the first process */
void join_session(void); /* in the application */
void drain_console(void);

/* ports.c */

long open_port(const char *wanted, int flags); /* its descriptor, which never blocks; negative without one */

/* stdin.c */

long open_stdin(void); /* the application's; -1 where that is the console */
void watch_stdin(long epoll);
int pass_stdin(void); /* milliseconds until it is to be called again, if nothing happens before; -1 for ever */

/* outputs.c */

void open_outputs(long *out, long *error); /* the application's; -1 where that is the console */
void watch_outputs(long epoll);
bool pass_outputs(long file, uint32_t events); /* after an event; false where the host has taken everything */
void close_output(void);
void drain_outputs(long epoll);

/* application.c */

long start_application(const long streams[3]); /* its pid; the streams that are not negative become its 0, 1, 2 */

/* control.c: the control port */

long open_control_port(void); /* its descriptor; -1 without one */
void control_say(const char *line, uint64_t number); /* number only where the line ends with a blank */
int control_read(void); /* a signal to pass on, or 0 */
void control_resume(void); /* send what has not been sent yet */
void control_close(void); /* the host has taken what was said then */

/* signals.c */

long open_signals(void); /* the descriptor to watch */
bool pass_signals(long application); /* to nobody where that is 0; true once one of them was a stop */

/* main.c */

void watch(long epoll, long file, uint32_t events); /* nothing happens for a negative file */

/* end.c */

void expect_failure(void);
void end_machine(int status) __attribute__((noreturn));
void sleep_ms(long ms);
int64_t now_ms(void); /* since some time before the first process */

struct patience { /* with a host that has not taken yet what was written */
	int ms; /* where nobody stops the container, who would wait for its end */
	int64_t since; /* when the host took something last, or the stop came */
	bool stopped;
};

int patience_left(struct patience *patience, bool taken); /* in milliseconds, after a look for a stop */

#endif
