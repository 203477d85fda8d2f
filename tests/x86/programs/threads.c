/* Two lwps on two vCPUs: a mutex of cmpxchg and umtx, a counter under it, one without a lock. */
#include "vk.h"

#define EXTEXIT_LWP (1 << 16)
#define ROUNDS 12
struct params { void *func, *arg, *stack; int *tid1, *tid2; };

static volatile u32 mutex, done;
static volatile u64 counter, atomic;
static u64 stack[1024] __attribute__((aligned(16)));

static void lock(void)
{
	u32 state = __sync_val_compare_and_swap(&mutex, 0, 1);
	while (state) {
		if (state == 2 || __sync_val_compare_and_swap(&mutex, 1, 2))
			sys(SYS_umtx_sleep, &mutex, 2, 0);
		state = __sync_val_compare_and_swap(&mutex, 0, 2);
	}
}

static void unlock(void)
{
	if (__sync_lock_test_and_set(&mutex, 0) == 2)
		sys(SYS_umtx_wakeup, &mutex, 1, 0);
}

static void work(void)
{
	for (int i = 0; i < ROUNDS; i++) {
		lock();
		u64 seen = counter;
		counter = seen + 1;
		unlock();
		__sync_fetch_and_add(&atomic, 3);
	}
}

static void second(void *arg)
{
	check(arg == &counter, "the argument arrives");
	work();
	done = 1;
	sys(SYS_umtx_wakeup, &done, 1, 0);
	sys(SYS_extexit, EXTEXIT_LWP, 0, 0);
}

int main(int argc, char **argv)
{
	int tid1 = 0, tid2 = 0;
	struct params params = {second, (void *)&counter, &stack[1023], &tid1, &tid2};
	check(sys(SYS_lwp_create, &params, 0, 0) == 0 && tid1 == 1 && tid2 == 1, "lwp_create");
	work();
	while (!done)
		sys(SYS_umtx_sleep, &done, 0, 0);
	check(counter == 2 * ROUNDS, "an increment under the mutex is lost");
	check(atomic == 6 * ROUNDS, "a locked increment is lost");
	print("threads ok\n");
	return 0;
}
