/* What a Unix program asks its kernel for besides memory: descriptors and pipes across pages, the
   heap, masks of signals, timeouts; and what it is refused. */
#include "vk.h"

#define SYS_getppid 39
#define SYS_madvise 75
#define SYS_lseek 199
#define SYS_sigprocmask 340
#define SYS_set_tls_area 472
#define SYS_lwp_gettid 496

#define ENOENT 2
#define ESRCH 3
#define EBADF 9
#define ECHILD 10
#define ENOMEM 12
#define EFAULT 14
#define EBUSY 16
#define EINVAL 22
#define EMFILE 24
#define EPIPE 32
#define EWOULDBLOCK 35
#define SIGPIPE 13
#define SIGUSR1 30
#define SIGKILL 9
#define PAGE 4096UL
#define BAD ((void *)0x60000000)
#define RW (PROT_READ | PROT_WRITE)

struct sigaction {
	void (*handler)(int);
	u32 flags;
	u32 mask[4];
};

static volatile int handled[32];
static u8 out[3 * PAGE], in[3 * PAGE];

static void handler(int signo) { handled[signo]++; }

static long lseek(long fd, long offset, long whence)
{
	return sys2(SYS_lseek, fd, 0, offset, whence, 0, 0, 0);
}

static long pipe(long *fds)
{
	return fds[0] = sys2(SYS_pipe, 0, 0, 0, 0, 0, 0, &fds[1]);
}

static void reap(long pid, int status)
{
	int found;
	check(sys(SYS_wait4, pid, &found, 0) == pid, "wait4");
	check(found == status, "status of a child");
}

/* A child writes more than a pipe holds, in pieces and from where no page begins, and we read it in
   parts. */
static void pipes(void)
{
	long fds[2], first = 1000, size = PAGE + 999, got = 0;
	check(pipe(fds) > 2, "pipe");
	for (long i = 0; i < size; i++)
		out[77 + i] = i * 7 + i / 256;
	long pid = sys(SYS_fork, 0, 0, 0);
	if (pid == 0) {
		sys(SYS_close, fds[0], 0, 0);
		check(sys(SYS_write, fds[1], out + 77, first) == first, "write");
		check(sys(SYS_write, fds[1], out + 77 + first, size - first) == size - first, "write");
		sys(SYS_exit, 0, 0, 0);
	}
	sys(SYS_close, fds[1], 0, 0);
	for (long part; (part = sys(SYS_read, fds[0], in + 3000 + got, 1500)) > 0; got += part)
		;
	check(got == size, "read: all of it");
	for (long i = 0; i < size; i++)
		check(in[3000 + i] == out[77 + i], "read: a byte is not what was written");
	check(in[2999] == 0 && in[3000 + size] == 0, "read: a byte beside it");
	reap(pid, 0);
	check(sys(SYS_close, fds[0], 0, 0) == 0, "close");
	check(sys(SYS_close, fds[0], 0, 0) == -EBADF, "close: twice");
}

