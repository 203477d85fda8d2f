/* Quicksort of a file that is mapped and does not fit into memory; the sum of it does not change. */
#include "vk.h"

#define PAGES 56
#define COUNT (PAGES * 512L)

static void sort(u64 *a, long low, long high)
{
	while (low < high) {
		u64 pivot = a[low + (high - low) / 2];
		long i = low, j = high;
		while (i <= j) {
			while (a[i] < pivot)
				i++;
			while (a[j] > pivot)
				j--;
			if (i <= j) {
				u64 t = a[i];
				a[i++] = a[j];
				a[j--] = t;
			}
		}
		if (j - low < high - i) {
			sort(a, low, j);
			low = i;
		} else {
			sort(a, i, high);
			high = j;
		}
	}
}

int main(int argc, char **argv)
{
	long count = COUNT, fd = sys(SYS_open, argv[1], 0, 0);
	u64 before = 0, after = 0;
	check(fd >= 0, "open");
	u64 *a = (u64 *)sys_mmap(0, count * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	check((long)a > 0, "mmap");
	for (long i = 0; i < count; i++)
		before += a[i];
	sort(a, 0, count - 1);
	for (long i = 0; i < count; i++) {
		after += a[i];
		if (i && a[i - 1] > a[i])
			sys(SYS_fail, &a[i], a[i - 1], a[i]);
	}
	check(before == after, "the sum has changed");
	print("sort ok\n");
	return 0;
}
