/* Arguments, data, bss, the heap: each page comes by a fault of its own. */
#include "vk.h"

static char greeting[] = "hello, ";
static u64 zeroes[1024];

int main(int argc, char **argv)
{
	u64 sum = 0;
	u64 *heap = (u64 *)sys(SYS_break, 0, 0, 0);
	print(greeting);
	print(argc > 1 ? argv[1] : "world");
	print("\n");
	for (int i = 0; i < 1024; i += 128) {
		sum += zeroes[i];
		zeroes[i] = i + 1;
	}
	check(sum == 0, "bss is not zero");
	for (int i = 0; i < 1024; i += 128)
		sum += zeroes[i];
	check(sum == 3592, "bss does not hold what was written");
	check((long)heap == -22, "break below the heap is refused");
	check(sys(999, 0, 0, 0) == -78, "a call that is not there is ENOSYS");
	return 0;
}
