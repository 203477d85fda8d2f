/* The FPU across context switches, signals and fork: argv[1] says what. */
#include "vk.h"

#define SIGFPE 8
#define SIGUSR1 30
#define DAZ 0x40
#define FTZ 0x8000

struct sigaction { void (*handler)(int, u64, u8 *); u32 flags; u32 mask[4]; u32 pad; };

static volatile double handled;
static volatile int fpes;

static void set_mxcsr(u32 value) { __asm__ volatile("ldmxcsr %0" : : "m"(value)); }

static u32 get_mxcsr(void)
{
	u32 value;
	__asm__ volatile("stmxcsr %0" : "=m"(value));
	return value;
}

static void yield(void) { sys(SYS_sched_yield, 0, 0, 0); }

static void on(int sig, void (*handler)(int, u64, u8 *))
{
	struct sigaction act = {handler, 0, {0}, 0};
	check(sys(SYS_sigaction, sig, &act, 0) == 0, "sigaction");
}

/* Sums denormals: with DAZ they are zeroes. Two processes, each with its own MXCSR. */
static int denormals(void)
{
	long child = sys(SYS_fork, 0, 0, 0);
	int daz = child != 0, status;
	volatile double tiny = 4e-320, sum = daz ? 1 : 0;
	set_mxcsr(0x1F80 | (daz ? DAZ : 0));
	for (int i = 0; i < 8; i++) {
		sum += tiny * 1e300;
		yield();
	}
	check(!!(get_mxcsr() & DAZ) == daz, "DAZ is lost");
	check(daz ? sum == 1 : sum != 0, "the sum of denormals is wrong");
	if (child == 0)
		sys(SYS_exit, 0, 0, 0);
	check(sys(SYS_wait4, child, &status, 0) == child && status == 0, "the child fails");
	set_mxcsr(0x1F80);
	return 0;
}

static void uses_sse(int sig, u64 code, u8 *context)
{
	volatile double x = 3;
	check(get_mxcsr() == 0x1F80, "a handler begins with a fresh FPU");
	set_mxcsr(0x1F80 | FTZ);
	for (int i = 0; i < 4; i++) {
		x *= 1.5;
		yield();
	}
	handled = x;
}

static void bad_mxcsr(int sig, u64 code, u8 *context)
{
	*(u32 *)(context + 256 + 24) |= 0x10000;
}

static void fpe(int sig, u64 code, u8 *context) { fpes++; }

static int signals(void)
{
	double kept[2] = {1.25, 2.5};
	long pid = sys(SYS_getpid, 0, 0, 0);
	on(SIGUSR1, uses_sse);
	__asm__ volatile("movupd %0, %%xmm9" : : "m"(kept) : "xmm9");
	sys(SYS_kill, pid, SIGUSR1, 0);
	kept[0] = kept[1] = 0;
	__asm__ volatile("movupd %%xmm9, %0" : "=m"(kept) : :);
	check(handled == 3 * 1.5 * 1.5 * 1.5 * 1.5, "the handler's sum");
	check(kept[0] == 1.25 && kept[1] == 2.5, "xmm9 does not outlive the handler");
	check(get_mxcsr() == 0x1F80, "MXCSR does not outlive the handler");
	/* MXCSR bits that there are not, put into the frame: masked, and SIGFPE. */
	on(SIGFPE, fpe);
	on(SIGUSR1, bad_mxcsr);
	sys(SYS_kill, pid, SIGUSR1, 0);
	check(fpes == 1 && !(get_mxcsr() & 0x10000), "a bad MXCSR in the frame is no SIGFPE");
	return 0;
}

/* x87 at an address above 4 GB: fxsave64 tells it, fxsave does not. */
static int x87(void)
{
	u8 *high = (u8 *)sys_mmap((void *)0x200000000, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
	    MAP_PRIVATE | MAP_ANON | MAP_FIXED, -1, 0);
	static u8 image[512] __attribute__((aligned(16)));
	static const u8 code[] = {0xd9, 0xeb, 0xc3}; /* fldpi ; ret */
	long double pi;
	int status;
	check((long)high == 0x200000000, "mmap");
	for (int i = 0; i < 3; i++)
		high[i] = code[i];
	((void (*)(void))high)();
	long child = sys(SYS_fork, 0, 0, 0);
	yield();
	__asm__ volatile("fxsave64 %0" : "=m"(image));
	__asm__ volatile("fstpt %0" : "=m"(pi));
	check(*(u64 *)(image + 8) == 0x200000000, "the FPU's instruction pointer is cut");
	check(pi > 3.14159L && pi < 3.1416L, "st(0) is not pi");
	if (child == 0)
		sys(SYS_exit, 0, 0, 0);
	check(sys(SYS_wait4, child, &status, 0) == child && status == 0, "the child fails");
	return 0;
}

/* A program that believes the kernel when it says AVX. */
static int avx(void)
{
	if (sys(SYS_cpu_feature2, 0, 0, 0) & 1 << 28)
		__asm__ volatile(".byte 0xc5, 0xfd, 0x6f, 0xc1"); /* vmovdqa ymm0, ymm1 */
	return 0;
}

/* And one that asks the processor, as libm does: what the kernel masks it does not see. */
static int cpuid_avx(void)
{
	u32 a = 1, b, c = 0, d;
	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	if (c & 1 << 28)
		__asm__ volatile(".byte 0xc5, 0xfd, 0x6f, 0xc1");
	return 0;
}

int main(int argc, char **argv)
{
	switch (argv[1][0]) {
	case 'd': return denormals();
	case 's': return signals();
	case 'x': return x87();
	case 'a': return avx();
	case 'c': return cpuid_avx();
	}
	check(denormals() == 0 && signals() == 0 && x87() == 0 && avx() == 0, "float");
	print("float ok\n");
	return 0;
}
