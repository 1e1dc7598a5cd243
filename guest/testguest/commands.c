/* The command words, in the boot string, on the console and by UDP. */
#include "guest.h"

static void flood(void) __attribute__((noreturn));
static void flood(void)
{
	for (uint32_t i = 0;; i++)
		print("flood %u\n", i);
}

static void spin(void) __attribute__((noreturn));
static void spin(void)
{
	for (;;)
		__asm__ volatile("pause");
}

/* Run the command that `word` begins, if it is one. */
static bool run_command(const char *word)
{
	uint32_t number = parse_number(skip_word(word), NULL);

	if (word_is(word, "exit"))
		end_with(number);
	if (word_is(word, "poweroff"))
		power_off();
	if (word_is(word, "reboot"))
		reset();
	if (word_is(word, "panic"))
		panic();
	if (word_is(word, "spin"))
		spin();
	if (word_is(word, "flood"))
		flood();
	if (word_is(word, "9p")) {
		share_send(skip_word(word));
		return true;
	}
	if (word_is(word, "balloon")) {
		balloon_drive();
		return true;
	}
	if (!word_is(word, "sleep"))
		return false;
	sleep_ms(number);
	return true;
}

bool run_line(const char *line)
{
	bool first = run_command(line);

	if (first)
		run_commands(skip_word(line));
	return first;
}

/* Words that are no commands are the boot string's own business. */
void run_commands(const char *words)
{
	for (; *words; words = skip_word(words))
		run_command(words);
}
