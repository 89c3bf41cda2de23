/* A stand-in for NVIDIA's management library, for tests on machines without GPUs.
 *
 * Built as libnvidia-ml.so.1. Answers come from the file named by FAKE_NVML_PROFILE, one line each:
 *
 *     function arguments = value        nvmlDeviceGetName gpu0 = NVIDIA H100 80GB HBM3
 *     function arguments = !code        nvmlDeviceGetName gpu3 = !15
 *     function arguments = !hang        no answer for ten seconds
 *
 * Devices are written gpu3, MIG slices gpu3/1. A question that no line answers is "not supported" (3).
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SUCCESS 0
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define TIMEOUT 10
#define VERSION_MISMATCH 25
#define MAX_LINES 20000

typedef void *Device;

typedef struct {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
} PciInfo;

typedef struct {
    uint32_t field, scope;
    int64_t timestamp, latency;
    uint32_t type, result;
    union { double d; uint32_t u; uint64_t ull; } value;
} FieldValue;

typedef struct {
    unsigned version;
    uint8_t uuid[16];
    unsigned status, clique;
    uint8_t state;
    unsigned mask;
    uint8_t summary;
} FabricInfo;

typedef struct {
    unsigned multiprocessors, engines[5], gpu_slices, compute_slices;
    uint64_t megabytes;
} Attributes;

static char *keys[MAX_LINES], *values[MAX_LINES];
static int lines;

static void load(void) {
    const char *path = getenv("FAKE_NVML_PROFILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512];
    for (int i = 0; i < lines; i++) free(keys[i]);
    lines = 0;
    while (file && lines < MAX_LINES && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *cut = strstr(line, " = ");
        if (!cut) continue;
        *cut = 0;
        keys[lines] = strdup(line);
        keys[lines] = realloc(keys[lines], strlen(line) + strlen(cut + 3) + 2);
        values[lines] = strcpy(keys[lines] + strlen(line) + 1, cut + 3);
        lines++;
    }
    if (file) fclose(file);
}

static const char *name(Device device, char *buffer) {
    unsigned number = (unsigned)(uintptr_t)device - 1000;
    if (number % 100) sprintf(buffer, "gpu%u/%u", number / 100, number % 100 - 1);
    else sprintf(buffer, "gpu%u", number / 100);
    return buffer;
}

/* Returns the code of the answer; the text of a successful one in *value. */
static int answer(const char *function, const char *arguments, const char **value) {
    char key[160];
    snprintf(key, sizeof key, *arguments ? "%s %s" : "%s%s", function, arguments);
    for (int i = 0; i < lines; i++)
        if (!strcmp(keys[i], key)) {
            if (!strcmp(values[i], "!hang")) {
                sleep(10); /* the lines may be others afterwards */
                return TIMEOUT;
            }
            if (values[i][0] == '!') return atoi(values[i] + 1);
            *value = values[i];
            return SUCCESS;
        }
    return NOT_SUPPORTED;
}

static int of_device(const char *function, Device device, const char *more, const char **value) {
    char buffer[32], arguments[96];
    snprintf(arguments, sizeof arguments, "%s%s", name(device, buffer), more);
    return answer(function, arguments, value);
}

static int numbers(const char *function, Device device, const char *more, int count, unsigned *out[]) {
    const char *value;
    int code = of_device(function, device, more, &value);
    if (code) return code;
    for (int i = 0; i < count; i++) {
        char *end;
        *out[i] = (unsigned)strtoul(value, &end, 0);
        value = end;
    }
    return SUCCESS;
}

static int text(const char *function, const char *arguments, char *out, unsigned size) {
    const char *value;
    int code = answer(function, arguments, &value);
    if (!code) snprintf(out, size, "%s", value);
    return code;
}

int nvmlInitWithFlags(unsigned flags) {
    const char *value;
    (void)flags;
    load();
    int code = answer("nvmlInit", "", &value);
    return code == NOT_SUPPORTED ? SUCCESS : code;
}
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { (void)code; return "an error of the stand-in"; }

int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    return text("nvmlSystemGetDriverVersion", "", out, size);
}
int nvmlDeviceGetCount_v2(unsigned *out) {
    const char *value;
    int code = answer("nvmlDeviceGetCount", "", &value);
    if (!code) *out = atoi(value);
    return code;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *out) {
    *out = (Device)(uintptr_t)(1000 + 100 * index);
    return SUCCESS;
}
int nvmlDeviceGetMigDeviceHandleByIndex(Device device, unsigned index, Device *out) {
    *out = (Device)((uintptr_t)device + 1 + index);
    return SUCCESS;
}