static void descriptors(void)
{
	long fds[2], more[2];
	u64 words[2];
	check(pipe(fds) > 2, "pipe");
	check(sys(SYS_dup2, fds[1], 20, 0) == 20 && sys(SYS_dup2, fds[1], fds[1], 0) == fds[1], "dup2");
	check(pipe(more) > 2 && sys(SYS_dup2, more[1], 20, 0) == 20, "dup2: onto another");
	check(sys(SYS_close, more[1], 0, 0) == 0, "close");
	check(sys(SYS_write, 20, "a", 1) == 1 && sys(SYS_read, more[0], in, 9) == 1, "dup2: which");
	check(*in == 'a', "dup2: what");
	check(sys(SYS_close, 20, 0, 0) == 0 && sys(SYS_read, more[0], in, 9) == 0, "read: the end");
	check(sys(SYS_dup2, 30, 5, 0) == -EBADF && sys(SYS_dup2, 1, 9999, 0) == -EBADF, "dup2: EBADF");
	check(sys(SYS_write, fds[0], "a", 1) == -EBADF, "write: EBADF");
	check(sys(SYS_read, fds[1], in, 1) == -EBADF, "read: EBADF");
	check(sys(SYS_write, fds[1], BAD, 9) == -EFAULT, "write: EFAULT");
	check(sys(SYS_write, fds[1], "abc", 3) == 3 && sys(SYS_read, fds[0], BAD, 3) == -EFAULT,
	    "read: EFAULT");
	check(sys(SYS_read, fds[0], in, 3) == 3 && in[2] == 'c', "read: what a fault has left");
	check(sys(SYS_read, 0, in, 9) == 0, "read: the console");
	long fd = sys(SYS_open, "data", 0, 0);
	check(fd > 2 && sys(SYS_write, fd, "a", 1) == -EBADF, "write: a file");
	check(sys(SYS_open, "nothing", 0, 0) == -ENOENT, "open: ENOENT");
	check(sys(SYS_open, BAD, 0, 0) == -EFAULT, "open: EFAULT");
	check(lseek(fd, 4096 - 8, 0) == 4088 && sys(SYS_read, fd, words, 16) == 16, "lseek");
	check(lseek(fd, -8, 1) == 4096 && sys(SYS_read, fd, words, 8) == 8, "lseek: from there");
	check(words[0] == words[1] && lseek(fd, -8, 2) == 2 * 4096 - 8, "lseek: from the end");
	check(sys(SYS_read, fd, words, 16) == 8 && sys(SYS_read, fd, words, 16) == 0, "read: the end");
	check(lseek(fd, -1, 0) == -EINVAL && lseek(fd, 0, 3) == -EINVAL, "lseek: EINVAL");
	check(lseek(30, 0, 0) == -EBADF && lseek(1, 0, 0) == -EINVAL, "lseek: no file");
	check(sys(SYS_read, fd, BAD, 0) == 0 && lseek(fd, 0, 0) == 0, "lseek");
	check(sys(SYS_read, fd, BAD, 9) == -EFAULT && lseek(fd, 0, 1) == 0, "read: a file: EFAULT");
	long last = 0;
	while ((fd = pipe(fds)) > 0)
		last = fd;
	check(fd == -EMFILE && last > 20, "pipe: EMFILE");
	while ((fd = sys(SYS_open, "data", 0, 0)) > 0)
		last = fd;
	check(fd == -EMFILE, "open: EMFILE");
	for (fd = 3; fd < 64; fd++)
		sys(SYS_close, fd, 0, 0);
}

