/* System calls: vfork, sigaltstack and siginfo, nanosleep, ranges, lwps, a file that is mapped and
   written back. */
#include "vk.h"

#define SIGFPE 8
#define SIGSEGV 11
#define SA_ONSTACK 0x1
#define SA_SIGINFO 0x40
#define SS_ONSTACK 1
#define SS_DISABLE 4
#define FPE_INTDIV 2
#define SEGV_MAPERR 1
#define SEGV_ACCERR 2
#define SYS_getppid 39
#define SYS_madvise 75
#define SYS_lwp_gettid 496
#define EXTEXIT_SETINT 1
#define EXTEXIT_LWP (1 << 16)
#define MS_SYNC 0
#define PAGE 4096UL
#define PAGES 10UL
#define RIP 23 /* word of a ucontext */

struct siginfo {
	int signo, error, code, pid, uid, status;
	u8 *addr;
};

struct stack {
	u8 *sp;
	u64 size;
	int flags;
};

struct sigaction {
	void (*handler)(int, struct siginfo *, u64 *);
	u32 flags;
	u32 mask[4];
};

/* vfork: the child runs in our memory, and we not before it has ended or is another program. */

static volatile int written;

static void vforks(void)
{
	int status;
	long pid = sys(SYS_vfork, 0, 0, 0);
	if (pid == 0) {
		for (int i = 0; i < 400; i++)
			written++;
		sys(SYS_exit, 3, 0, 0);
	}
	check(pid > 0 && written == 400, "vfork: the parent has not waited, or has memory of its own");
	check(sys(SYS_wait4, pid, &status, 0) == pid && status == 3 << 8, "vfork: status");
	char *argv[] = {"calls", "x", 0};
	pid = sys(SYS_vfork, 0, 0, 0);
	if (pid == 0) {
		written = 500;
		sys(SYS_execve, "calls", argv, 0);
		sys(SYS_exit, 9, 0, 0);
	}
	check(written == 500, "vfork: the parent has not waited for execve");
	check(sys(SYS_wait4, pid, &status, 0) == pid && status == 5 << 8, "vfork: execve");
}

/* Signals: where, why, and on which stack. */

static u8 stack[4 * PAGE];
static u8 *const hole = (u8 *)0x60000000;
static u8 *expected;
static int code, handled;

static void handler(int signo, struct siginfo *info, u64 *context)
{
	u8 local;
	struct stack now;
	check(&local >= stack && &local < stack + sizeof(stack), "signal: not on its stack");
	check(sys(SYS_sigaltstack, 0, &now, 0) == 0 && now.flags == SS_ONSTACK, "signal: on its stack");
	check(info->signo == signo && info->code == code, "siginfo: code");
	handled++;
	if (signo == SIGFPE) {
		context[RIP] += 2;
		return;
	}
	check(info->addr == expected, "siginfo: address");
	if (code == SEGV_MAPERR) {
		long at = sys_mmap(hole, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANON | MAP_FIXED, -1, 0);
		check(at == (long)hole, "signal: mmap");
	} else
		check(sys(SYS_mprotect, hole, PAGE, PROT_READ | PROT_WRITE) == 0, "signal: mprotect");
}

static void signals(void)
{
	struct stack small = {stack, 100, 0}, ours = {stack, sizeof(stack), 0}, old;
	struct sigaction act = {handler, SA_SIGINFO | SA_ONSTACK, {0}};
	check(sys(SYS_sigaltstack, &small, 0, 0) == -12, "sigaltstack: too small");
	check(sys(SYS_sigaltstack, &ours, &old, 0) == 0 && old.flags == SS_DISABLE, "sigaltstack");
	check(sys(SYS_sigaction, SIGSEGV, &act, 0) == 0, "sigaction");
	check(sys(SYS_sigaction, SIGFPE, &act, 0) == 0, "sigaction");
	expected = hole + 0x123;
	code = SEGV_MAPERR;
	check(*(volatile u8 *)expected == 0 && handled == 1, "signal: a hole");
	expected = hole + 0xFFD;
	code = SEGV_ACCERR;
	*(volatile u8 *)expected = 7;
	check(*expected == 7 && handled == 2, "signal: read only");
	code = FPE_INTDIV;
	__asm__ volatile("xor %%edx, %%edx; mov $1, %%eax; xor %%ecx, %%ecx; div %%ecx"
	    : : : "eax", "ecx", "edx");
	check(handled == 3, "signal: division");
	check(sys(SYS_sigaltstack, 0, &old, 0) == 0 && old.flags == 0, "sigaltstack: after them");
}

/* A file: what one stores in a shared mapping others read, and it comes back from the disk. */

static u64 word(u64 page) { return 0x1000000 + page * 7; }

