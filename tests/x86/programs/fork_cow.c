/* fork: both write, neither sees the other, and a child's child sees what is above the first copy;
   shared memory both see. */
#include "vk.h"

#define PAGES 6
static u64 words[PAGES * 512];

static void fill(u64 base)
{
	for (int i = 0; i < PAGES; i++)
		words[i * 512 + i] = base + i;
}

static int holds(u64 base)
{
	for (int i = 0; i < PAGES; i++)
		if (words[i * 512 + i] != base + i)
			return 0;
	return 1;
}

/* There are three layers of each page; what is copied is the middle one. */
static void grandchild(void)
{
	int status = -1;
	long pid = sys(SYS_fork, 0, 0, 0);
	if (pid == 0) {
		for (int i = 0; i < PAGES; i++)
			words[i * 512 + 511] = 5;
		sys(SYS_exit, holds(77) ? 50 : 1, 0, 0);
	}
	check(sys(SYS_wait4, pid, &status, 0) == pid, "wait4 answers the grandchild");
	check(status == 50 << 8, "the grandchild has the child's words");
	check(words[511] == 0, "the child has not the grandchild's words");
}

int main(int argc, char **argv)
{
	volatile u64 *shared = (u64 *)sys_mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANON, -1, 0);
	fill(1000);
	for (int child = 1; child <= 3; child++) {
		long dx, pid = sys2(SYS_fork, 0, 0, 0, 0, 0, 0, &dx);
		int status = -1;
		if (pid == 0) {
			check(dx == 1, "rdx says who is the child");
			check(holds(1000 * child), "the child has the parent's words");
			fill(77);
			sys(SYS_sched_yield, 0, 0, 0);
			check(holds(77), "the child has its own words");
			grandchild();
			__sync_fetch_and_add(shared, child);
			return 40 + child;
		}
		check(pid > 0, "fork");
		fill(1000 * (child + 1));
		sys(SYS_sched_yield, 0, 0, 0);
		check(holds(1000 * (child + 1)), "the parent has its own words");
		check(sys(SYS_wait4, pid, &status, 0) == pid, "wait4 answers the pid");
		check(status == (40 + child) << 8, "the child's status");
	}
	check(*shared == 6, "shared memory is shared");
	print("fork-cow ok\n");
	return 0;
}