/* What nobody reads any more is a signal to who writes it. */
static void masks(void)
{
	struct sigaction act = {handler, 0, {0}}, old, once = {handler, 4, {0}};
	u64 usr[2] = {1UL << (SIGUSR1 - 1), 0}, was[2] = {7, 7}, none[2] = {0, 0}, all[2] = {~0UL, 0};
	long fds[2];
	check(sys(SYS_sigaction, SIGPIPE, &act, 0) == 0, "sigaction");
	check(sys(SYS_sigaction, SIGPIPE, 0, &old) == 0 && old.handler == handler, "sigaction: old");
	check(pipe(fds) > 2 && sys(SYS_close, fds[0], 0, 0) == 0, "pipe");
	check(sys(SYS_write, fds[1], "a", 1) == -EPIPE && handled[SIGPIPE] == 1, "write: EPIPE");
	check(sys(SYS_sigaction, SIGUSR1, &act, 0) == 0, "sigaction");
	check(sys(SYS_sigprocmask, 1, usr, was) == 0 && was[0] == 0 && was[1] == 0, "sigprocmask");
	check(sys(SYS_kill, sys(SYS_getpid, 0, 0, 0), SIGUSR1, 0) == 0, "kill");
	check(handled[SIGUSR1] == 0, "sigprocmask: blocked");
	long pid = sys(SYS_fork, 0, 0, 0);
	if (pid == 0) { /* The mask is the parent's; what is pending is not. */
		check(sys(SYS_sigprocmask, 1, 0, was) == 0 && was[0] == usr[0], "fork: mask");
		check(sys(SYS_sigprocmask, 3, none, 0) == 0 && handled[SIGUSR1] == 0, "fork: pending");
		check(sys(SYS_kill, sys(SYS_getppid, 0, 0, 0), SIGUSR1, 0) == 0, "kill: parent");
		sys(SYS_exit, 4, 0, 0);
	}
	reap(pid, 4 << 8);
	check(handled[SIGUSR1] == 0, "sigprocmask: blocked still");
	check(sys(SYS_sigprocmask, 2, usr, 0) == 0 && handled[SIGUSR1] == 1, "sigprocmask: let in");
	check(sys(SYS_sigprocmask, 3, all, 0) == 0 && sys(SYS_sigprocmask, 3, none, was) == 0, "mask");
	check(was[0] == (~0UL & ~(1UL << (SIGKILL - 1))), "sigprocmask: SIGKILL");
	check(sys(SYS_sigprocmask, 9, none, 0) == -EINVAL, "sigprocmask: EINVAL");
	check(sys(SYS_sigprocmask, 1, BAD, 0) == -EFAULT, "sigprocmask: EFAULT");
	check(sys(SYS_sigprocmask, 1, 0, BAD) == -EFAULT, "sigprocmask: EFAULT");
	check(sys(SYS_sigaction, SIGUSR1, &once, 0) == 0, "sigaction: once");
	sys(SYS_kill, sys(SYS_getpid, 0, 0, 0), SIGUSR1, 0);
	check(handled[SIGUSR1] == 2 && sys(SYS_sigaction, SIGUSR1, 0, &old) == 0, "sigaction: once");
	check(old.handler == 0, "sigaction: reset");
	check(sys(SYS_sigaction, SIGKILL, &act, 0) == -EINVAL, "sigaction: SIGKILL");
	check(sys(SYS_sigaction, 999, 0, 0) == -EINVAL, "sigaction: EINVAL");
	check(sys(SYS_sigaction, 1, BAD, 0) == -EFAULT, "sigaction: EFAULT");
	check(sys(SYS_sigaction, 1, 0, BAD) == -EFAULT, "sigaction: EFAULT");
	check(sys(SYS_kill, 9999, 1, 0) == -ESRCH && sys(SYS_kill, 1, 999, 0) == -EINVAL, "kill");
	check(sys(SYS_kill, sys(SYS_getpid, 0, 0, 0), 0, 0) == 0, "kill: is it there?");
	pid = sys(SYS_fork, 0, 0, 0);
	while (pid == 0) /* A default action is the end. */
		sys(SYS_sched_yield, 0, 0, 0);
	check(sys(SYS_wait4, pid, 0, 1) == 0, "wait4: not yet");
	check(sys(SYS_kill, pid, SIGUSR1, 0) == 0, "kill: child");
	reap(pid, SIGUSR1);
	check(sys(SYS_wait4, pid, 0, 0) == -ECHILD, "wait4: ECHILD");
	pid = sys(SYS_fork, 0, 0, 0);
	if (pid == 0)
		sys(SYS_exit, 6, 0, 0);
	check(sys(SYS_wait4, pid, BAD, 0) == -EFAULT, "wait4: EFAULT");
	int status;
	check(sys(SYS_wait4, -1, &status, 0) == pid && status == 6 << 8, "wait4: whichever");
}

/* The heap grows and shrinks; what comes back is zero, and a child's is its own. */
static void heap(void)
{
	static u8 end;
	u8 *brk = (u8 *)(((u64)&end + 16 * PAGE) & ~(PAGE - 1));
	check(sys(SYS_break, brk, 0, 0) == (long)brk, "break");
	check(sys(SYS_break, brk + 3 * PAGE, 0, 0) == (long)(brk + 3 * PAGE), "break: more");
	for (u64 i = 0; i < 3; i++) {
		check(brk[i * PAGE] == 0, "heap: not zero");
		brk[i * PAGE] = 40 + i;
	}
	long pid = sys(SYS_fork, 0, 0, 0);
	if (pid == 0) {
		check(brk[2 * PAGE] == 42, "heap: of a child");
		brk[0] = 9;
		sys(SYS_break, brk + PAGE, 0, 0);
		sys(SYS_exit, 0, 0, 0);
	}
	reap(pid, 0);
	check(brk[0] == 40 && brk[2 * PAGE] == 42, "heap: a child has written it");
	check(sys(SYS_break, brk + PAGE, 0, 0) == (long)(brk + PAGE), "break: less");
	check(sys(SYS_write, 1, brk + PAGE, 1) == -EFAULT, "heap: gone");
	check(sys(SYS_break, brk + 2 * PAGE, 0, 0) == (long)(brk + 2 * PAGE), "break: again");
	check(brk[0] == 40 && brk[PAGE] == 0, "heap: what comes back");
	check(sys(SYS_break, 16, 0, 0) == -EINVAL, "break: EINVAL");
	check(sys_mmap(brk + 8 * PAGE, PAGE, RW, MAP_PRIVATE | MAP_ANON | MAP_FIXED, -1, 0) > 0, "mmap");
	check(sys(SYS_break, brk + 9 * PAGE, 0, 0) == -ENOMEM, "break: ENOMEM");
	check(sys_mmap((void *)1, PAGE, RW, MAP_PRIVATE | MAP_ANON | MAP_FIXED, -1, 0) == -EINVAL &&
	    sys_mmap(0, 0, RW, MAP_PRIVATE | MAP_ANON, -1, 0) == -EINVAL, "mmap: EINVAL");
	check(sys_mmap(0, PAGE, RW, MAP_PRIVATE, 30, 0) == -EBADF, "mmap: EBADF");
	check(sys_mmap(0, PAGE, RW, MAP_PRIVATE, 1, 0) == -EINVAL, "mmap: the console");
	long fd = sys(SYS_open, "data", 0, 0);
	check(sys_mmap(0, PAGE, RW, MAP_PRIVATE, fd, 8) == -EINVAL, "mmap: where no page begins");
	check(sys_mmap(0, 3 * PAGE, RW, MAP_PRIVATE, fd, 0) == -EINVAL, "mmap: beyond the file");
	u64 *second = (u64 *)sys_mmap(0, PAGE, PROT_READ, MAP_PRIVATE, fd, PAGE), word;
	check(lseek(fd, PAGE, 0) == PAGE && sys(SYS_read, fd, &word, 8) == 8, "read");
	check(*second == word, "mmap: the second page of a file");
	check(sys(SYS_madvise, second, PAGE, 99) == -EINVAL, "madvise: EINVAL");
	check(sys(SYS_msync, second, PAGE, 0) == 0 && sys(SYS_msync, BAD, PAGE, 0) == -EINVAL, "msync");
}

