/* As much of NVML as Ray's agents need to tell the memory of two GPUs: what is in use stands in a file,
 * in MiB for each GPU, whose path is in FAKE_NVML_MEMORY. Whatever is missing here NVML may lack, too. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GPUS 2
#define MIB (1024ULL * 1024ULL)
#define TOTAL (81920ULL * MIB)

typedef struct { unsigned long long total, free, used; } memory_t;
static int handles[GPUS];

int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned int flags) { (void)flags; return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int result) { (void)result; return "not in this stand-in"; }

int nvmlDeviceGetCount_v2(unsigned int *count) { *count = GPUS; return 0; }

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    if (index >= GPUS) return 2;
    *device = &handles[index];
    return 0;
}

static int number(void *device) { return (int)((int *)device - handles); }

int nvmlDeviceGetName(void *device, char *name, unsigned int length) {
    (void)device;
    snprintf(name, length, "Stand-in");
    return 0;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int length) {
    snprintf(uuid, length, "GPU-stand-in-%d", number(device));
    return 0;
}

static int no_processes(unsigned int *count) { *count = 0; return 0; }

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count, void *infos) {
    (void)device, (void)infos;
    return no_processes(count);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned int *count, void *infos) {
    (void)device, (void)infos;
    return no_processes(count);
}

int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    unsigned long long used[GPUS] = {0};
    const char *path = getenv("FAKE_NVML_MEMORY");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (file) {
        if (fscanf(file, "%llu %llu", &used[0], &used[1]) < GPUS) memset(used, 0, sizeof used);
        fclose(file);
    }
    memory->total = TOTAL;
    memory->used = used[number(device)] * MIB;
    memory->free = TOTAL - memory->used;
    return 0;
}
