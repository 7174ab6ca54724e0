/* A libcuda that writes down how it is called: what the real bindings make of the arguments they are given.
   A call named by fail_call() answers with its code. The structures are laid out as in cuda.h. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct { int type, id; } Location;
typedef struct { int type, handle_types; Location location; void *win32; unsigned char flags[8]; } Properties;
typedef struct { Location location; int flags; } Access;

char written[1 << 16];
static const char *failing;
static int code;

void fail_call(const char *name, int with) { failing = name; code = with; }

#define CALL(name, ...)                                                        \
    do {                                                                       \
        size_t at = strlen(written);                                           \
        at += snprintf(written + at, sizeof written - at, name " " __VA_ARGS__); \
        snprintf(written + at, sizeof written - at, "\n");                     \
        if (failing && !strcmp(failing, name)) return code;                    \
    } while (0)

int cuInit(unsigned flags) { CALL("cuInit", "%u", flags); return 0; }
int cuDeviceGet(int *device, int ordinal) { CALL("cuDeviceGet", "%d", ordinal); *device = ordinal + 100; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    CALL("cuDevicePrimaryCtxRetain", "%d", device);
    *context = (void *)0xC0;
    return 0;
}
int cuCtxSetCurrent(void *context) { CALL("cuCtxSetCurrent", "%p", context); return 0; }
int cuMemGetAllocationGranularity(size_t *size, const Properties *p, int option) {
    CALL("cuMemGetAllocationGranularity", "%d %d %d:%d %d", p->type, p->handle_types, p->location.type,
         p->location.id, option);
    *size = 1 << 21;
    return 0;
}
int cuMemAddressReserve(uint64_t *address, size_t size, size_t alignment, uint64_t near, unsigned long long flags) {
    CALL("cuMemAddressReserve", "%zu %zu %lx %llu", size, alignment, near, flags);
    *address = 0x7f0000000000;
    return 0;
}
int cuMemAddressFree(uint64_t address, size_t size) { CALL("cuMemAddressFree", "%lx %zu", address, size); return 0; }
int cuMemCreate(uint64_t *handle, size_t size, const Properties *p, unsigned long long flags) {
    CALL("cuMemCreate", "%zu %d %d %d:%d %llu", size, p->type, p->handle_types, p->location.type, p->location.id,
         flags);
    *handle = 0xFFFFFFFFFFFFFF01;
    return 0;
}
int cuMemRelease(uint64_t handle) { CALL("cuMemRelease", "%lx", handle); return 0; }
int cuMemMap(uint64_t address, size_t size, size_t offset, uint64_t handle, unsigned long long flags) {
    CALL("cuMemMap", "%lx %zu %zu %lx %llu", address, size, offset, handle, flags);
    return 0;
}
int cuMemUnmap(uint64_t address, size_t size) { CALL("cuMemUnmap", "%lx %zu", address, size); return 0; }
int cuMemSetAccess(uint64_t address, size_t size, const Access *access, size_t count) {
    CALL("cuMemSetAccess", "%lx %zu %d:%d %d %zu", address, size, access->location.type, access->location.id,
         access->flags, count);
    return 0;
}
int cuMemGetInfo_v2(size_t *free, size_t *total) {
    CALL("cuMemGetInfo", "-");
    *free = (size_t)5 << 30;
    *total = (size_t)80 << 30;
    return 0;
}
int cuMemHostRegister_v2(void *address, size_t size, unsigned flags) {
    CALL("cuMemHostRegister", "%p %zu %u", address, size, flags);
    return 0;
}
int cuMemHostUnregister(void *address) { CALL("cuMemHostUnregister", "%p", address); return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t target, const void *source, size_t size, void *stream) {
    CALL("cuMemcpyHtoDAsync", "%lx %p %zu %p", target, source, size, stream);
    return 0;
}
int cuMemcpyDtoHAsync_v2(void *target, uint64_t source, size_t size, void *stream) {
    CALL("cuMemcpyDtoHAsync", "%p %lx %zu %p", target, source, size, stream);
    return 0;
}
int cuStreamCreate(void **stream, unsigned flags) {
    CALL("cuStreamCreate", "%u", flags);
    *stream = (void *)0x51;
    return 0;
}
int cuStreamSynchronize(void *stream) {
    CALL("cuStreamSynchronize", "%p", stream);
    usleep(200000);
    return 0;
}
int cuStreamDestroy_v2(void *stream) { CALL("cuStreamDestroy", "%p", stream); return 0; }
int cuEventCreate(void **event, unsigned flags) {
    CALL("cuEventCreate", "%u", flags);
    *event = (void *)0xE1;
    return 0;
}
int cuEventRecord(void *event, void *stream) { CALL("cuEventRecord", "%p %p", event, stream); return 0; }
int cuEventSynchronize(void *event) { CALL("cuEventSynchronize", "%p", event); return 0; }
int cuEventDestroy_v2(void *event) { CALL("cuEventDestroy", "%p", event); return 0; }

/* Through which the bindings find all of the above. */
int cuGetProcAddress_v2(const char *name, void **found, int version, uint64_t flags, int *status) {
    void *self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    char second[128];
    snprintf(second, sizeof second, "%s_v2", name);
    *found = dlsym(self, name);
    if (!*found) *found = dlsym(self, second);
    if (status) *status = !*found;
    return *found ? 0 : 500;
}
