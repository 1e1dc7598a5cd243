/*
 * Entry points, descriptor tables and interrupt stubs of the test guest.
 *
 * Multiboot and PVH enter in 32-bit protected mode without paging, flat segments, interrupts off and %ebx at their
 * boot information. Neither promises a stack, or descriptors that can be loaded again. A loader that knows Linux alone,
 * as Firecracker's before 1.12, enters at the ELF64's entry point in long mode, with %rsi at Linux's boot parameters.
 */

#define MULTIBOOT_MAGIC		0x1BADB002
#define MULTIBOOT_FLAGS		0x00000003	/* modules on page boundaries, memory map wanted */

#define XEN_PHYS32_ENTRY	18

#define CODE_SEGMENT		0x08
#define DATA_SEGMENT		0x10

#define CR0_PAGING		0x80000000

#define LAPIC_EOI		0xfee000b0

#ifndef WITHOUT_MULTIBOOT
	.section .multiboot, "a"
	.balign	4
	.long	MULTIBOOT_MAGIC
	.long	MULTIBOOT_FLAGS
	.long	-(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)
#endif

	/* Read as a 32-bit value from an ELF32 and as a 64-bit one from an ELF64: one note serves both. */
	.section .note.pvh, "a", @note
	.balign	4
	.long	4, 8, XEN_PHYS32_ENTRY
	.asciz	"Xen"
	.long	pvh_start, 0

	.text
#ifdef WITHOUT_MULTIBOOT
	.globl	linux_start
	.code64
linux_start:
	cli
	lgdt	gdt_pointer(%rip)
	ljmp	*compatible(%rip)
	.code32
leave_long_mode:
	mov	%cr0, %eax
	and	$~CR0_PAGING, %eax
	mov	%eax, %cr0
	mov	$DATA_SEGMENT, %ecx
	mov	%ecx, %ds		/* Firecracker's ends at 1 MiB, which long mode has not minded */
	mov	$2, %eax
	mov	%esi, %ebx
	jmp	start
#endif

	.globl	multiboot_start, pvh_start
multiboot_start:
	mov	$0, %eax
	jmp	start
pvh_start:
	mov	$1, %eax
start:
	cli
	cld
	mov	$stack_top, %esp
	lgdt	gdt_pointer
	ljmp	$CODE_SEGMENT, $1f
1:	mov	$DATA_SEGMENT, %ecx
	mov	%ecx, %ds
	mov	%ecx, %es
	mov	%ecx, %fs
	mov	%ecx, %gs
	mov	%ecx, %ss
	push	%ebx
	push	%eax
	call	guest_main
2:	cli
	hlt
	jmp	2b

/* What iret does where the code segment stays the same: a KVM in software knows no iret in protected mode. */
	.macro	interrupt_return
	pushl	8(%esp)
	popf
	ret	$8
	.endm

	.globl	timer_interrupt
timer_interrupt:
	push	%eax
	mov	tick_ms, %eax
	add	%eax, now_ms
	movl	$0, LAPIC_EOI
	pop	%eax
	interrupt_return

	.globl	ignore_interrupt
ignore_interrupt:
	interrupt_return

	/* One 16-byte stub for each exception, so that C can compute their addresses. */
	.balign	16
	.globl	exception_stubs
exception_stubs:
	.set	vector, 0
	.rept	32
	.balign	16
	push	$vector
	jmp	exception_common
	.set	vector, vector + 1
	.endr
exception_common:
	call	exception

	.section .rodata
	.balign	8
gdt:	.quad	0
	.quad	0x00cf9a000000ffff	/* code: base 0, 4 GiB */
	.quad	0x00cf92000000ffff	/* data: base 0, 4 GiB */
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt, 0			/* eight octets in long mode */
#ifdef WITHOUT_MULTIBOOT
compatible:
	.long	leave_long_mode
	.word	CODE_SEGMENT
#endif

	.bss
	.balign	16
	.skip	16384
stack_top:

	.section .note.GNU-stack, "", @progbits
