/* A library that answers as NVML does, for two GPUs of a constant 250 W and 400 W: it exercises NVML's real Python
 * binding (its structures and calls) where there is no GPU. Counters are in mJ since the library was loaded. */
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, POWER_INSTANT = 186, SCOPE_GPU = 0 };
static struct timespec loaded;
static int gpus[2] = {250, 400};

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - loaded.tv_sec) + 1e-9 * (now.tv_nsec - loaded.tv_nsec);
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    if (!loaded.tv_sec) clock_gettime(CLOCK_MONOTONIC, &loaded);
    return SUCCESS;
}
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, int **gpu) { *gpu = &gpus[index]; return SUCCESS; }
int nvmlDeviceGetUUID(int *gpu, char *text, unsigned length) {
    snprintf(text, length, "GPU-%08d-0000-0000-0000-000000000000", *gpu);
    return SUCCESS;
}
int nvmlDeviceGetName(int *gpu, char *text, unsigned length) {
    (void)gpu;
    snprintf(text, length, "Pretended GPU");
    return SUCCESS;
}
int nvmlDeviceGetTotalEnergyConsumption(int *gpu, unsigned long long *mJ) { *mJ = 1e3 * *gpu * seconds(); return SUCCESS; }
int nvmlDeviceGetMigMode(int *gpu, unsigned *now, unsigned *later) {
    (void)gpu;
    *now = *later = 0;
    return *gpu == 250 ? NOT_SUPPORTED : SUCCESS;
}
struct field {
    unsigned id, scope;
    long long time, latency;
    int type, result;
    union { double d; unsigned u; unsigned long long ull; } value;
};
int nvmlDeviceGetFieldValues(int *gpu, int count, struct field *fields) {
    for (int i = 0; i < count; i++) {
        int known = fields[i].id == POWER_INSTANT && fields[i].scope == SCOPE_GPU && *gpu == 400;
        fields[i].result = known ? SUCCESS : NOT_SUPPORTED;
        fields[i].value.ull = 0;
        fields[i].value.u = known ? 1000 * *gpu : 0;
    }
    return SUCCESS;
}
int nvmlDeviceGetPowerUsage(int *gpu, unsigned *mW) { *mW = 1000 * *gpu; return SUCCESS; }