#define TEXT(function)                                         \
    int function(Device device, char *out, unsigned size) {    \
        char buffer[32];                                       \
        return text(#function, name(device, buffer), out, size); \
    }
TEXT(nvmlDeviceGetName)
TEXT(nvmlDeviceGetUUID)

#define ONE(function)                                          \
    int function(Device device, unsigned *out) {               \
        return numbers(#function, device, "", 1, &out);        \
    }
ONE(nvmlDeviceGetMaxMigDeviceCount)
ONE(nvmlDeviceGetNumGpuCores)
ONE(nvmlDeviceGetMemoryBusWidth)
ONE(nvmlDeviceGetEnforcedPowerLimit)
ONE(nvmlDeviceGetPowerManagementDefaultLimit)
ONE(nvmlDeviceGetMaxPcieLinkGeneration)
ONE(nvmlDeviceGetMaxPcieLinkWidth)
ONE(nvmlDeviceGetCurrPcieLinkWidth)
ONE(nvmlDeviceGetVirtualizationMode)
ONE(nvmlDeviceGetNumaNodeId)
ONE(nvmlDeviceGetRetiredPagesPendingStatus)

#define TWO(function)                                                     \
    int function(Device device, unsigned *first, unsigned *second) {      \
        return numbers(#function, device, "", 2, (unsigned *[]){first, second}); \
    }
TWO(nvmlDeviceGetCudaComputeCapability)
TWO(nvmlDeviceGetMigMode)

#define INDEXED(function)                                                 \
    int function(Device device, unsigned index, unsigned *out) {          \
        char more[32];                                                    \
        sprintf(more, " %u", index);                                      \
        return numbers(#function, device, more, 1, &out);                 \
    }
INDEXED(nvmlDeviceGetMaxClockInfo)
INDEXED(nvmlDeviceGetNvLinkState)
INDEXED(nvmlDeviceGetNvLinkVersion)
INDEXED(nvmlDeviceGetNvLinkRemoteDeviceType)

int nvmlDeviceGetRemappedRows(Device device, unsigned *a, unsigned *b, unsigned *c, unsigned *d) {
    return numbers("nvmlDeviceGetRemappedRows", device, "", 4, (unsigned *[]){a, b, c, d});
}
int nvmlDeviceGetCurrentClocksEventReasons(Device device, uint64_t *out) {
    unsigned low = 0;
    int code = numbers("nvmlDeviceGetCurrentClocksEventReasons", device, "", 1, (unsigned *[]){&low});
    if (!code) *out = low;
    return code;
}
int nvmlDeviceGetTotalEccErrors(Device device, unsigned kind, unsigned counter, uint64_t *out) {
    unsigned low = 0;
    char more[32];
    sprintf(more, " %u %u", kind, counter);
    int code = numbers("nvmlDeviceGetTotalEccErrors", device, more, 1, (unsigned *[]){&low});
    if (!code) *out = low;
    return code;
}
int nvmlDeviceGetMemoryInfo(Device device, uint64_t out[3]) {
    const char *value;
    int code = of_device("nvmlDeviceGetMemoryInfo", device, "", &value);
    if (!code) { out[0] = out[1] = strtoull(value, NULL, 10); out[2] = 0; }
    return code;
}
int nvmlDeviceGetAttributes_v2(Device device, Attributes *out) {
    memset(out, 0, sizeof *out);
    return numbers("nvmlDeviceGetAttributes", device, "", 1, (unsigned *[]){&out->multiprocessors});
}

static int pci(const char *function, Device device, const char *more, PciInfo *out) {
    const char *value;
    int code = of_device(function, device, more, &value);
    if (code) return code;
    memset(out, 0, sizeof *out);
    sscanf(value, "%31s %x", out->bus_id, &out->id);
    return SUCCESS;
}
int nvmlDeviceGetPciInfo_v3(Device device, PciInfo *out) {
    return pci("nvmlDeviceGetPciInfo", device, "", out);
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(Device device, unsigned link, PciInfo *out) {
    char more[32];
    sprintf(more, " %u", link);
    return pci("nvmlDeviceGetNvLinkRemotePciInfo", device, more, out);
}
int nvmlDeviceGetFieldValues(Device device, int count, FieldValue *out) {
    for (int i = 0; i < count; i++) {
        char more[32];
        sprintf(more, " %u %u", out[i].field, out[i].scope);
        out[i].type = 1;
        out[i].result = numbers("nvmlDeviceGetFieldValues", device, more, 1, (unsigned *[]){&out[i].value.u});
    }
    return SUCCESS;
}

static int of_pair(const char *function, Device a, Device b, const char *more, unsigned *out) {
    char second[64], buffer[32];
    snprintf(second, sizeof second, " %s%s", name(b, buffer), more);
    return numbers(function, a, second, 1, &out);
}
int nvmlDeviceGetP2PStatus(Device a, Device b, unsigned index, unsigned *out) {
    char more[16];
    sprintf(more, " %u", index);
    return of_pair("nvmlDeviceGetP2PStatus", a, b, more, out);
}
int nvmlDeviceGetTopologyCommonAncestor(Device a, Device b, unsigned *out) {
    return of_pair("nvmlDeviceGetTopologyCommonAncestor", a, b, "", out);
}
int nvmlDeviceGetGpuFabricInfoV(Device device, FabricInfo *out) {
    const char *value;
    int code = of_device("nvmlDeviceGetGpuFabricInfoV", device, "", &value);
    if (code) return code;
    if (out->version >> 24 > 3) return VERSION_MISMATCH;
    unsigned clique, state, mask;
    char uuid[33];
    if (sscanf(value, "%32s %u %u %x", uuid, &clique, &state, &mask) != 4) return INVALID_ARGUMENT;
    for (int i = 0; i < 16; i++) {
        unsigned byte;
        sscanf(uuid + 2 * i, "%2x", &byte);
        out->uuid[i] = byte;
    }
    out->status = 0; out->clique = clique; out->state = state; out->mask = mask;
    return SUCCESS;
}