static void files(void)
{
	int status;
	long fd = sys(SYS_open, "data", 0, 0);
	check(fd >= 0, "open");
	u64 size = PAGES * PAGE;
	u64 *a = (u64 *)sys_mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	u64 *old = (u64 *)sys_mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	check((long)a > 0 && (long)old > 0, "mmap");
	u64 before = old[1];
	old[0] = 1;
	for (u64 i = 0; i < PAGES; i++)
		((u8 *)&a[512 * i])[2] = 0, a[512 * i] = word(i);
	check(old[0] == 1 && old[1] == before, "a private mapping sees what others store");
	long pid = sys(SYS_fork, 0, 0, 0);
	if (pid == 0) {
		for (u64 i = 0; i < PAGES; i++)
			check(a[512 * i] == word(i), "a child does not see a shared file");
		a[5] = 55;
		sys(SYS_exit, 0, 0, 0);
	}
	check(sys(SYS_wait4, pid, &status, 0) == pid && status == 0, "a child fails");
	check(a[5] == 55, "what a child stores in a shared file is lost");
	check(sys(SYS_msync, a, size / 2, MS_SYNC) == 0, "msync");
	check(sys(SYS_munmap, a, size, 0) == 0, "munmap");
	/* Until none of its pages is left in memory. */
	u8 *much = (u8 *)sys_mmap(0, 3 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
	for (int round = 0; round < 2; round++)
		for (u64 i = 0; i < 3 * PAGES; i++)
			much[PAGE * i]++;
	a = (u64 *)sys_mmap(0, size, PROT_READ, MAP_SHARED, fd, 0);
	for (u64 i = 0; i < PAGES; i++)
		check(a[512 * i] == word(i), "a page of a file comes back as it was before");
	u64 read[2];
	check(sys(SYS_read, fd, read, sizeof(read)) == sizeof(read) && read[0] == word(0), "read");
}

/* Ranges: a program may have mapped far more than there is, and need not ask for whole pages. */

static void ranges(void)
{
	int status;
	u64 size = 1UL << 45;
	u8 *m = (u8 *)sys_mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
	m[0] = 1, m[size / 2] = 2, m[size - 1] = 3;
	long pid = sys(SYS_fork, 0, 0, 0);
	if (pid == 0)
		sys(SYS_exit, m[0] + m[size / 2] + m[size - 1], 0, 0);
	check(sys(SYS_wait4, 0, &status, 0) == pid && status == 6 << 8, "ranges: fork");
	for (u64 advice = 3; advice <= 5; advice++)
		check(sys(SYS_madvise, m + 1, size - 1, advice) == 0, "ranges: madvise");
	check(sys(SYS_msync, m, size, MS_SYNC) == 0, "ranges: msync");
	check(sys(SYS_mprotect, m + 5, size - 5, PROT_READ) == 0, "ranges: mprotect");
	check(sys(SYS_munmap, m + PAGE - 1, 2, 0) == 0, "ranges: two bytes of two pages");
	check(sys(SYS_munmap, m, size, 0) == -22, "ranges: munmap of a hole");
	check(sys(SYS_munmap, m, 0, 0) == 0, "ranges: munmap of nothing");
	check(sys(SYS_munmap, m + 2 * PAGE, size - 2 * PAGE, 0) == 0, "ranges: munmap");
	check(sys(SYS_munmap, m, -PAGE, 0) == -22, "ranges: munmap of more than there is");
}

/* Lwps: one ends alone and says so, or takes the process with it. */

static u64 other[512];
static volatile int ended = 1;

static void alone(void *arg)
{
	check(sys(SYS_lwp_gettid, 0, 0, 0) == 1, "lwps: gettid");
	sys2(SYS_extexit, EXTEXIT_LWP | EXTEXIT_SETINT, 0, (u64)&ended, 0, 0, 0, 0);
	check(0, "lwps: extexit comes back");
}

static void together(void *arg) { sys(SYS_extexit, 0, 7, 0); }

static void lwps(void)
{
	int status;
	long now[2];
	struct { void *function, *arg, *stack; int *tid1, *tid2; } params = {alone, 0, other + 511, 0, 0};
	check(sys(SYS_extexit, 7 << 16, 0, 0) == -22, "lwps: whose exit");
	check(sys(SYS_clock_gettime, 4, now, 0) == 0, "lwps: clock");
	check(sys(SYS_clock_gettime, 777, now, 0) == -22, "lwps: a clock that is not there");
	check(sys(SYS_lwp_create, &params, 0, 0) == 0, "lwps: lwp_create");
	while (ended)
		sys(SYS_sched_yield, 0, 0, 0);
	long pid = sys(SYS_fork, 0, 0, 0);
	if (pid == 0) {
		params.function = together;
		sys(SYS_lwp_create, &params, 0, 0);
		for (;;)
			sys(SYS_sched_yield, 0, 0, 0);
	}
	check(sys(SYS_wait4, -1, &status, 0) == pid && status == 7 << 8, "lwps: status");
	check(sys(SYS_getppid, 0, 0, 0) == 0, "lwps: getppid");
}

int main(int argc, char **argv)
{
	long time[2] = {0, 1000000};
	for (char *what = argv[1]; *what; what++)
		switch (*what) {
		case 'x':
			return 5;
		case 'n':
			check(sys(SYS_nanosleep, time, 0, 0) == 0, "nanosleep");
			break;
		case 'v':
			vforks();
			break;
		case 's':
			signals();
			break;
		case 'r':
			ranges();
			break;
		case 'l':
			lwps();
			break;
		case 'f':
			files();
		}
	print("calls ok\n");
	return 0;
}
