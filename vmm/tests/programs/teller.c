// A program that says that it is ready and then tells, a line a command, what it keeps in memory and what it is given: for
// the trials of snapshots. Its own counter lies in memory only, so whoever tells it right has that memory.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static void tell(const char *what, const unsigned char *bytes, size_t length) {
    printf("%s ", what);
    for (size_t i = 0; i < length; i++) printf("%02x", bytes[i]);
    printf("\n");
}

static long long now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv) {
    char line[128], nonce[64] = "none";
    long count = 0;
    volatile double half = 0.5, sum = 0;
    if (argc > 1) strncpy(nonce, argv[1], sizeof nonce - 1);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("ISOLAB-READY %s\n", nonce);
    while (fgets(line, sizeof line, stdin)) {
        long number = 0;
        char verb[32] = "";
        sscanf(line, "%31s %ld", verb, &number);
        if (!strcmp(verb, "nonce")) {
            printf("nonce %s\n", nonce);
        } else if (!strcmp(verb, "count")) {
            sum += half;
            printf("count %ld %.1f\n", ++count, sum);
        } else if (!strcmp(verb, "random")) {
            unsigned char bytes[16];
            if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) return 3;
            tell("random", bytes, sizeof bytes);
        } else if (!strcmp(verb, "at-random")) {
            tell("at-random", (unsigned char *)getauxval(AT_RANDOM), 16);
        } else if (!strcmp(verb, "generation")) {
            tell("generation", (unsigned char *)getauxval(0x67656e65), 16);
        } else if (!strcmp(verb, "clocks")) {
            printf("clocks %lld %lld\n", now(CLOCK_MONOTONIC), now(CLOCK_REALTIME));
        } else if (!strcmp(verb, "sleep")) {
            struct timespec time = {number / 1000, number % 1000 * 1000000};
            long long before = now(CLOCK_MONOTONIC);
            nanosleep(&time, NULL);
            printf("slept %lld\n", (now(CLOCK_MONOTONIC) - before) / 1000000);
        } else if (!strcmp(verb, "touch")) {
            char *memory = mmap(NULL, number << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (memory == MAP_FAILED) return 4;
            for (long at = 0; at < number << 20; at += 4096) memory[at] = at >> 12;
            for (long at = 0; at < number << 20; at += 4096)
                if (memory[at] != (char)(at >> 12)) return 5;
            printf("touched %ld\n", number);
        } else if (!strcmp(verb, "far")) {
            // So many MiB, of which the two ends are used, and kept.
            static volatile char *ends[2];
            size_t length = (size_t)number << 20;
            if (!ends[0]) {
                ends[0] = mmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                if (ends[0] == MAP_FAILED) return 6;
                ends[1] = ends[0] + length - 1;
            }
            ++*ends[0], *ends[1] += 2;
            printf("far %d %d\n", *ends[0], *ends[1]);
        } else if (!strcmp(verb, "spin")) {
            for (volatile long turn = 0; turn < number; turn++);
            printf("spun %ld\n", number);
        } else if (!strcmp(verb, "crash")) {
            *(volatile int *)8 = 0;
        } else if (!strcmp(verb, "exit")) {
            return number;
        } else {
            printf("unknown %s\n", verb);
        }
    }
    return 0;
}
