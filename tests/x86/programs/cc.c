/* A compiler of a kind: reads its text, fills memory, writes what comes of it. */
#include "vk.h"

#define PAGES 5
static u64 heap[PAGES * 512];

int main(int argc, char **argv)
{
	u64 job = 10 * (argv[1][0] - '0') + argv[1][1] - '0', sum = 0;
	for (int round = 0; round < 2; round++)
		for (int page = 0; page < PAGES; page++)
			heap[page * 512 + job] += job * 1000 + page;
	for (int page = 0; page < PAGES; page++) {
		u64 got = heap[page * 512 + job], wrote = 2 * (job * 1000 + page);
		if (got != wrote)
			sys(SYS_fail, &heap[page * 512 + job], wrote, got);
		sum += got;
	}
	u64 object[2] = {job, sum};
	check(sys(SYS_write, 1, object, sizeof(object)) == sizeof(object), "write");
	return 0;
}
