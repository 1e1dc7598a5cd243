/* The console as the application's terminal. */
#include "init.h"

#include <asm/ioctls.h>
#include <asm/termios.h>

#define PATIENCE_MS 10000

/*
 * The kernel opened it for us where /dev/console was in the initrd; devtmpfs has it in any case. Without a console, these
 * descriptors must not become anything else's.
 */
void open_console(void)
{
	long file = call(openat, AT_FDCWD, "/dev/console", O_RDWR | O_NOCTTY);

	if (file < 0)
		file = call(openat, AT_FDCWD, "/dev/null", O_RDWR);
	if (file < 0)
		return;
	for (long fd = 0; fd <= 2; fd++)
		if (fd != file)
			call(dup3, file, fd, 0);
	if (file > 2)
		call(close, file);
}

static bool want_terminal(void)
{
	return equal(config_value("terminal", "0"), "1");
}

/* "ROWS COLUMNS": a serial line knows no size of its own. The kernel sends SIGWINCH to the foreground. */
void resize_console(const char *text)
{
	struct winsize size = { 0 };
	uint64_t columns, rows;
	char word[8];

	if (!next_word(&text, word, sizeof(word)) || !parse_number(word, UINT16_MAX, &rows) ||
	    !parse_number(text, UINT16_MAX, &columns))
		return;
	size.ws_row = (uint16_t)rows;
	size.ws_col = (uint16_t)columns;
	call(ioctl, 0, TIOCSWINSZ, &size);
}

/*
 * Without a terminal on the other side, octets pass both ways as they are: no echo, no CR before LF, no signals
 * from keys. With one, this is the terminal's line discipline, as the kernel sets it up.
 */
void set_up_console(void)
{
	struct termios mode;

	if (want_terminal())
		resize_console(config_value("size", ""));
	if (want_terminal() || call(ioctl, 0, TCGETS, &mode) < 0)
		return;
	mode.c_iflag = IGNBRK;
	mode.c_oflag = 0;
	mode.c_lflag = 0;
	mode.c_cc[VMIN] = 1;
	mode.c_cc[VTIME] = 0;
	call(ioctl, 0, TCSETS, &mode);
}

/*
 * The leader of a terminal's session must not be the application: when a leader ends, the kernel throws away what
 * the terminal has not sent yet, and that may be the application's last words.
 */
void lead_session(void)
{
	if (!want_terminal())
		return;
	call(setsid);
	call(ioctl, 0, TIOCSCTTY, 1);
}

/* With a terminal, be its foreground, whom its keys signal; without one, have none, as in any container. */
void join_session(void)
{
	int group = (int)call(getpid);

	if (!want_terminal()) {
		call(setsid);
		return;
	}
	call(setpgid, 0, 0);
	call(ioctl, 0, TIOCSPGRP, &group); /* no SIGTTOU: every signal is blocked still */
}

/* The last words must be out before the power is; but a reader who has gone away must not hold the machine. */
void drain_console(void)
{
	struct patience patience = { .ms = PATIENCE_MS };
	int waiting = 0, before = 0;

	while (call(ioctl, 1, TIOCOUTQ, &waiting) >= 0 && waiting > 0 &&
	       patience_left(&patience, waiting != before) > 0) {
		before = waiting;
		sleep_ms(1);
	}
	if (waiting == 0)
		call(ioctl, 1, TCSBRK, 1);
}
