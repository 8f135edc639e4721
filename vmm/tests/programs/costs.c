// What a program pays for what it asks of a kernel, or of whoever stands in for one: nanoseconds each, the best of many
// turns. Standard input must be /dev/zero. The same file runs on the host and in a machine without a kernel.
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define MANY 256

static volatile char *area;
static char block[PAGE];

static volatile char *map(long bytes) {
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void nothing(void) {}
static void loop(void) { for (volatile int turn = 0; turn < 1000; turn++) {} }
static void getppid_call(void) { syscall(SYS_getppid); }
static void clock_call(void) { struct timespec now; syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now); }
static void random_call(void) { syscall(SYS_getrandom, block, 16, 0); }
static void read_call(void) { if (read(0, block, PAGE) != PAGE) _exit(3); }
static void unserved_call(void) { syscall(SYS_getcwd, block, 0); }
static void mprotect_call(void) {
    static int turn;
    area[0] = 1;
    mprotect((void *)area, PAGE, turn++ % 2 ? PROT_READ | PROT_WRITE | PROT_EXEC : PROT_READ | PROT_WRITE);
}
static void map_call(void) { munmap((void *)map(PAGE), PAGE); }
static void map_large(void) { munmap((void *)map(16 << 20), 16 << 20); }

static volatile char *fresh;
static void touch_new(void) { *fresh = 1; fresh += PAGE; }
static void touch_old(void) { area[0] = 1; }

// Nanoseconds for MANY turns, the best of twenty rounds.
static long batch(void (*act)(void)) {
    long best = -1;
    for (int round = 0; round < 20; round++) {
        struct timespec start, end;
        fresh = map(MANY * PAGE);
        clock_gettime(CLOCK_MONOTONIC, &start);
        for (int turn = 0; turn < MANY; turn++) act();
        clock_gettime(CLOCK_MONOTONIC, &end);
        long took = (end.tv_sec - start.tv_sec) * 1000000000L + end.tv_nsec - start.tv_nsec;
        if (best < 0 || took < best) best = took;
        munmap((void *)(fresh - (act == touch_new ? MANY * PAGE : 0)), MANY * PAGE);
    }
    return best;
}

int main(void) {
    struct { const char *name; void (*act)(void); } acts[] = {
        {"a loop of 1,000 turns", loop}, {"store to a page in use", touch_old}, {"first store to a page", touch_new},
        {"getppid", getppid_call}, {"clock_gettime", clock_call}, {"getrandom of 16 bytes", random_call},
        {"read of 4 KiB", read_call}, {"a call that is not served", unserved_call}, {"mprotect of a page in use", mprotect_call},
        {"mmap and munmap of 4 KiB", map_call}, {"mmap and munmap of 16 MiB", map_large},
    };
    area = map(PAGE);
    area[0] = 1;
    // To ask for the time costs as much as any other call: what two askings take is not the deed's.
    long asking = batch(nothing);
    for (unsigned i = 0; i < sizeof acts / sizeof *acts; i++)
        printf("%-28s %9ld ns\n", acts[i].name, (batch(acts[i].act) - asking) / MANY);
    return 0;
}
