/* What a program of ours needs of a C library: system calls in DragonFly's convention. */
typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned char u8;

#define SYS_exit 1
#define SYS_fork 2
#define SYS_read 3
#define SYS_write 4
#define SYS_open 5
#define SYS_close 6
#define SYS_wait4 7
#define SYS_break 17
#define SYS_getpid 20
#define SYS_kill 37
#define SYS_pipe 42
#define SYS_sigaltstack 53
#define SYS_execve 59
#define SYS_msync 65
#define SYS_vfork 66
#define SYS_munmap 73
#define SYS_mprotect 74
#define SYS_dup2 90
#define SYS_mmap 197
#define SYS_clock_gettime 232
#define SYS_nanosleep 240
#define SYS_sched_yield 331
#define SYS_sigaction 342
#define SYS_sigreturn 344
#define SYS_umtx_sleep 469
#define SYS_umtx_wakeup 470
#define SYS_extexit 494
#define SYS_lwp_create 495
#define SYS_fail 1000
#define SYS_cpu_feature2 1007

#define PROT_READ 1
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAP_SHARED 1
#define MAP_PRIVATE 2
#define MAP_FIXED 0x10
#define MAP_ANON 0x1000

/* The result, or minus the errno; what came in rdx goes to *second. */
static inline long sys2(long n, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, long *second)
{
	register u64 r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long ret, dx = (long)c;
	u8 carry;
	__asm__ volatile("syscall; setc %1"
	    : "=a"(ret), "=q"(carry), "+d"(dx), "+r"(r10), "+r"(r8), "+r"(r9)
	    : "0"(n), "D"(a), "S"(b) : "rcx", "r11", "memory");
	if (second)
		*second = dx;
	return carry ? -ret : ret;
}

#define sys(n, a, b, c) sys2((n), (u64)(a), (u64)(b), (u64)(c), 0, 0, 0, 0)

static inline long sys_mmap(void *addr, u64 len, int prot, int flags, int fd, long pos)
{
	long ret;
	u8 carry;
	register u64 r10 __asm__("r10") = flags, r8 __asm__("r8") = fd, r9 __asm__("r9") = 0;
	/* The seventh argument lies above a return address. The pushes keep off the red zone. */
	__asm__ volatile("sub $128, %%rsp; push %[pos]; push $0; syscall; setc %1; lea 144(%%rsp), %%rsp"
	    : "=a"(ret), "=q"(carry), "+r"(r10), "+r"(r8), "+r"(r9)
	    : "0"((long)SYS_mmap), "D"(addr), "S"(len), "d"((long)prot), [pos] "r"(pos)
	    : "rcx", "r11", "memory");
	return carry ? -ret : ret;
}

static inline u64 length(const char *s)
{
	u64 n = 0;
	while (s[n])
		n++;
	return n;
}

static inline void print(const char *s) { sys(SYS_write, 1, s, length(s)); }

static inline void print_number(u64 n)
{
	char digits[24], *at = digits + sizeof(digits) - 1;
	*at = 0;
	do {
		*--at = '0' + n % 10;
	} while (n /= 10);
	print(at);
}

static inline void check(int ok, const char *what)
{
	if (!ok) {
		print(what);
		print("\n");
		sys(SYS_exit, 1, 0, 0);
	}
}

int main(int argc, char **argv);

__attribute__((naked)) void _start(void)
{
	__asm__("mov (%rsp), %rdi; lea 8(%rsp), %rsi; and $-16, %rsp\n"
		"call main; mov %eax, %edi; mov $1, %eax; syscall; hlt");
}