static void times(void)
{
	long now[2], wrong[2] = {0, 2000000000}, later[2];
	u32 word = 5;
	check(sys(SYS_clock_gettime, 0, now, 0) == 0, "clock_gettime");
	check(sys(SYS_umtx_sleep, &word, 4, 0) == -EBUSY, "umtx_sleep: EBUSY");
	check(sys(SYS_umtx_sleep, BAD, 4, 0) == -EFAULT, "umtx_sleep: EFAULT");
	check(sys(SYS_umtx_sleep, &word, 5, 2000) == -EWOULDBLOCK, "umtx_sleep: the time is over");
	check(sys(SYS_clock_gettime, 0, later, 0) == 0, "clock_gettime");
	long waited = (later[0] - now[0]) * 1000000000 + later[1] - now[1];
	check(waited >= 2000000, "umtx_sleep: too early");
	check(sys(SYS_clock_gettime, 0, BAD, 0) == -EFAULT, "clock_gettime: EFAULT");
	check(sys(SYS_nanosleep, wrong, 0, 0) == -EINVAL, "nanosleep: EINVAL");
	check(sys(SYS_nanosleep, BAD, 0, 0) == -EFAULT, "nanosleep: EFAULT");
	static u64 tls[2] = {0, 0x1234};
	u64 base = (u64)tls, found;
	check(sys(SYS_set_tls_area, 0, &base, 8) == 0, "set_tls_area");
	__asm__ volatile("mov %%fs:8, %0" : "=r"(found));
	check(found == 0x1234, "set_tls_area: %fs");
	check(sys(SYS_set_tls_area, 1, &base, 8) == -EINVAL, "set_tls_area: EINVAL");
	check(sys(SYS_set_tls_area, 0, BAD, 8) == -EFAULT, "set_tls_area: EFAULT");
	check(sys(SYS_lwp_gettid, 0, 0, 0) >= 0, "lwp_gettid");
	check(sys(SYS_lwp_create, BAD, 0, 0) == -EFAULT, "lwp_create: EFAULT");
	char *argv[] = {"x", BAD, 0};
	check(sys(SYS_execve, "nothing", 0, 0) == -ENOENT, "execve: ENOENT");
	check(sys(SYS_execve, "unix", argv, 0) == -EFAULT, "execve: EFAULT");
	check(sys(SYS_execve, BAD, 0, 0) == -EFAULT, "execve: EFAULT");
}

int main(int argc, char **argv)
{
	for (char *what = argv[1]; *what; what++)
		switch (*what) {
		case 'p':
			pipes();
			break;
		case 'd':
			descriptors();
			break;
		case 'm':
			masks();
			break;
		case 'h':
			heap();
			break;
		case 't':
			times();
		}
	print("unix ok\n");
	return 0;
}
