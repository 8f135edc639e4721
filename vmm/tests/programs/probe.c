// What a program may and may not do in a machine with no kernel: one deed an argument.
//
// Each deed ends with status 0 where all was as Linux has it, with 1 and a line where not, or dies as it should.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <immintrin.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define CHECK(what) do { if (!(what)) { printf("not so: %s (errno %d)\n", #what, errno); exit(1); } } while (0)

static volatile char *pages(int count, int rights) {
    char *at = mmap(NULL, count * PAGE, rights, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

static void guard(void) {
    volatile char *at = pages(3, PROT_READ | PROT_WRITE);
    at[PAGE] = 7;
    CHECK(mprotect((void *)(at + PAGE), PAGE, PROT_NONE) == 0);
    at[0] = at[2 * PAGE] = 1;
    CHECK(mprotect((void *)(at + PAGE), PAGE, PROT_READ | PROT_WRITE) == 0);
    CHECK(at[PAGE] == 7);
    CHECK(mprotect((void *)(at + PAGE), PAGE, PROT_NONE) == 0);
    at[PAGE] = 8;
}

static void readonly(void) {
    volatile char *at = pages(1, PROT_READ | PROT_WRITE);
    at[0] = 7;
    CHECK(mprotect((void *)at, PAGE, PROT_READ) == 0);
    CHECK(at[0] == 7);
    at[0] = 8;
}

static void unmapped(void) {
    volatile char *at = pages(2, PROT_READ | PROT_WRITE);
    at[0] = at[PAGE] = 7;
    CHECK(munmap((void *)at, PAGE) == 0);
    CHECK(at[PAGE] == 7);
    CHECK(at[0] == 7);
}

// A page that was read-only and was read becomes writable, and one that was no code becomes code.
static void upgrade(void) {
    volatile char *at = pages(1, PROT_READ);
    CHECK(at[0] == 0);
    CHECK(mprotect((void *)at, PAGE, PROT_READ | PROT_WRITE) == 0);
    at[0] = (char)0xc3;
    CHECK(mprotect((void *)at, PAGE, PROT_READ | PROT_EXEC) == 0);
    ((void (*)(void))at)();
}

static void noexec(void) {
    volatile char *at = pages(1, PROT_READ | PROT_WRITE);
    at[0] = (char)0xc3;
    ((void (*)(void))at)();
}

static void zeroed(void) {
    for (int turn = 0; turn < 50; turn++) {
        volatile char *at = pages(16, PROT_READ | PROT_WRITE);
        for (int page = 0; page < 16; page++) {
            CHECK(at[page * PAGE] == 0);
            at[page * PAGE] = 1;
        }
        CHECK(munmap((void *)at, 16 * PAGE) == 0);
        char *heap = sbrk(3 * PAGE);
        CHECK(heap != (void *)-1 && heap[2 * PAGE] == 0);
        heap[2 * PAGE] = 1;
        CHECK(sbrk(-3 * PAGE) != (void *)-1);
    }
}

static void efault(void) {
    char *none = (char *)pages(2, PROT_READ | PROT_WRITE);
    CHECK(mprotect(none + PAGE, PAGE, PROT_NONE) == 0);
    char *bad[] = {NULL, none + PAGE, (char *)0x1000, (char *)0x3000, (char *)0x4000, (char *)-1, (char *)0x800000000000};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(write(1, bad[i], 4) == -1 && errno == EFAULT);
        CHECK(read(0, bad[i], 4) == -1 && errno == EFAULT);
        struct iovec vector = {bad[i], 4};
        CHECK(writev(1, &vector, 1) == -1 && errno == EFAULT);
        CHECK(syscall(SYS_clock_gettime, 1, bad[i]) == -1 && errno == EFAULT);
        CHECK(syscall(SYS_uname, bad[i]) == -1 && errno == EFAULT);
    }
    // What can be written is written, up to the bad page.
    memset(none, 'x', PAGE);
    none[PAGE - 1] = '\n';
    CHECK(write(1, none + PAGE - 2, 100) == 2);
    // Nor may the program read its own descriptor tables.
    volatile char *tables = (char *)0x1000;
    (void)*tables;
}

static void badfd(void) {
    char byte;
    for (int fd = 3; fd < 64; fd++) {
        CHECK(read(fd, &byte, 1) == -1 && errno == EBADF);
        CHECK(write(fd, "x", 1) == -1 && errno == EBADF);
    }
}

static void enosys(void) {
    CHECK(open("/etc/passwd", O_RDONLY) == -1 && errno == ENOSYS);
    CHECK(fork() == -1 && errno == ENOSYS);
    CHECK(fork() == -1 && errno == ENOSYS);
    CHECK(syscall(9999) == -1 && errno == ENOSYS);
}

static void exhaust(void) {
    CHECK(mmap(NULL, 1UL << 33, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
    CHECK(errno == ENOMEM);
    CHECK(mmap(NULL, 1UL << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
    long taken = 0;
    while (mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) taken++;
    CHECK(errno == ENOMEM);
    printf("%ld MiB\n", taken);
}

__attribute__((target("avx2"))) static void avx(void) {
    CHECK(__builtin_cpu_supports("avx2"));
    __m256d a = _mm256_set_pd(1, 2, 3, 4), b = _mm256_set1_pd(0.5);
    double sum[4];
    for (int turn = 0; turn < 1000; turn++) {
        // A system call in between: what the monitor does must not touch the registers.
        syscall(SYS_getpid);
        a = _mm256_add_pd(a, b);
    }
    _mm256_storeu_pd(sum, a);
    CHECK(sum[0] == 504 && sum[1] == 503 && sum[2] == 502 && sum[3] == 501);
}

static int deep(volatile char *above) {
    volatile char here[1024];
    here[0] = above ? above[0] : 1;
    return deep(here) + here[0];
}

static void stack(void) {
    volatile char large[4 << 20];
    for (unsigned i = 0; i < sizeof large; i += PAGE) large[i] = 1;
    CHECK(large[sizeof large - PAGE] == 1);
    exit(deep(NULL));
}

static void divide(void) {
    volatile int zero = 0, some = 7;
    printf("%d\n", some / zero);
}

// The trap flag, set so that the first instruction it stops after is a system call.
static void step(void) {
    long answer = SYS_getppid;
    __asm__ volatile("sub $128, %%rsp; pushf; orq $0x100, (%%rsp); popf; syscall; nop; nop; add $128, %%rsp"
                     : "+a"(answer) : : "rcx", "r11", "memory", "cc");
}

static void clocks(void) {
    struct timespec one, two, rest = {0, 20 * 1000 * 1000};
    CHECK(clock_gettime(CLOCK_MONOTONIC, &one) == 0);
    CHECK(nanosleep(&rest, NULL) == 0);
    CHECK(clock_gettime(CLOCK_MONOTONIC, &two) == 0);
    long passed = (two.tv_sec - one.tv_sec) * 1000000000L + two.tv_nsec - one.tv_nsec;
    CHECK(passed >= 20 * 1000 * 1000);
    time_t stored, now = time(&stored);
    CHECK(now == stored && now > 1700000000);
    struct pollfd none = {.fd = -1};
    CHECK(poll(&none, 1, 5) == 0);
}

static void auxiliary(void) {
    CHECK(getauxval(AT_PAGESZ) == PAGE);
    CHECK(getauxval(AT_SYSINFO_EHDR) == 0);
    CHECK(strcmp((char *)getauxval(AT_PLATFORM), "x86_64") == 0);
    CHECK(getauxval(AT_RANDOM) != 0);
    char path[256] = "";
    CHECK(readlink("/proc/self/exe", path, sizeof path) > 0);
    CHECK(strstr(path, "probe"));
    struct stat stat;
    CHECK(fstat(0, &stat) == 0 && fstat(3, &stat) == -1 && errno == EBADF);
    CHECK(isatty(1) == 0 && errno == ENOTTY);
}

static void closed(void) {
    // The pipe's reader is gone: SIGPIPE ends a writer that did not ask for the error.
    for (;;) if (write(1, "y\n", 2) < 0) exit(3);
}

static void ignored(void) {
    signal(SIGPIPE, SIG_IGN);
    for (;;) if (write(1, "y\n", 2) < 0) exit(errno == EPIPE ? 4 : 3);
}

static void loop(void) {
    for (;;) __asm__ volatile("");
}

static void calls(void) {
    int count = 20000;
    struct timespec one, two;
    clock_gettime(CLOCK_MONOTONIC, &one);
    for (int turn = 0; turn < count; turn++) syscall(SYS_getppid);
    clock_gettime(CLOCK_MONOTONIC, &two);
    printf("%ld ns\n", ((two.tv_sec - one.tv_sec) * 1000000000L + two.tv_nsec - one.tv_nsec) / count);
}

int main(int argc, char **argv) {
    struct { const char *name; void (*deed)(void); } deeds[] = {
        {"guard", guard}, {"readonly", readonly}, {"unmapped", unmapped}, {"upgrade", upgrade}, {"noexec", noexec},
        {"zeroed", zeroed}, {"efault", efault}, {"badfd", badfd}, {"enosys", enosys}, {"exhaust", exhaust}, {"avx", avx},
        {"stack", stack}, {"divide", divide}, {"clocks", clocks}, {"auxiliary", auxiliary}, {"closed", closed},
        {"ignored", ignored}, {"loop", loop}, {"calls", calls}, {"step", step}, {"abort", abort},
    };
    const char *wanted = argc > 1 ? argv[1] : "";
    if (!strcmp(wanted, "status")) return atoi(argv[2]);
    if (!strcmp(wanted, "null")) return *(volatile int *)NULL;
    if (!strcmp(wanted, "jump")) ((void (*)(void))0x123456)();
    if (!strcmp(wanted, "undefined")) __builtin_trap();
    if (!strcmp(wanted, "privileged")) __asm__ volatile("hlt");
    if (!strcmp(wanted, "doorbell")) *(volatile int *)0x3000 = 60;
    if (!strcmp(wanted, "tables")) return *(volatile int *)0x1000;
    if (!strcmp(wanted, "sleep")) pause();
    if (!strcmp(wanted, "futex")) syscall(SYS_futex, &(int){5}, 0, 5, NULL);
    for (unsigned i = 0; i < sizeof deeds / sizeof *deeds; i++)
        if (!strcmp(wanted, deeds[i].name)) {
            deeds[i].deed();
            return 0;
        }
    fprintf(stderr, "unknown deed: %s\n", wanted);
    return 2;
}
