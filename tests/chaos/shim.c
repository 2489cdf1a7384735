/* Preloaded into a Redis server (LD_PRELOAD): a slow disk, a wrong clock, a full disk.
 *
 * SHIM_CONTROL names a file of four 64-bit numbers that is mapped and read at each call, so that the harness turns the
 * knobs while the server runs (tests/chaos/shim.py has the same layout). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    volatile int64_t fsync_ms;   /* added to each fsync and fdatasync */
    volatile int64_t clock_us;   /* added to the time of day; the monotonic clock stays right */
    volatile int64_t disk_full;  /* 1: writing to a regular file fails */
    volatile int64_t fsyncs;     /* counted here, for the harness to see that the shim is in place */
};

static struct control none;
static struct control *control = &none;

__attribute__((constructor)) static void map_control(void) {
    const char *name = getenv("SHIM_CONTROL");
    int fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED) control = mapped;
    close(fd);
}

#define REAL(name) ((__typeof__(&name))real(&real_##name, #name))
static void *real(void **known, const char *name) {
    if (!*known) *known = dlsym(RTLD_NEXT, name);
    return *known;
}
static void *real_fsync, *real_fdatasync, *real_write, *real_writev, *real_pwrite;
static void *real_gettimeofday, *real_clock_gettime, *real_time;

static void slow(void) {
    int64_t ms = control->fsync_ms;
    __atomic_add_fetch(&control->fsyncs, 1, __ATOMIC_RELAXED);
    if (ms <= 0) return;
    struct timespec rest = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&rest, &rest) != 0 && errno == EINTR) {}
}

int fsync(int fd) { slow(); return REAL(fsync)(fd); }
int fdatasync(int fd) { slow(); return REAL(fdatasync)(fd); }

/* The log (standard output and error) may be a file too, and sockets are none. */
static int full(int fd) {
    struct stat found;
    if (!control->disk_full || fd <= 2 || fstat(fd, &found) != 0 || !S_ISREG(found.st_mode)) return 0;
    errno = ENOSPC;
    return 1;
}

ssize_t write(int fd, const void *bytes, size_t count) { return full(fd) ? -1 : REAL(write)(fd, bytes, count); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return full(fd) ? -1 : REAL(writev)(fd, parts, count); }
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    return full(fd) ? -1 : REAL(pwrite)(fd, bytes, count, at);
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = REAL(gettimeofday)(now, zone);
    if (result == 0 && control->clock_us) {
        int64_t us = (int64_t)now->tv_sec * 1000000 + now->tv_usec + control->clock_us;
        now->tv_sec = us / 1000000;
        now->tv_usec = us % 1000000;
    }
    return result;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    if (result == 0 && control->clock_us && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t us = (int64_t)now->tv_sec * 1000000 + now->tv_nsec / 1000 + control->clock_us;
        now->tv_nsec = us % 1000000 * 1000 + now->tv_nsec % 1000;
        now->tv_sec = us / 1000000;
    }
    return result;
}

time_t time(time_t *into) {
    time_t now = REAL(time)(NULL) + control->clock_us / 1000000;
    if (into) *into = now;
    return now;
}
